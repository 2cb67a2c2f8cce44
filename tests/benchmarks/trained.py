"""Detectors with trained weights, and pictures they were trained for."""

from __future__ import annotations

from safetensors.torch import load_file
from torch import Tensor, nn
from torchvision.io import ImageReadMode, read_image

from handlers.detectors.registry import build_model
from tests.benchmarks.harness import Settings, data_folder

BCCD = "fasterrcnn_mobilenet_v3_large_320_fpn"
BCCD_CATEGORIES = ("__background__", "RBC", "WBC", "Platelets")


def bccd_detector() -> nn.Module:
    """Blood cells: background, RBC, WBC, Platelets. Raises SkippedError."""
    path = data_folder("bccd") / f"{BCCD}.safetensors"
    model = build_model(BCCD, len(BCCD_CATEGORIES))
    weights = {name: _wide(value) for name, value in load_file(path).items()}
    model.load_state_dict(weights)
    return model


def _wide(value: Tensor) -> Tensor:
    return value.float() if value.is_floating_point() else value


def bccd_pictures(settings: Settings) -> list[Tensor]:
    """The test split, uint8 [3, H, W] each. Raises SkippedError."""
    folder = data_folder("bccd")
    names = (folder / "ImageSets" / "Main" / "test.txt").read_text().split()
    paths = [folder / "JPEGImages" / f"{name}.jpg" for name in names]
    if settings.tiny:
        paths = paths[:2]
    return [read_image(str(path), ImageReadMode.RGB) for path in paths]
