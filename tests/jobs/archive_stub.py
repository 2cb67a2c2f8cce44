"""An archive that verifies and whose code is a stub: quick to start, because it needs no torch.

A picture is any file that begins with b"ok": it has up to three boxes, whose maps depend on its
bytes. Any other fails, with a message that shows whose code
ran.
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
import zlib

import numpy as np

import hooks

class PictureError(ValueError):
    pass

def decode_picture(data):
    hooks.decode(data)
    if not data.startswith(b"ok"):
        raise PictureError({MESSAGE!r})
    return np.full((3, 10, 20), zlib.crc32(data) % 256, np.uint8)
"""
EXPLAINER = """
from types import SimpleNamespace

import numpy as np

import hooks
from handlers.schema import RequestError

class Geometry:
    def to_dict(self):
        names = "picture_width picture_height frame_width frame_height scale_x scale_y"
        return dict.fromkeys(names.split(), 1)

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

    def explain(self, pictures, request, batch_size=None):
        for picture in pictures:
            hooks.explain(int(picture[0, 0, 0]))
        return [
            [self.box(int(picture[0, 0, 0]), index) for index in range(picture[0, 0, 0] % 4)]
            for picture in pictures
        ]

    def box(self, grey, index):
        return SimpleNamespace(
            index=index, box=(1.0, 2.0, 8.0 + index, 9.0), label=1, category="cat",
            score=0.9 - index / 10, method="stub", target="class", layer="emitting", level="0",
            outcome="reported", suppressed_by=None, together=(), geometry=Geometry(),
            heatmap=np.arange(6, dtype=np.float32).reshape(2, 3) * (grey + index),
            activation=None, gradient=None,
        )

    def preview(self, target):
        return f"the archive's own modules for {target}"
"""
HOOKS = """
def load(path):
    pass

def decode(data):
    pass

def explain(grey):
    pass
"""
POINTING = """
def energy_in_box(explanation):
    return 0.5

def peak(explanation):
    return 1.0, 2.0
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
    "handlers/metrics/pointing.py": POINTING,
}


def write_archive(
    path: Path,
    hooks: str = "",
    with_code: bool = True,
    newer: int = 0,
    name: str = "stub",
    version: str = "1.0",
) -> Path:
    """Writes the archive; `hooks` is code that replaces `load`, `decode` and `explain`."""
    files = {
        "explain_handler.py": b"",
        "model-config.yaml": b"",
        "weights.safetensors": _weights(),
        "hooks.py": (HOOKS + hooks).encode(),
    }
    if with_code:
        files |= {file: text.encode() for file, text in CODE.items()}
    digests = {file: hashlib.sha256(data).hexdigest() for file, data in files.items()}
    about = Manifest(name, version, "none", ("__background__", "cat"), digests)
    about = replace(about, format=about.format + newer)
    files[MANIFEST_NAME] = about.to_json()
    served = {
        "modelName": name,
        "modelVersion": version,
        "handler": "explain_handler.py",
        "serializedFile": "weights.safetensors",
        "configFile": "model-config.yaml",
    }
    files[TORCHSERVE_MANIFEST] = json.dumps({"runtime": "python", "model": served}).encode()
    with zipfile.ZipFile(path, "w") as archive:
        for file, data in files.items():
            archive.writestr(file, data)
    return path


def _weights() -> bytes:
    header = json.dumps({"w": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}).encode()
    return struct.pack("<Q", len(header)) + header + bytes(4)
