"""What an endpoint says of itself."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from handlers.endpoint.reading import FORMATS
from handlers.explainer import Explainer


def describe(explainer: Explainer) -> dict[str, Any]:
    """What this endpoint is and what it can be asked. Of an archive's explainer."""
    manifest = explainer.manifest
    assert manifest is not None  # from_archive always has one
    background = int(explainer.detector.background)
    return {
        "name": manifest.name,
        "version": manifest.version,
        "architecture": manifest.architecture,
        "digest": manifest.digest,
        "categories": list(explainer.categories[background:]),
        "methods": explainer.methods,
        "targets": explainer.targets,
        "layers": explainer.layers,
        "defaults": asdict(explainer.defaults),
        "formats": list(FORMATS),
        "torch": manifest.torch,
        "torchvision": manifest.torchvision,
        "whybox": manifest.whybox,
    }
