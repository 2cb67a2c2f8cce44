"""Maps that are tried as defaults, by hand."""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from handlers.images import Geometry
from handlers.schema import Detections, Explanation
from tests.benchmarks import alternatives

PICTURE = torch.full((3, 4, 4), 200, dtype=torch.uint8)


def box(*edges: float, label: int = 1, heat: Tensor | None = None) -> Explanation:
    x1, y1, x2, y2 = edges
    return Explanation(
        index=0,
        box=(x1, y1, x2, y2),
        label=label,
        category="",
        score=0.9,
        method="",
        target="",
        layer="",
        level="",
        heatmap=torch.ones(4, 4) if heat is None else heat,
        geometry=Geometry(4, 4, 4.0, 4.0, 1.0, 1.0),
    )


class Stub:
    """A detector that finds the same on every picture."""

    def __init__(self, boxes: Sequence[Sequence[float]], labels: Sequence[int]) -> None:
        self.found = Detections(
            torch.tensor(boxes).reshape(-1, 4),
            torch.tensor(labels, dtype=torch.int64),
            torch.ones(len(labels)),
            torch.arange(len(labels)),
            ("",) * len(labels),
        )

    def detect(self, pictures: Sequence[Tensor]) -> list[Detections]:
        return [self.found] * len(pictures)


def test_a_box_is_found_again_by_label_and_overlap() -> None:
    boxes = [box(0, 0, 2, 2), box(0, 0, 2, 2, label=2), box(2, 2, 4, 4)]
    found = Stub([[0, 0, 2, 1.5], [0, 0, 2, 2], [3, 3, 4, 4]], [1, 2, 1]).found
    assert alternatives.counterparts(found, boxes) == {0: 0, 1: 1}
    assert alternatives.counterparts(Stub([], []).found, boxes) == {}


def test_noisy_pictures_are_averaged(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(alternatives, "DRAWS", 3)
    seen: list[Tensor] = []

    def maker(picture: Tensor, boxes: Sequence[Explanation]) -> Sequence[Explanation]:
        seen.append(picture)
        assert [each.index for each in boxes] == [1 if len(seen) > 1 else 0]
        heat = torch.zeros(4, 4)
        heat[0, len(seen) - 1] = 7.0 * len(seen)
        return [replace(boxes[0], heatmap=heat)]

    stub = Stub([[2, 2, 4, 4], [0, 0, 2, 2]], [1, 1])
    make = alternatives.perturbed(stub, maker)  # type: ignore[arg-type]
    (found,) = make(PICTURE, [box(0, 0, 2, 2)])
    expected = torch.zeros(4, 4)
    expected[0] = 1  # each picture's map, its largest value 1
    assert torch.equal(found.heatmap, expected)
    assert all(not torch.equal(one, other) for one, other in itertools.pairwise(seen))


def test_both_maps_are_multiplied() -> None:
    one, other = torch.arange(16.0).reshape(4, 4), torch.eye(4)
    make = alternatives.product(
        lambda *_: [box(0, 0, 1, 1, heat=one)], lambda *_: [box(0, 0, 1, 1, heat=other)]
    )
    (found,) = make(PICTURE, [box(0, 0, 1, 1)])
    torch.testing.assert_close(found.heatmap, one / 15 * other)


def test_quarters_meet_where_the_heat_is() -> None:
    heat = torch.zeros(4, 4)
    heat[1, 2] = 1.0
    heat[0, 0] = 9.0  # off the box
    quarters = alternatives.quartered(heat, (1, 0, 4, 3))
    heat[0, 0] = 0.0
    # The middle of the mass is at x 2.5, y 1.5: the cell itself belongs to the upper left.
    expected = [
        [[0, 1, 1, 0], [0, 1, 1, 0], [0] * 4, [0] * 4],
        [[0, 0, 0, 1], [0, 0, 0, 1], [0] * 4, [0] * 4],
    ]
    assert quarters[:2].int().tolist() == expected
    assert quarters[2].nonzero().tolist() == [[2, 1], [2, 2]]
    assert quarters[3].nonzero().tolist() == [[2, 3]]
    even = alternatives.quartered(torch.zeros(4, 4), (0, 0, 4, 4))
    assert even.sum((1, 2)).tolist() == [4, 4, 4, 4]


def test_a_quarter_weighs_what_is_lost_without_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def score(pictures: Tensor) -> Tensor:
        assert [int(each[0, 0, 0]) for each in pictures] == [200, 200, 200, 200, 200]
        return torch.tensor([[0.8], [0.8], [0.4], [0.0], [0.9]])

    monkeypatch.setattr(alternatives, "scorings", lambda *_: [score])
    monkeypatch.setattr(alternatives, "blurred", lambda weight, _: weight)
    make = alternatives.guided(Stub([], []), lambda *_: [box(0, 0, 4, 4)])  # type: ignore[arg-type]
    (found,) = make(PICTURE, [box(0, 0, 4, 4)])
    expected = (
        torch.tensor([[0.01, 0.5], [1.0, 0.01]]).repeat_interleave(2, 0).repeat_interleave(2, 1)
    )
    torch.testing.assert_close(found.heatmap, expected)


def test_weights_have_no_steps() -> None:
    weight = torch.zeros(4, 4)
    weight[:, 2:] = 1.0
    found = alternatives.blurred(weight, (0, 0, 4, 4))  # over 3 x 3 pixels
    torch.testing.assert_close(found[0], torch.tensor([0.0, 1 / 3, 2 / 3, 1.0]))


def test_the_docs_hold_the_recorded_table() -> None:
    docs = Path(__file__).parent.parent / "docs"
    figures = json.loads((docs / "methods" / alternatives.RECORD).read_text())
    assert alternatives.table(figures) in (docs / "methods.md").read_text()
