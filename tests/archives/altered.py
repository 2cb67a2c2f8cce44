"""Archives made of another one in a moment: other files, another manifest, right digests."""

from __future__ import annotations

import hashlib
import json
import zipfile
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from archives.golden import EXPECTED, golden_files
from archives.verify import TORCHSERVE_MANIFEST
from handlers.explainer import Explainer, ExplainRequest
from handlers.images import decode_picture
from handlers.manifest import MANIFEST_NAME, Manifest


def altered(
    source: Path, target: Path, files: Mapping[str, bytes] | None = None, **changes: Any
) -> Path:
    """`source` with `files` added or replaced, and fields of its manifest changed, as `target`."""
    added = dict(files or {})
    with zipfile.ZipFile(source) as opened:
        content = {name: opened.read(name) for name in opened.namelist()}
    old = Manifest.from_json(content[MANIFEST_NAME])
    digests = {name: hashlib.sha256(data).hexdigest() for name, data in added.items()}
    manifest = replace(old, files={**old.files, **digests}, **changes)
    described = json.loads(content[TORCHSERVE_MANIFEST])
    described["model"] |= {"modelName": manifest.name, "modelVersion": manifest.version}
    content |= added
    content[MANIFEST_NAME] = manifest.to_json()
    content[TORCHSERVE_MANIFEST] = json.dumps(described).encode()
    target.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(target, "w") as out:
        for name in sorted(content):
            out.writestr(name, content[name])
    return target


def with_golden(source: Path, target: Path, picture: bytes) -> Path:
    """`source` with a golden sample of `picture`, a PNG, if it has none."""
    with zipfile.ZipFile(source) as opened:
        if EXPECTED in opened.namelist():
            return source
    request = ExplainRequest(method="gradcam")
    explained = Explainer.from_archive(source).explain([decode_picture(picture)], request)[0]
    fields = {name: each for name, each in asdict(request).items() if name != "save_raw"}
    names = ("box", "label", "category", "score")
    described = [{name: getattr(each, name) for name in names} for each in explained]
    maps = [each.heatmap.numpy() for each in explained]
    return altered(source, target, golden_files(picture, fields, described, maps))


def other_golden(source: Path, target: Path, **changes: Any) -> Path:
    """`source` whose golden sample expects other scores."""
    with zipfile.ZipFile(source) as opened:
        expected = json.loads(opened.read(EXPECTED))
    for each in expected["explanations"]:
        each["score"] -= 0.01
    return altered(source, target, {EXPECTED: json.dumps(expected).encode()}, **changes)
