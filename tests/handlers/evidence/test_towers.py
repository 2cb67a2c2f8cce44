"""Heads as chains of modules, held against plain autograd through the whole head, box by box."""

from __future__ import annotations

import copy
import functools
from collections.abc import Sequence

import pytest
import torch
from torch import nn

from handlers.cam.gradient import WINDOW_BUDGET
from handlers.detectors.base import Cells
from handlers.evidence import cells, chain, scene, towers
from handlers.evidence.scene import Piece, Question, Scene
from handlers.explainer import Explainer
from handlers.network import Network
from handlers.schema import ExplainRequest
from handlers.targets.registry import find_target
from tests.conftest import CATEGORIES, random_picture, small_model

PICTURE = random_picture(120, 160)


def question_of(detector: str | nn.Module, target: str) -> Question:
    """Of the twelve detections of a picture."""
    model = small_model(detector) if isinstance(detector, str) else detector
    explainer = Explainer.from_model(model, CATEGORIES)
    explainer.detector.model.requires_grad_(False)
    network: Network = explainer.network
    (found,) = network.find(explainer.detector.prepare(PICTURE))
    part = explainer.detector.part("head", found, found.kept.entries)
    named = find_target(target)
    assert named is not None
    own, argument = named
    entries = found.kept.entries
    return Question(
        Scene(network, found), part, lambda out: own.scalars(out, argument), chosen=entries
    )


def one_by_one(question: Question, level: int, place: int) -> list[torch.Tensor]:
    """d scalar / d map [C, h, w] of one detection, for each scalar, through the whole head."""
    part = question.part
    assert isinstance(part, Cells)
    leaf = question.scene.maps[level].detach().requires_grad_()
    with torch.enable_grad():
        scalars = question.scalars(part.outputs_at(leaf, level, torch.tensor([place])))
        return [torch.autograd.grad(each[0], leaf, retain_graph=True)[0][0] for each in scalars]


@pytest.mark.parametrize("budget", [WINDOW_BUDGET, 1], ids=["together", "alone"])
@pytest.mark.parametrize(
    ("architecture", "target"),
    [
        ("fcos_resnet50_fpn", "class"),
        ("fcos_resnet50_fpn", "probability"),  # reads both towers
        ("fcos_resnet50_fpn", "centerness"),
        ("retinanet_resnet50_fpn_v2", "class"),
        ("retinanet_resnet50_fpn_v2", "combined"),  # several scalars, of different towers
        ("retinanet_resnet50_fpn", "combined"),
        ("ssd300_vgg16", "class"),
        ("ssdlite320_mobilenet_v3_large", "combined"),
    ],
)
def test_gradients_are_those_of_the_whole_head(
    architecture: str, target: str, budget: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scene, "WINDOW_BUDGET", budget)
    question = question_of(architecture, target)
    part = question.part
    assert isinstance(part, Cells)
    seen, changing = [], 0
    for level in part.level.unique().tolist():
        chains = towers.towers_of(question, part, level)
        assert chains
        uses = towers.uses_of(question, part, level, chains)
        for piece in towers.from_towers(question, part, level, chains, uses):
            for row, place in enumerate(piece.places.tolist()):
                slow = one_by_one(question, level, place)
                assert len(piece.evidence) == len(slow)
                for gradient, expected in zip(piece.evidence, slow, strict=True):
                    fast = gradient.dense(torch.tensor([row]))[0]
                    largest = float(expected.abs().max())
                    assert torch.allclose(fast, expected, rtol=0, atol=2e-5 * largest)
                    changing += largest > 0
                seen.append(place)
    assert sorted(seen) == list(range(12))
    assert changing >= 12  # an edge that is cut at the border has no gradient


@pytest.mark.parametrize(
    ("target", "counts", "outputs"),
    [
        ("class", [1, 0], {"logits"}),
        ("probability", [1, 1], {"logits", "scores", "boxes", "centerness"}),
        ("x1", [0, 1], {"boxes", "centerness"}),
        ("combined", [1, 4], {"logits", "scores", "boxes", "centerness"}),
    ],
)
def test_what_scalars_depend_on(target: str, counts: list[int], outputs: set[str]) -> None:
    question = question_of("fcos_resnet50_fpn", target)
    part = question.part
    assert isinstance(part, Cells)
    level = int(part.level[0])
    chains = towers.towers_of(question, part, level)
    assert towers.uses_of(question, part, level, chains) == towers.Uses(counts, frozenset(outputs))


