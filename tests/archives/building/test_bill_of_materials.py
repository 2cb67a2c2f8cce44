from __future__ import annotations

import importlib.metadata
import json
import zipfile
from pathlib import Path

import pytest
from cyclonedx.validation.json import JsonStrictValidator

from archives.building.bill_of_materials import FILE, PACKAGES, SCHEMA, bill_of_materials
from archives.verify import verify
from handlers.manifest import Manifest

MANIFEST = Manifest(
    "demo",
    "1.0",
    "yolov8",
    ("cat",),
    {"weights.safetensors": "a" * 64, "net.py": "b" * 64},
    model_file="net.py",
    whybox="0.1.0",
    source_revision="abc-dirty",
)


def parts(data: bytes) -> dict[str, dict[str, object]]:
    assert JsonStrictValidator(SCHEMA).validate_str(data.decode()) is None
    return {each["name"]: each for each in json.loads(data)["components"]}


def test_it_lists_what_is_inside() -> None:
    found = parts(bill_of_materials(MANIFEST))
    assert found.keys() == {*PACKAGES, "weights.safetensors", "whybox-handlers", "net.py"}
    assert found["weights.safetensors"]["type"] == "machine-learning-model"
    assert found["weights.safetensors"]["hashes"] == [{"alg": "SHA-256", "content": "a" * 64}]
    assert found["net.py"]["hashes"] == [{"alg": "SHA-256", "content": "b" * 64}]
    assert found["whybox-handlers"]["version"] == "0.1.0"
    revision = [{"name": "whybox:source_revision", "value": "abc-dirty"}]
    assert found["whybox-handlers"]["properties"] == revision


@pytest.mark.parametrize("name", [*PACKAGES, "boto3"])
def test_versions_are_those_installed(name: str) -> None:
    found = parts(bill_of_materials(MANIFEST, [name]))[name]
    version = importlib.metadata.version(name)
    assert found["version"] == version
    assert found["purl"] == f"pkg:pypi/{name}@{version}".replace("+", "%2B")


def test_nothing_in_it_varies() -> None:
    data = bill_of_materials(MANIFEST)
    assert data == bill_of_materials(MANIFEST)
    values = json.loads(data)
    assert "serialNumber" not in values
    assert values["metadata"].keys() == {"component"}


def test_an_archive_has_one(archive: Path) -> None:
    with zipfile.ZipFile(archive) as opened:
        found = parts(opened.read(FILE))
    digest = verify(archive).files["weights.safetensors"]
    assert found["weights.safetensors"]["hashes"] == [{"alg": "SHA-256", "content": digest}]
