from __future__ import annotations

import torch

from handlers.detectors.small import fasterrcnn_regnet_small_fpn


def test_levels_and_size() -> None:
    model = fasterrcnn_regnet_small_fpn(num_classes=7)
    maps = model.eval().get_submodule("backbone")(torch.zeros(1, 3, 128, 192))
    assert {name: tuple(each.shape[2:]) for name, each in maps.items()} == {
        "0": (32, 48),
        "1": (16, 24),
        "2": (8, 12),
        "3": (4, 6),
        "pool": (2, 3),
    }
    assert sum(parameter.numel() for parameter in model.parameters()) < 3_500_000
    assert model.get_parameter("roi_heads.box_predictor.cls_score.bias").shape == (7,)


def test_options_reach_torchvision() -> None:
    model = fasterrcnn_regnet_small_fpn(num_classes=3, min_size=96, box_score_thresh=0.25)
    assert vars(model.get_submodule("transform"))["min_size"] == (96,)
    assert vars(model.get_submodule("roi_heads"))["score_thresh"] == 0.25
