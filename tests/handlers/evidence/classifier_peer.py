"""A small classifier, and what pytorch-grad-cam says of its channels."""

from __future__ import annotations

import functools
from typing import Any

import torch
from pytorch_grad_cam.base_cam import BaseCAM
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from torch import Tensor

from handlers.detectors.classifier import build_classifier
from handlers.explainer import Explainer
from tests.conftest import calibrated, random_picture

PICTURE = random_picture(120, 160)


@functools.cache
def small_classifier() -> Explainer:
    torch.manual_seed(3)
    model: Any = build_classifier("resnet18", 4, size=64)
    calibrated(
        model, torch.stack([model.transform(random_picture(90, 90, seed)) for seed in (1, 2)])
    )
    return Explainer.from_model(model.eval(), ["a", "b", "c", "d"])


@torch.no_grad()
def of_the_peer(
    kind: type[BaseCAM], explainer: Explainer, layer: str | None, label: int
) -> tuple[Tensor, Tensor]:
    """Its weights [C] for the class on a layer, and the layer's activation [C, h, w]."""
    model: Any = explainer.detector.model
    module, pixels = getattr(model, layer or "layer4"), explainer.prepare(PICTURE).tensors
    caught: list[Tensor] = []
    handle = module.register_forward_hook(lambda _, __, output: caught.append(output))
    model(pixels)
    handle.remove()
    peer, target = kind(model, [module]), ClassifierOutputTarget(label)
    found = peer.get_cam_weights(pixels, module, [target], caught[0].numpy(), None)
    return torch.as_tensor(found)[0], caught[0][0]
