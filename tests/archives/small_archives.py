"""Archives that verify and hold next to nothing, of any name, version and weights."""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy

from archives.signatures.keys import PrivateKey
from archives.signatures.signing import sign, signature_of
from archives.verify import TORCHSERVE_MANIFEST
from handlers.manifest import MANIFEST_NAME, Manifest


def write_small(
    path: Path,
    version: str = "1.0",
    name: str = "demo",
    tensors: dict[str, Any] | None = None,
    categories: tuple[str, ...] = ("__background__", "disc", "ring"),
    config: str = "minWorkers: 1\n",
    **facts: Any,
) -> Path:
    """Writes it; `facts` are other fields of its manifest, or `extra`: more files."""
    extra: dict[str, bytes] = facts.pop("extra", {})
    files = {
        "explain_handler.py": b"raise SystemExit('never run')",
        "model-config.yaml": config.encode(),
        "weights.safetensors": safetensors.numpy.save(tensors or {"a": np.ones(3, np.float32)}),
        **extra,
    }
    manifest = Manifest(
        name=name,
        version=version,
        architecture="fasterrcnn_resnet50_fpn",
        categories=categories,
        files={each: hashlib.sha256(data).hexdigest() for each, data in files.items()},
        **facts,
    )
    model = {
        "modelName": name,
        "modelVersion": version,
        "handler": "explain_handler.py",
        "serializedFile": "weights.safetensors",
        "configFile": "model-config.yaml",
    }
    files[MANIFEST_NAME] = manifest.to_json()
    files[TORCHSERVE_MANIFEST] = json.dumps({"runtime": "python", "model": model}).encode()
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as out:
        for each, data in files.items():
            out.writestr(zipfile.ZipInfo(each), data)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(buffer.getvalue())
    return path


def write_signature(path: Path, archive: Path, *keys: PrivateKey) -> Path:
    """Writes the archive's signature by these keys."""
    beside = signature_of(archive)
    beside.unlink(missing_ok=True)
    for key in keys:
        beside.write_bytes(sign(archive, key))
    return beside.rename(path)
