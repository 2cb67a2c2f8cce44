from __future__ import annotations

import json

import pytest

from handlers.manifest import FORMAT_VERSION, ArchiveError, Manifest

MANIFEST = Manifest("demo", "1.0", "fasterrcnn_resnet50_fpn", ("__background__", "cat"), {"a": "0"})


def test_round_trip_and_digest() -> None:
    assert Manifest.from_json(MANIFEST.to_json()) == MANIFEST
    # sha256 of {"a":"0"}
    assert MANIFEST.digest == "005856f9f3337428b3e9b519b1ca752df02cb348792e2f9b7391768812fdb441"


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"not json", "is not JSON"),
        (b"[1]", "no format number"),
        (json.dumps({"format": FORMAT_VERSION + 1}).encode(), "update Whybox or build the archive"),
        (json.dumps({"format": 1, "name": "x", "size": 3}).encode(), r"unknown \['size'\]"),
    ],
)
def test_what_is_no_manifest(data: bytes, message: str) -> None:
    with pytest.raises(ArchiveError, match=message):
        Manifest.from_json(data)
