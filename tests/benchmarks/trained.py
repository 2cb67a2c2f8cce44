"""Detectors with trained weights, and pictures they were trained for."""

from __future__ import annotations

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from handlers.detectors.registry import build_model, load_weights
from jobs.demo import data
from jobs.demo.data import bccd_names, held_out
from tests.benchmarks.harness import Settings, data_folder

BCCD = "fasterrcnn_mobilenet_v3_large_320_fpn"
BCCD_CATEGORIES = ("__background__", *data.BCCD_CATEGORIES)


def bccd_detector() -> nn.Module:
    """Blood cells: background, RBC, WBC, Platelets. Raises SkippedError."""
    path = data_folder("bccd") / f"{BCCD}.safetensors"
    model = build_model(BCCD, len(BCCD_CATEGORIES))
    load_weights(model, load_file(path))
    return model


def bccd_pictures(settings: Settings) -> list[Tensor]:
    """The test split, uint8 [3, H, W] each. Raises SkippedError."""
    data_folder("bccd")
    number = 2 if settings.tiny else len(bccd_names("test"))
    samples = held_out("bccd", number)
    return [torch.from_numpy(each.picture).permute(2, 0, 1).contiguous() for each in samples]
