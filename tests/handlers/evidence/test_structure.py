"""What is kept of a head between pictures."""

from __future__ import annotations

import copy

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
    asked: list[int] = []

    def watched(*given: object) -> list[towers.Tower]:
        asked.append(given[2])  # type: ignore[arg-type]
        return towers.towers_of(*given)  # type: ignore[arg-type]

    monkeypatch.setattr(structure, "towers_of", watched)
    explainer = Explainer.from_model(small_model("retinanet_resnet50_fpn"), CATEGORIES)
    first = explained(explainer)
    levels = asked.copy()
    assert len(set(levels)) == len(levels) > 1
    assert all(map(torch.equal, explained(explainer), first))
    assert asked == levels
    for times, target in ((2, "x1"), (2, "x1"), (3, "box"), (3, "box")):
        explained(explainer, target)
        assert asked == levels * times
    explained(Explainer.from_model(small_model("retinanet_resnet50_fpn"), CATEGORIES))
    assert asked == levels * 4


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


@pytest.mark.parametrize("changed", [nn.LeakyReLU(0.3), Doubled()], ids=["known", "unknown"])
def test_a_head_that_was_changed_is_noticed(changed: nn.Module) -> None:
    model = copy.deepcopy(small_model("retinanet_resnet50_fpn"))
    explainer = Explainer.from_model(model, CATEGORIES)
    before = explained(explainer)
    model.set_submodule("head.classification_head.conv.1.1", changed)
    twin = Explainer.from_model(copy.deepcopy(model), CATEGORIES)
    expected = explained(twin)
    for _ in range(2):  # what was known is found to be wrong, then found out anew
        after = explained(explainer)
        assert not any(map(torch.equal, after, before))
        for one, other in zip(after, expected, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4 * float(other.max()))
