"""Losses of the families that do not bring their own, by hand and against the library."""

from __future__ import annotations

import functools
import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torchvision.ops import generalized_box_iou

from handlers.detectors.registry import build_model, detector_for
from jobs.demo.evaluate import build_detector
from jobs.demo.losses import RADIUS, assigned, losses_of
from tests.handlers.detectors.tiny_transformers import ONE_MAP

# A map of 4 x 4 cells of 8 pixels and one of 2 x 2 of 16.
CELLS = torch.tensor(
    [
        [x * stride, y * stride, (x + 1) * stride, (y + 1) * stride]
        for stride, side in ((8.0, 4), (16.0, 2))
        for y in range(side)
        for x in range(side)
    ]
)
PICTURE = torch.full((3, 320, 320), 0.5)
TARGET = {
    "boxes": torch.tensor([[40.0, 60.0, 120.0, 140.0], [180.0, 20.0, 300.0, 260.0]]),
    "labels": torch.tensor([2, 1]),
}

EMPTY = {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64)}


@functools.cache
def detector(architecture: str) -> nn.Module:
    torch.manual_seed(0)
    return build_detector(architecture, 3)


@pytest.mark.parametrize(
    ("truth", "owned"),
    [
        ([[8, 8, 16, 16]], {5: 0}),  # it holds the middle of one fine cell
        ([[9, 9, 23, 23]], {5: 0, 6: 0, 9: 0, 10: 0}),  # the four around its middle
        # Of two that share a cell the smaller has it.
        ([[2, 2, 22, 22], [8, 8, 16, 16]], {5: 1} | dict.fromkeys((0, 1, 2, 4, 6, 8, 9, 10), 0)),
        ([[18, 18, 19, 19]], {10: 0}),  # it holds no middle: the nearest, (20, 20)
        ([], {}),
    ],
)
def test_cells_answer_for_objects(truth: list[list[float]], owned: dict[int, int]) -> None:
    found = assigned(torch.tensor(truth, dtype=torch.float32).reshape(-1, 4), CELLS)
    assert {place: owner for place, owner in enumerate(found.tolist()) if owner >= 0} == owned


def slow_assigned(truth: Tensor, cells: Tensor) -> list[int]:
    """The rule word by word."""
    sides = [float(cell[2] - cell[0]) for cell in cells]
    owners = []
    for cell, stride in zip(cells.tolist(), sides, strict=True):
        x, y = (cell[0] + cell[2]) / 2, (cell[1] + cell[3]) / 2
        best, smallest = -1, math.inf
        for place, (x1, y1, x2, y2) in enumerate(truth.tolist()):
            edges = (x - x1, y - y1, x2 - x, y2 - y)
            near = max(abs(x - (x1 + x2) / 2), abs(y - (y1 + y2) / 2)) < RADIUS * stride
            least = -math.inf if stride == min(sides) else 4 * stride
            most = math.inf if stride == max(sides) else 8 * stride
            fits = min(edges) > 0 and near and least < max(edges) <= most
            if fits and (x2 - x1) * (y2 - y1) < smallest:
                best, smallest = place, (x2 - x1) * (y2 - y1)
        owners.append(best)
    return owners  # objects here are large enough for a cell


@pytest.mark.parametrize("seed", range(3))
def test_cells_answer_for_objects_as_the_rule_says(seed: int) -> None:
    model: Any = detector("yolo_regnet_small_fpn")
    cells: Any = losses_of(model).cells  # type: ignore[attr-defined]
    generator = torch.Generator().manual_seed(seed)
    corners = torch.rand(6, 2, generator=generator) * 250
    truth = torch.cat([corners, corners + 8 + torch.rand(6, 2, generator=generator) * 200], 1)
    found = assigned(truth, cells)
    assert found.tolist() == slow_assigned(truth, cells)
    assert len(set(found.tolist())) > 4


