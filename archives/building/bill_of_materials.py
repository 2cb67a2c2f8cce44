"""The archive's bill of materials, CycloneDX 1.6: its weights, its code, and what they need."""

from __future__ import annotations

import importlib.metadata
import json
from collections.abc import Sequence

from cyclonedx.model import HashAlgorithm, HashType, Property
from cyclonedx.model.bom import Bom
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.output import make_outputter
from cyclonedx.schema import OutputFormat, SchemaVersion
from packageurl import PackageURL

from handlers.manifest import Manifest

FILE = "bill-of-materials.cdx.json"
SCHEMA = SchemaVersion.V1_6
PACKAGES = ("numpy", "pillow", "safetensors", "threadpoolctl", "torch", "torchvision")


def bill_of_materials(manifest: Manifest, packages: Sequence[str] = PACKAGES) -> bytes:
    """UTF-8 JSON; the same archive and versions, the same bytes: no serial number, no time.

    manifest: with the digests of the weights and of the model file, if there is one. packages: from
    PyPI, in the versions that are installed here.
    """
    archive = Component(
        name=manifest.name,
        version=manifest.version,
        type=ComponentType.APPLICATION,
        bom_ref="archive",
    )
    parts = [_weights(manifest), _handlers(manifest), *map(_package, packages)]
    if manifest.model_file:
        parts.append(_model_file(manifest))
    bom = Bom(components=parts)
    bom.metadata.component = archive
    bom.register_dependency(archive, parts)
    values = json.loads(make_outputter(bom, OutputFormat.JSON, SCHEMA).output_as_string())
    del values["serialNumber"], values["metadata"]["timestamp"]
    return json.dumps(values, indent=1, sort_keys=True).encode() + b"\n"


def _weights(manifest: Manifest) -> Component:
    return Component(
        name=manifest.weights,
        type=ComponentType.MACHINE_LEARNING_MODEL,
        bom_ref="weights",
        hashes=[_sha256(manifest, manifest.weights)],
        properties=[Property(name="whybox:architecture", value=manifest.architecture)],
    )


def _handlers(manifest: Manifest) -> Component:
    """The code that explains, which is in the archive."""
    version, revision = manifest.whybox, manifest.source_revision
    return Component(
        name="whybox-handlers",
        version=version,
        type=ComponentType.LIBRARY,
        bom_ref="handlers",
        purl=PackageURL("generic", None, "whybox-handlers", version),
        properties=[Property(name="whybox:source_revision", value=revision)] if revision else None,
    )


def _model_file(manifest: Manifest) -> Component:
    return Component(
        name=manifest.model_file,
        type=ComponentType.FILE,
        bom_ref="model-file",
        hashes=[_sha256(manifest, manifest.model_file)],
    )


def _package(name: str) -> Component:
    version = importlib.metadata.version(name)
    return Component(
        name=name,
        version=version,
        type=ComponentType.LIBRARY,
        bom_ref=name,
        purl=PackageURL("pypi", None, name, version),
    )


def _sha256(manifest: Manifest, name: str) -> HashType:
    return HashType(alg=HashAlgorithm.SHA_256, content=manifest.files[name])
