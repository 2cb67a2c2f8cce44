"""An archive with a golden sample whose code is a stub, torch too: its process starts at once."""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy

from archives.building.golden_picture import drawn_picture, png
from archives.golden import golden_files
from archives.verify import TORCHSERVE_MANIFEST
from handlers.manifest import MANIFEST_NAME, Manifest

TORCH = """
from types import SimpleNamespace
several = ("mkldnn", "nnpack", "cudnn")
backends = SimpleNamespace(
    **{name: SimpleNamespace(set_flags=lambda *_: None) for name in several})
set_num_threads = set_num_interop_threads = lambda number: None
use_deterministic_algorithms = lambda yes, warn_only: None
"""
EXPLAINER = """
from dataclasses import dataclass
from types import SimpleNamespace
import numpy as np

@dataclass(frozen=True)
class ExplainRequest:
    box: object = None
    candidates: int = 0
    masks: int = 9

    @classmethod
    def from_fields(cls, values, defaults):
        return cls(**values)

class Map(np.ndarray):
    def numpy(self):
        return np.asarray(self)

class Explainer:
    defaults = ExplainRequest()

    @classmethod
    def from_archive(cls, folder, device, run_code):
        return cls()

    def explain(self, pictures, request):
        return [[
            SimpleNamespace(box=(1.0, 2.0, 8.0 + place, 9.0), label=1, category="cat",
                score=0.5 - place / 10,
                heatmap=np.arange(6, dtype=np.float32).reshape(2, 3).view(Map) + place)
            for place in range(request.candidates)
        ]]
"""
REQUEST = {"candidates": 2, "masks": 9}
EXPLANATIONS = [
    {"box": [1.0, 2.0, 8.0 + place, 9.0], "label": 1, "category": "cat", "score": 0.5 - place / 10}
    for place in range(2)
]
MAPS = [np.arange(6, dtype=np.float32).reshape(2, 3) + place for place in range(2)]
SERVED = {
    "modelName": "stub",
    "modelVersion": "1.0",
    "handler": "explain_handler.py",
    "serializedFile": "weights.safetensors",
    "configFile": "model-config.yaml",
}


def stub_files(changed: Mapping[str, bytes] | None = None, **about: Any) -> dict[str, bytes]:
    """The archive's files; `changed` are replaced before the digests are taken. about: fields of
    the manifest."""
    files = {
        "explain_handler.py": b"",
        "model-config.yaml": b"",
        "weights.safetensors": safetensors.numpy.save({"w": np.zeros(1, np.float32)}),
        "torch.py": TORCH.encode(),
        "handlers/__init__.py": b"",
        "handlers/explainer.py": EXPLAINER.encode(),
        "handlers/images.py": b"decode_picture = bytes",
    }
    files |= golden_files(png(drawn_picture()), REQUEST, EXPLANATIONS, MAPS)
    files |= changed or {}
    digests = {name: hashlib.sha256(data).hexdigest() for name, data in files.items()}
    manifest = replace(Manifest("stub", "1.0", "none", ("__background__", "cat"), digests), **about)
    files[MANIFEST_NAME] = manifest.to_json()
    files[TORCHSERVE_MANIFEST] = json.dumps({"runtime": "python", "model": SERVED}).encode()
    return files


def packed(files: Mapping[str, bytes], compression: int = zipfile.ZIP_STORED) -> bytes:
    """The files as a zip."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as out:
        for name, data in files.items():
            out.writestr(name, data)
    return buffer.getvalue()


def write_stub(
    path: Path, changed: Mapping[str, bytes] | None = None, without: str = "", **about: str
) -> Path:
    """Writes the archive, without one of its files."""
    files = {k: v for k, v in stub_files(changed, **about).items() if k != without}
    path.write_bytes(packed(files))
    return path