def test_a_yolos_losses_word_by_word() -> None:
    model: Any = detector("yolo_regnet_small_fpn")
    losses = losses_of(model)
    with torch.no_grad():
        found = losses([PICTURE], [TARGET])
    tensors = detector_for(model).prepare((PICTURE * 255).round().to(torch.uint8)).tensors
    cells: Tensor = losses.cells  # type: ignore[attr-defined]
    logits, distances = (
        torch.cat([each[0].detach().flatten(1).T for each in group]) for group in model(tensors)
    )
    owner = slow_assigned(TARGET["boxes"], cells)
    score, box, number = 0.0, 0.0, 0
    for place, cell in enumerate(cells):
        stride = float(cell[2] - cell[0])
        middle = (cell[:2] + cell[2:]) / 2
        truth = [0.0, 0.0, 0.0]
        if owner[place] >= 0:
            left, right = distances[place, :2] * stride, distances[place, 2:] * stride
            own = torch.cat([middle - left, middle + right])[None]
            theirs = TARGET["boxes"][owner[place]][None]
            shared = torch.minimum(own[0, 2:], theirs[0, 2:]) - torch.maximum(
                own[0, :2], theirs[0, :2]
            )
            area = float(shared.clamp(min=0).prod())
            both = sum(float((each[0, 2:] - each[0, :2]).prod()) for each in (own, theirs))
            truth[int(TARGET["labels"][owner[place]]) - 1] = area / (both - area)
            box += 1 - float(generalized_box_iou(own, theirs))
            number += 1
        for logit, wanted in zip(logits[place].tolist(), truth, strict=True):
            chance = 1 / (1 + math.exp(-logit))
            entropy = -wanted * math.log(chance) - (1 - wanted) * math.log(1 - chance)
            score += abs(wanted - chance) ** 2 * entropy
    assert number > 10
    assert float(found["box"]) == pytest.approx(2 * box / number, rel=1e-4)
    assert float(found["classification"]) == pytest.approx(score / number, rel=1e-4)


def test_a_picture_without_objects_has_a_loss() -> None:
    found = losses_of(detector("yolo_regnet_small_fpn"))([PICTURE], [EMPTY])
    assert float(found["box"].detach()) == 0
    assert float(found["classification"].detach()) > 0


def test_pictures_of_one_batch_have_one_size() -> None:
    config = {"model_type": "detr", **ONE_MAP}
    options = {"config": config, "preprocessor": {"size": {"shortest_edge": 64}}}
    model = build_model("transformers", 3, options)
    with pytest.raises(ValueError, match=r"network inputs of \[\(64, 64\), \(64, 128\)\]"):
        losses_of(model)([PICTURE, PICTURE[:, :160]], [TARGET, TARGET])


@pytest.mark.parametrize("architecture", ["yolo_regnet_small_fpn", "rt_detr_regnet_small"])
def test_a_picture_without_objects_beside_another(architecture: str) -> None:
    model = detector(architecture)
    with torch.autocast("cpu", torch.bfloat16):
        found = losses_of(model)([PICTURE, PICTURE], [EMPTY, TARGET])
    total = torch.stack([*found.values()]).sum()
    gradients = torch.autograd.grad(
        total, [each for each in model.parameters() if each.requires_grad], allow_unused=True
    )
    assert all(bool(each.isfinite().all()) for each in gradients if each is not None)
    assert sum(each is not None for each in gradients) > len(gradients) / 2


def test_the_same_seed_gives_the_same_weights() -> None:
    torch.manual_seed(0)
    own = build_detector("retinanet_regnet_small_fpn", 3).state_dict()
    torch.manual_seed(0)
    expected = build_model("retinanet_regnet_small_fpn", 4).state_dict()
    assert all(torch.equal(own[name], expected[name]) for name in expected)


def test_a_transformers_losses_are_the_librarys() -> None:
    model: Any = detector("rt_detr_regnet_small")
    picture = torch.rand(3, 160, 320, generator=torch.Generator().manual_seed(0))
    target = {"boxes": torch.tensor([[40.0, 60.0, 120.0, 140.0]]), "labels": torch.tensor([3])}
    tensors = detector_for(model).prepare((picture * 255).round().to(torch.uint8)).tensors
    assert tensors.shape == (1, 3, 320, 320)
    middle = torch.tensor([[80 / 320, 100 / 160, 80 / 320, 80 / 160]])
    with torch.no_grad():
        found = losses_of(model)([picture], [target])["all"]
        labels = [{"class_labels": torch.tensor([2]), "boxes": middle}]
        expected = model(pixel_values=tensors, labels=labels).loss
    torch.testing.assert_close(found, expected)


def test_a_new_rt_detrs_decoder_sees_the_picture() -> None:
    torch.manual_seed(0)
    model = detector("rt_detr_regnet_small").train()
    picture = torch.rand(3, 160, 320, generator=torch.Generator().manual_seed(1))
    target = {"boxes": torch.tensor([[40.0, 60.0, 120.0, 140.0]]), "labels": torch.tensor([3])}
    loss = losses_of(model)([picture, picture.flip(2)], [target, target])["all"]
    values = model.get_submodule("model.decoder.layers.0.encoder_attn.value_proj")
    weight, bias = torch.autograd.grad(loss, [*values.parameters()])
    assert weight.norm() > 0.1 * bias.norm()  # the library's own first weights: 0.00005 of it


def test_torchvisions_are_their_own_and_others_have_none() -> None:
    model = detector("retinanet_regnet_small_fpn").train()
    found = losses_of(model)([PICTURE], [TARGET])
    assert set(found) == {"classification", "bbox_regression"}
    with pytest.raises(TypeError, match="no losses for a ResNet"):
        losses_of(build_detector("resnet18", 2))
