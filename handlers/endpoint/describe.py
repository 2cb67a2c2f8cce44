"""What an endpoint says of itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from handlers.endpoint.answers import request_fields
from handlers.endpoint.reading import FORMATS
from handlers.explainer import Explainer


@dataclass(frozen=True)
class Description:
    """The answer to a describe request.

    name, version, architecture: of the archive. digest: its sha256 (hex), as `archives verify`
        prints it.
    categories: names that boxes may have, in the order of their labels.
    methods, targets, formats: names that a request's fields may have.
    layers: names that `layer` may have besides those of modules.
    defaults: what a request is that names nothing.
    torch, torchvision, whybox: versions with which the archive was built.
    """

    name: str
    version: str
    architecture: str
    digest: str
    categories: tuple[str, ...]
    methods: tuple[str, ...]
    targets: tuple[str, ...]
    layers: tuple[str, ...]
    defaults: Mapping[str, Any]
    formats: tuple[str, ...]
    torch: str
    torchvision: str
    whybox: str


def describe(explainer: Explainer) -> Description:
    """What this endpoint is and what it can be asked. Of an archive's explainer."""
    manifest = explainer.manifest
    assert manifest is not None  # from_archive always has one
    return Description(
        name=manifest.name,
        version=manifest.version,
        architecture=manifest.architecture,
        digest=manifest.digest,
        categories=tuple(explainer.categories[int(explainer.detector.background) :]),
        methods=tuple(explainer.methods),
        targets=tuple(explainer.targets),
        layers=tuple(explainer.layers),
        defaults=request_fields(explainer.defaults),
        formats=FORMATS,
        torch=manifest.torch,
        torchvision=manifest.torchvision,
        whybox=manifest.whybox,
    )
