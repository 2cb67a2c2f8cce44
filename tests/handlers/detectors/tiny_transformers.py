"""Detection transformers small enough for tests, with random weights that tell pictures apart."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import (
    ConditionalDetrImageProcessor,
    DeformableDetrImageProcessor,
    DetrImageProcessor,
    RTDetrImageProcessor,
)

from handlers.detectors.registry import build_model
from tests.conftest import random_picture

CATEGORIES = ("cat", "dog", "bird", "fish", "newt")
RESNET = {
    "model_type": "resnet",
    "embedding_size": 8,
    "hidden_sizes": [8, 12, 16, 24],
    "depths": [1, 1, 1, 1],
    "layer_type": "basic",
}
SMALL = {
    "use_timm_backbone": False,
    "d_model": 32,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "encoder_ffn_dim": 48,
    "decoder_ffn_dim": 48,
    "num_queries": 9,
}
ONE_MAP = SMALL | {"backbone_config": RESNET | {"out_features": ["stage4"]}}
DEFORMABLE = SMALL | {"backbone_config": RESNET | {"out_features": ["stage2", "stage3", "stage4"]}}
REAL_TIME = {
    "d_model": 32,
    "encoder_hidden_dim": 32,
    "encoder_in_channels": [12, 16, 24],
    "encoder_ffn_dim": 48,
    "encoder_attention_heads": 4,
    "decoder_in_channels": [32, 32, 32],
    "decoder_ffn_dim": 48,
    "decoder_layers": 2,
    "decoder_attention_heads": 4,
    "num_queries": 9,
    "backbone_config": {
        **RESNET,
        "model_type": "rt_detr_resnet",
        "out_features": ["stage2", "stage3", "stage4"],
    },
}
HGNET = {
    "model_type": "hgnet_v2",
    "stem_channels": [3, 8, 8],
    "stage_in_channels": [8, 16, 24, 32],
    "stage_mid_channels": [8, 8, 8, 8],
    "hidden_sizes": [16, 24, 32, 40],
    "stage_out_channels": [16, 24, 32, 40],
    "stage_num_blocks": [1, 1, 1, 1],
    "stage_numb_of_layers": [2, 2, 2, 2],
    "out_indices": [2, 3, 4],
}
CONFIGS: dict[str, dict[str, Any]] = {
    "detr": ONE_MAP | {"model_type": "detr"},
    "conditional_detr": ONE_MAP | {"model_type": "conditional_detr"},
    "deformable_detr": DEFORMABLE | {"model_type": "deformable_detr"},
    "two_stage": DEFORMABLE
    | {
        "model_type": "deformable_detr",
        "two_stage": True,
        "with_box_refine": True,
        "two_stage_num_proposals": 7,
    },
    "rt_detr": REAL_TIME | {"model_type": "rt_detr"},
    "rt_detr_v2": REAL_TIME | {"model_type": "rt_detr_v2"},
    "d_fine": REAL_TIME
    | {"model_type": "d_fine", "backbone_config": HGNET, "encoder_in_channels": [24, 32, 40]},
}
FAMILIES = tuple(CONFIGS)
# How far outputs are spread, by a part of a parameter's name.
GAINS = {"class": 3.0, "score": 3.0, "sampling_offsets": 0.3, "backbone": 1.4, "_proj": 2.0}
STRETCHED = {"size": {"height": 96, "width": 128}}
SHORTEST = {"size": {"shortest_edge": 80, "longest_edge": 150}}


def preprocessor(family: str) -> dict[str, Any]:
    """Settings of a small input, stretched for some families."""
    return dict(STRETCHED if family in ("rt_detr", "rt_detr_v2", "d_fine") else SHORTEST)


def processor(family: str) -> Any:
    """The library's own processor with these settings."""
    kinds = {
        "detr": DetrImageProcessor,
        "conditional_detr": ConditionalDetrImageProcessor,
        "deformable_detr": DeformableDetrImageProcessor,
        "two_stage": DeformableDetrImageProcessor,
    }
    return kinds.get(family, RTDetrImageProcessor)(**preprocessor(family))


def options(family: str, **more: Any) -> Mapping[str, Any]:
    """Options of the architecture "transformers"."""
    return {"config": CONFIGS[family], "preprocessor": preprocessor(family), **more}


@functools.cache
def tiny_model(family: str) -> nn.Module:
    """The family with weights of a spread that neither fades nor grows on the way."""
    torch.manual_seed(5)  # what is not set below must not depend on the tests before
    model = build_model("transformers", len(CATEGORIES), options(family, score_threshold=0.1))
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.dim() < 2:
                continue
            gain = next((gain for part, gain in GAINS.items() if part in name), 1.0)
            embedding = isinstance(model.get_submodule(name.rpartition(".")[0]), nn.Embedding)
            fan_in = 1 if embedding else parameter[0].numel()
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.copy_(noise * gain / fan_in**0.5)
        # Statistics of real activations; with the initial ones they fade to nothing on the way.
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.train().momentum = None
        model(torch.stack([random_picture(96, 128, seed) for seed in range(4)]) / 255)
    return model.eval()


def save_pretrained(family: str, folder: Path) -> None:
    """A folder as the library writes it, the processor's settings included."""
    model: Any = tiny_model(family)
    model.save_pretrained(folder)
    processor(family).save_pretrained(folder)
