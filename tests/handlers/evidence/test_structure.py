"""What is kept of a head between pictures."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from handlers.evidence import structure, towers
from handlers.explainer import Explainer
from handlers.schema import ExplainRequest
from handlers.targets.registry import Outputs
from tests.conftest import CATEGORIES, random_picture, small_model

PICTURE = random_picture(120, 160)


def explained(explainer: Explainer, target: object = "class") -> list[Tensor]:
    request = ExplainRequest(score_threshold=0.0, target=target)  # type: ignore[arg-type]
    return [each.heatmap for each in explainer.explain([PICTURE], request)[0]]


def test_a_head_is_looked_at_once_for_each_target(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[object] = []

    def watched(*given: object) -> towers.Uses:
        asked.append(given[2])
        return towers.uses_of(*given)  # type: ignore[arg-type]

    monkeypatch.setattr(structure, "uses_of", watched)
    model = copy.deepcopy(small_model("retinanet_resnet50_fpn"))  # of which nothing is known yet
    explainer = Explainer.from_model(model, CATEGORIES)
    first = explained(explainer)
    assert all(map(torch.equal, explained(explainer), first))
    assert len(asked) == 1
    for times, target in ((2, "x1"), (2, "x1"), (3, "box"), (3, "box")):
        explained(explainer, target)
        assert len(asked) == times


def test_functions_are_looked_at_anew() -> None:
    """Of two with one name: what the first reads says nothing about the second."""
    explainer = Explainer.from_model(small_model("retinanet_resnet50_fpn"), CATEGORIES)

    def target(outputs: Outputs) -> Tensor:
        return outputs["boxes"][:, 0]

    edges = explained(explainer, target)

    def target(outputs: Outputs) -> Tensor:  # type: ignore[no-redef]
        return outputs.own("logits")

    twin = Explainer.from_model(small_model("retinanet_resnet50_fpn"), CATEGORIES)
    classes = explained(explainer, target)
    assert all(map(torch.equal, classes, explained(twin, target)))
    assert not any(map(torch.equal, classes, edges))


class Doubled(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return 2 * x.relu()


class Guided(torch.autograd.Function):
    @staticmethod
    def forward(context: Any, x: Tensor) -> Tensor:
        context.save_for_backward(x)
        return x.relu()

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> Tensor:
        (x,) = context.saved_tensors
        positive: Tensor = gradient.relu() * (x > 0)
        return positive


class GuidedReLU(nn.Module):
    """Other gradients, the same values."""

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = Guided.apply(x)
        return found


def swapped(model: nn.Module, new: nn.Module) -> None:
    model.set_submodule("head.classification_head.conv.1.1", new)


def widened(model: nn.Module) -> None:
    convolution = model.get_submodule("head.classification_head.conv.0.0")
    convolution.dilation = convolution.padding = (2, 2)  # type: ignore[assignment]


@pytest.mark.parametrize(
    "change",
    [
        lambda model: swapped(model, nn.LeakyReLU(0.3)),
        lambda model: swapped(model, Doubled()),
        lambda model: swapped(model, GuidedReLU()),
        widened,
    ],
    ids=["another known module", "an unknown one", "another gradient", "in place"],
)
def test_a_head_that_was_changed_is_noticed(change: Callable[[nn.Module], None]) -> None:
    model = copy.deepcopy(small_model("retinanet_resnet50_fpn"))
    explainer = Explainer.from_model(model, CATEGORIES)
    before = explained(explainer)
    change(model)
    twin = Explainer.from_model(copy.deepcopy(model), CATEGORIES)
    expected = explained(twin)
    for _ in range(2):
        after = explained(explainer)
        assert not all(map(torch.equal, after, before))
        for one, other in zip(after, expected, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4 * float(other.max()))
