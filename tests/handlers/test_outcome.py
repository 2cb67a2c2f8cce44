from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from handlers.detectors.base import Candidates, Entries, Features, Found, Inputs, Limits, Raw
from handlers.detectors.selection import suppress
from handlers.explainer import Explainer
from handlers.images import Geometry
from handlers.outcome import Verdicts
from handlers.schema import ExplainRequest
from tests.conftest import scene_picture

CATEGORIES = ("background", "cat", "dog")
# The picture is half as large as the network input: 100 x 50 pixels.
INPUTS = Inputs(
    torch.zeros(1, 3, 100, 200), [(100, 200)], [Geometry(100, 50, 200.0, 100.0, 2.0, 2.0)]
)
BOXES = torch.tensor(
    [
        [0.0, 0.0, 40.0, 40.0],  # the best cat
        [0.0, 4.0, 40.0, 44.0],  # IoU 36 / 44 = 0.82 with it
        [60.0, 0.0, 100.0, 40.0],  # another cat
        [120.0, 0.0, 160.0, 40.0],  # the third: beyond the limit of two
        [120.0, 2.0, 160.0, 42.0],  # suppressed by the third: IoU 38 / 42 = 0.90
        [10.0, 50.0, 30.0, 90.0],  # below the threshold
        [180.0, 60.0, 180.0, 90.0],  # no width
    ]
)
CATS = torch.tensor([0.9, 0.8, 0.7, 0.6, 0.55, 0.1, 0.5])


def verdicts(limits: Limits) -> Verdicts:
    scores = torch.stack([1 - CATS, CATS, torch.full_like(CATS, 0.01)], 1)
    raw = Raw(scores.log(), scores, BOXES[:, None])
    entered = torch.tensor([0, 1, 2, 3, 4])
    before = Entries(BOXES[entered], torch.ones_like(entered), CATS[entered], entered)
    zeros = torch.zeros(len(BOXES), dtype=torch.int64)
    candidates = Candidates(BOXES, zeros, zeros, zeros)
    kept = suppress(before, limits, candidates, INPUTS, 0)
    return Verdicts(Found(Features(INPUTS, {}), candidates, raw, kept), limits, CATEGORIES)


@pytest.mark.parametrize(
    ("place", "text", "suppressed_by"),
    [
        (0, "reported as box 0", None),
        (1, "suppressed by box 0 (cat 0.89; IoU 0.82, above 0.5)", 0),
        (2, "reported as box 1", None),
        (3, "beyond the limit of 2 boxes", None),
        (4, "suppressed by cat 0.60, itself beyond the limit (IoU 0.90, above 0.5)", None),
        (5, "below the score threshold of 0.2", None),
        (6, "no box: 0.000 x 30.000 pixels of the network input", None),
    ],
)
def test_what_became_of_a_candidate(place: int, text: str, suppressed_by: int | None) -> None:
    box = (BOXES[place] / 2).tolist()
    if place == 6:
        box[2] += 0.5  # its middle is nearest: nothing overlaps it
    chosen = verdicts(Limits(0.2, 0.5, 2)).nearest(box, [1])
    assert chosen.entries.candidate.tolist() == [place]
    assert chosen.outcomes[0].text == text
    assert chosen.outcomes[0].suppressed_by == suppressed_by
    assert chosen.boxes.tolist() == [(BOXES[place] / 2).tolist()]


def test_beyond_the_strongest() -> None:
    limits = Limits(0.2, 0.5, 2, strongest=5, strongest_of="feature map")
    scores = torch.tensor([[0.0, 0.3, 0.0]])
    asked = verdicts(limits)
    raw = Raw(scores, scores, BOXES[None, 5:6])
    empty = Entries(*(each[:0] for each in vars(asked.found.kept.before).values()))
    kept = replace(asked.found.kept, before=empty)
    late = replace(asked, found=replace(asked.found, raw=raw, kept=kept))
    outcome = late.nearest([1, 1, 2, 2], [1]).outcomes[0]
    assert outcome.text == "beyond the 5 strongest of its feature map"


def test_strongest_candidates_of_some_categories() -> None:
    asked = verdicts(Limits(0.2, 0.5, 2))
    assert asked.strongest(3, [1, 2]).entries.candidate.tolist() == [0, 1, 2]
    dogs = asked.strongest(2, [2])
    assert dogs.entries.labels.tolist() == [2, 2]
    assert [each.text for each in dogs.outcomes] == ["below the score threshold of 0.2"] * 2
    assert len(asked.strongest(100, [1])) == len(BOXES)


def test_the_better_score_among_equal_boxes_and_the_nearest_middle() -> None:
    asked = verdicts(Limits(0.2, 0.5, 2))
    both = asked.nearest([0.0, 0.0, 20.0, 20.0], [1, 2])
    assert (both.entries.candidate.tolist(), both.entries.labels.tolist()) == ([0], [1])
    assert asked.nearest([16.0, 46.0, 19.0, 49.0], [1]).entries.candidate.tolist() == [5]


def test_why_not_in_a_scene(demo: Explainer) -> None:
    picture = scene_picture(0)
    reported = demo.explain([picture])[0]
    best = reported[0]
    request = replace(demo.defaults, box=best.box, category=best.category)
    same = demo.explain([picture], request)[0]
    assert [each.outcome for each in same] == ["reported as box 0"]
    # A batch of one is added up in another order than a batch of all boxes.
    difference = (same[0].heatmap - best.heatmap).abs().max()
    assert float(difference) < 1e-4 * float(best.heatmap.max())
    other = next(name for name in demo.categories[1:] if name != best.category)
    why = demo.explain([picture], ExplainRequest(box=best.box, category=other))[0][0]
    assert why.category == other
    assert why.score < best.score
    assert why.outcome.startswith("below the score threshold")
    assert float(why.heatmap.max()) > 0


def test_candidates_in_a_scene(demo: Explainer) -> None:
    picture = scene_picture(0)
    found = demo.explain([picture], ExplainRequest(candidates=20))[0]
    assert [each.index for each in found] == list(range(20))
    assert [each.score for each in found] == sorted((each.score for each in found), reverse=True)
    boxes = demo.detect([picture])[0].boxes
    for each in found:
        if each.outcome.startswith("reported"):
            assert each.box == pytest.approx(boxes[int(each.outcome.split()[-1])].tolist())
        else:
            assert each.suppressed_by is not None
    assert {each.outcome.split()[0] for each in found} == {"reported", "suppressed"}
