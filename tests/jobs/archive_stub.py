"""An archive that verifies and whose code is a stub: quick to start, because it needs no torch.

Every picture fails in it, with a message that shows whose code ran.
"""

from __future__ import annotations

import hashlib
import json
import struct
import zipfile
from dataclasses import replace
from pathlib import Path

from archives.verify import TORCHSERVE_MANIFEST
from handlers import manifest
from handlers.manifest import MANIFEST_NAME, Manifest

MESSAGE = "decoded by the archive's own code"
SCHEMA = """
from dataclasses import dataclass

class RequestError(ValueError):
    pass

@dataclass
class ExplainRequest:
    method: str = "stub"

    @classmethod
    def from_fields(cls, values, defaults):
        return cls(**values)
"""
IMAGES = f"""
import hooks

class PictureError(ValueError):
    pass

def decode_picture(data):
    hooks.decode(data)
    raise PictureError({MESSAGE!r})
"""
EXPLAINER = """
import hooks
from handlers.schema import RequestError

class Explainer:
    defaults = None

    @classmethod
    def from_archive(cls, path, device, precision, run_code):
        hooks.load(path)
        return cls()

    def resolved(self, request):
        return request

    def check(self, request):
        if request.method != "stub":
            raise RequestError(f"method: got {request.method!r}; allowed: stub")

    def explain(self, pictures, request, batch_size):
        return []

    def preview(self, target):
        return f"the archive's own modules for {target}"
"""
HOOKS = """
def load(path):
    pass

def decode(data):
    pass
"""
CODE = {
    "handlers/__init__.py": "",
    "handlers/manifest.py": Path(manifest.__file__).read_text(),
    "handlers/schema.py": SCHEMA,
    "handlers/images.py": IMAGES,
    "handlers/explainer.py": EXPLAINER,
    "handlers/render.py": "draw_boxes = encode_jpeg = overlay_all = None",
    "handlers/tap.py": "class NonFiniteError(ValueError):\n    pass",
    "handlers/metrics/__init__.py": "",
    "handlers/metrics/pointing.py": "energy_in_box = peak = None",
}


def write_archive(path: Path, hooks: str = "", with_code: bool = True, newer: int = 0) -> Path:
    """Writes the archive; `hooks` is code that replaces the functions `load` and `decode`."""
    files = {
        "explain_handler.py": b"",
        "model-config.yaml": b"",
        "weights.safetensors": _weights(),
        "hooks.py": (HOOKS + hooks).encode(),
    }
    if with_code:
        files |= {name: text.encode() for name, text in CODE.items()}
    digests = {name: hashlib.sha256(data).hexdigest() for name, data in files.items()}
    about = Manifest("stub", "1.0", "none", ("__background__", "cat"), digests)
    about = replace(about, format=about.format + newer)
    files[MANIFEST_NAME] = about.to_json()
    served = {
        "modelName": "stub",
        "modelVersion": "1.0",
        "handler": "explain_handler.py",
        "serializedFile": "weights.safetensors",
        "configFile": "model-config.yaml",
    }
    files[TORCHSERVE_MANIFEST] = json.dumps({"runtime": "python", "model": served}).encode()
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return path


def _weights() -> bytes:
    header = json.dumps({"w": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}).encode()
    return struct.pack("<Q", len(header)) + header + bytes(4)
