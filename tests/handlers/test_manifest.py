from __future__ import annotations

import hashlib
import json
from dataclasses import replace

import pytest

from handlers.manifest import FORMAT_VERSION, ArchiveError, Manifest

MANIFEST = Manifest("demo", "1.0", "fasterrcnn_resnet50_fpn", ("__background__", "cat"), {"a": "0"})


def test_round_trip_and_digest() -> None:
    assert Manifest.from_json(MANIFEST.to_json()) == MANIFEST
    assert MANIFEST.digest == hashlib.sha256(MANIFEST.to_json()).hexdigest()
    assert replace(MANIFEST, options={"min_size": 9}).digest != MANIFEST.digest


def test_an_older_archive_keeps_its_digest() -> None:
    old = replace(MANIFEST, format=3)
    assert "source_revision" not in json.loads(old.to_json())
    assert Manifest.from_json(old.to_json()).digest == old.digest


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"not json", "is not JSON"),
        (b"[1]", "no format number"),
        (json.dumps({"format": FORMAT_VERSION + 1}).encode(), "update Whybox or build the archive"),
        (json.dumps({"format": 1, "name": "x", "size": 3}).encode(), r"unknown \['size'\]"),
        (MANIFEST.to_json().replace(b'"1.0"', b"1.0"), "values of wrong types"),
        (MANIFEST.to_json().replace(b'"weights.safetensors"', b"3"), "values of wrong types"),
        (replace(MANIFEST, files=[]).to_json(), "files no table"),  # type: ignore[arg-type]
    ],
)
def test_what_is_no_manifest(data: bytes, message: str) -> None:
    with pytest.raises(ArchiveError, match=message):
        Manifest.from_json(data)