@pytest.mark.parametrize(
    ("target", "name"), [("class", "classification_head"), ("x1", "regression_head")]
)
def test_a_tower_that_nothing_depends_on_does_not_run(
    target: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran: list[nn.Module] = []
    passed = chain.passed

    def watched(modules: Sequence[nn.Module], maps: torch.Tensor) -> chain.Passed:
        ran.append(modules[0])
        return passed(modules, maps)

    monkeypatch.setattr(towers, "passed", watched)
    pieces(question_of("fcos_resnet50_fpn", target))
    head = small_model("fcos_resnet50_fpn").get_submodule("head")
    assert set(ran) == {head.get_submodule(f"{name}.conv.0")}


def pieces(question: Question) -> list[Piece]:
    part = question.part
    assert isinstance(part, Cells)
    return list(cells.from_levels(question, part))


@pytest.mark.parametrize("architecture", ["fcos_resnet50_fpn", "ssd300_vgg16"])
def test_modules_are_left_as_they_were(architecture: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = small_model(architecture)

    def state() -> list[tuple[object, ...]]:
        convolutions = [each for each in model.modules() if isinstance(each, nn.Conv2d)]
        hooks = [(len(each._forward_hooks), len(each._forward_pre_hooks)) for each in convolutions]
        ways = [(vars(each).get("forward"),) for each in model.modules()]
        kept = [(each.padding, each.weight.requires_grad) for each in convolutions]
        return [*kept, *hooks, *ways]

    explainer = Explainer.from_model(model, CATEGORIES)
    # Some wrap a module's own way.
    wrapped = next(
        each for each in model.get_submodule("head").modules() if type(each) is nn.Conv2d
    )
    monkeypatch.setitem(vars(wrapped), "forward", functools.partial(wrapped.forward))
    before = state()
    explainer.explain([PICTURE], ExplainRequest(score_threshold=0.0))
    assert state() == before

    def broken(outputs: object) -> list[torch.Tensor]:
        raise ValueError("broken")

    question = question_of(architecture, "class")
    before = state()
    with pytest.raises(ValueError, match="broken"):
        pieces(Question(question.scene, question.part, broken, question.chosen))
    assert state() == before


@pytest.mark.parametrize(
    ("architecture", "coupled", "radii", "last_radii"),
    [
        ("fcos_resnet50_fpn", [True, True], [4, 4], [1, 1]),
        ("retinanet_resnet50_fpn", [False, False], [4, 4], [1, 1]),
        ("ssd300_vgg16", [False], [0], [1]),
        ("ssdlite320_mobilenet_v3_large", [False, False], [1, 1], [0, 0]),
    ],
)
def test_heads_are_known(
    architecture: str, coupled: list[bool], radii: list[int], last_radii: list[int]
) -> None:
    question = question_of(architecture, "class")
    assert isinstance(question.part, Cells)
    found = towers.towers_of(question, question.part, 0)
    assert [each.coupled for each in found] == coupled
    assert [each.radius for each in found] == radii
    assert [each.last_radius for each in found] == last_radii


def test_an_unknown_module_is_left_to_autograd(monkeypatch: pytest.MonkeyPatch) -> None:
    question = question_of("fcos_resnet50_fpn", "class")
    head = question.scene.detector.model.get_submodule("head.classification_head.conv")
    assert isinstance(head, nn.Sequential)
    monkeypatch.setitem(head._modules, "2", nn.Softplus())
    assert isinstance(question.part, Cells)
    assert towers.towers_of(question, question.part, 0) == []
    found = pieces(question)
    row = found[0]
    expected = one_by_one(question, int(question.part.level[row.places[0]]), int(row.places[0]))[0]
    fast = row.evidence[0].dense(torch.tensor([0]))[0]
    assert torch.allclose(fast, expected, rtol=0, atol=2e-5 * float(expected.abs().max()))


class Residual(nn.Module):
    """Its modules in their order, and the way around them."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = maps + self.inner(maps)
        return result


class Standardised(nn.Conv2d):
    """A convolution that is not what its weights say."""

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        weight = (self.weight - self.weight.mean()) / self.weight.std()
        result: torch.Tensor = self._conv_forward(maps, weight / 48, self.bias)
        return result


def changed(tower: nn.Module, how: str) -> nn.Module:
    """A head's tower of blocks of one convolution each, changed."""
    modules = [leaf for leaf in tower.modules() if not [*leaf.children()]]
    if how == "shared ReLU":
        relu = nn.ReLU()
        return nn.Sequential(*(relu if type(each) is nn.ReLU else each for each in modules))
    if how == "residual":
        return Residual(tower)
    convolution = Standardised(256, 256, 3, padding=1)
    nn.init.normal_(convolution.weight, std=0.01)
    return nn.Sequential(convolution, *modules[1:])


@pytest.mark.parametrize(
    ("how", "target"),
    [
        *(("shared ReLU", "class"), ("residual", "class"), ("standardised", "class")),
        ("residual", "probability"),
    ],
)
@pytest.mark.parametrize("architecture", ["fcos_resnet50_fpn", "retinanet_resnet50_fpn"])
def test_heads_that_are_not_what_they_list(architecture: str, how: str, target: str) -> None:
    model = copy.deepcopy(small_model(architecture))  # others are given the same one
    head = model.get_submodule("head.classification_head")
    head.conv = changed(head.get_submodule("conv"), how)
    if target == "probability":  # which is about 1 whatever the tower gives
        last = head.get_submodule("cls_logits")
        assert isinstance(last, nn.Conv2d)
        assert last.bias is not None
        with torch.no_grad():
            last.weight.mul_(1e-3)
            last.bias.fill_(7)
    question = question_of(model, target)
    for piece in pieces(question)[:2]:
        place = int(piece.places[0])
        part = question.part
        assert isinstance(part, Cells)
        (expected,) = one_by_one(question, int(part.level[place]), place)
        fast = piece.evidence[0].dense(torch.tensor([0]))[0]
        assert torch.allclose(fast, expected, rtol=0, atol=1e-4 * float(expected.abs().max()))
