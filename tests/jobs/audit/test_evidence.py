"""Where evidence lies, of a detector whose scores are known functions of pixels."""

from __future__ import annotations

import math
from typing import Any, cast

import pytest
import torch
from torch import Tensor

from jobs.audit import evidence as module
from jobs.audit.evidence import Donors, evidence_of, look
from jobs.audit.places import BESIDE, NEIGHBOUR, SPOT, SURROUNDINGS, Evidence, Place
from tests.jobs.audit.rule_detector import (
    BOXES,
    CAT,
    DARK,
    DOG,
    GROUND,
    Rule,
    RuleDetector,
    Stub,
    detections,
    donors,
    itself,
    picture,
    white_at,
)

DOG_PIXELS = (86, 34, 102, 50)
# Just beside the cat, and in the upper left corner of the frame.
BADGE, STAMP = (56, 38, 62, 44), (0, 0, 10, 10)


def asked(
    rule: Rule, pixels: Tensor, monkeypatch: pytest.MonkeyPatch, lent: Donors | None = None
) -> tuple[Evidence, RuleDetector]:
    """The cat's evidence."""
    detector = RuleDetector(rule)
    monkeypatch.setattr(module, "reported", detector)
    boxes = detections()
    found = evidence_of(cast("Any", Stub()), "p", pixels, boxes, lent or donors(), 4)
    assert [each.box for each in found] == list(BOXES)
    return found[0], detector


@pytest.mark.parametrize(
    ("white", "expected"),
    [
        # What is beside the box is somewhere in the frame, too: other pictures tell (shortcuts).
        (BADGE, [Place(BESIDE, "right"), Place(SPOT, "middle")]),
        ((40, 20, 46, 28), [Place(BESIDE, "above"), Place(SPOT, "upper middle")]),
        (STAMP, [Place(SPOT, "upper left")]),
        ((110, 80, 118, 88), [Place(SPOT, "lower right")]),
        (DOG_PIXELS, [Place(NEIGHBOUR)]),
    ],
)
def test_what_the_score_follows_is_found(
    white: tuple[int, int, int, int], expected: list[Place], monkeypatch: pytest.MonkeyPatch
) -> None:
    found, _ = asked(white_at(*white), picture(white), monkeypatch)
    assert found.alone == 0
    assert found.exchanged == pytest.approx(1)
    assert found.outside
    assert list(found.places) == expected
    for place, left in found.kept.items():
        assert left == pytest.approx(0 if place in expected else 1)
        assert found.instead[place] == ("bird" if place in expected else "cat")
    assert found.neighbour in ([1] if expected[0].kind == NEIGHBOUR else [1, 2])
    assert [sum(each) for each in found.looks.values()] == pytest.approx([1.0] * len(expected))


def test_an_honest_detection_is_asked_four_times_and_no_more(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    detector = RuleDetector(itself(0))
    monkeypatch.setattr(module, "reported", detector)
    pixels = picture()
    lent = donors()
    lent.objects[1] = [("x", torch.full((3, 20, 20), DARK, dtype=torch.uint8))]
    found = evidence_of(cast("Any", Stub()), "p", pixels, detections(), lent, 4)
    for each in found:
        assert each.alone == pytest.approx(1)
        assert each.exchanged < 0.2  # its corners stay
        assert not each.outside
        assert each.places == ()
        assert each.kept == {}
    assert detector.looked == 3 * 4
    (one,) = evidence_of(cast("Any", Stub()), "p", pixels, detections(), lent, 4, [1])
    assert one == found[1]


def test_surroundings_that_no_part_of_makes(monkeypatch: pytest.MonkeyPatch) -> None:
    def rule(pixels: Tensor) -> float:
        """Most of what is outside the cat's box has the picture's own ground."""
        outside = torch.ones(pixels.shape[1:], dtype=torch.bool)
        outside[30:54, 32:56] = False
        return float((pixels[0][outside] == GROUND).float().mean() > 0.5)

    found, _ = asked(rule, picture(), monkeypatch)
    assert found.alone == 0
    assert found.places == (Place(SURROUNDINGS),)
    assert list(found.kept.values()) == pytest.approx([1.0] * 14)


def test_with_nothing_lent_the_box_is_asked_on_grey_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    found, detector = asked(itself(0), picture(), monkeypatch, Donors())
    assert found.alone == pytest.approx(1)
    assert math.isnan(found.exchanged)
    assert not found.outside
    assert detector.looked == 3


def test_what_is_lent() -> None:
    lent = Donors()
    for name in ("a", "b"):
        lent.add(name, picture(), detections())
    assert {label: [name for name, _ in own] for label, own in lent.objects.items()} == {
        1: ["a", "b"],
        2: ["a", "b"],
        3: ["a", "b"],
    }
    assert lent.objects[1][0][1].shape == (3, 20, 20)
    # Of others, each of another category, and never one's own.
    dog, bird = lent.others("a", 1, 0)
    assert (int(dog.float().mean()), int(bird.float().mean())) == (150, 190)
    assert not Donors(lent.objects).others("a", 1, 0)[0].equal(lent.objects[1][0][1])
    empty = lent.background("a", 0)
    assert empty is not None
    assert empty.unique().tolist() == [GROUND]  # without the detections
    only = Donors({1: [("a", dog)]}, [("a", empty)])
    assert only.others("a", 2, 0) == []
    assert only.others("b", 1, 0) == []
    assert only.background("a", 0) is None


def test_looks_tell_marks_apart_and_not_the_ground() -> None:
    region = torch.zeros(90, 120, dtype=torch.bool)
    region[0:30, 0:40] = True
    marks: list[tuple[float, ...]] = []
    for colour in ((250, 0, 0), (250, 0, 0), (0, 250, 0)):
        pixels = picture(ground=60 if len(marks) else 90)
        pixels[:, 2:12, 2:12] = torch.tensor(colour, dtype=torch.uint8)[:, None, None]
        marks.append(look(pixels, region))
    assert [sum(each) for each in marks] == pytest.approx([1, 1, 1])
    shared = [sum(map(min, marks[0], each)) for each in marks[1:]]
    assert shared[0] > 0.9
    assert shared[1] < 0.1


def test_places_need_more_than_the_control_loses() -> None:
    def kept(*shares: float) -> tuple[Place, ...]:
        places = [Place(SPOT, name) for name in ("upper left", "upper middle", "upper right")]
        own = dict(zip(places, shares, strict=True))
        return Evidence("p", 0, CAT, "cat", 0.9, 90, 120, 0.1, 0.0, own).places

    assert kept(0.1, 1.0, 1.0) == (Place(SPOT, "upper left"),)
    assert kept(0.51, 1.0, 1.0) == (Place(SURROUNDINGS),)
    # Whatever is taken away the score falls: the control, 0.55, is no more than half above.
    assert kept(0.1, 0.5, 0.6) == (Place(SURROUNDINGS),)
    assert Evidence("p", 0, DOG, "dog", 0.9, 90, 120, 0.5, 0.49).places == ()
    assert Evidence("p", 0, DOG, "dog", 0.9, 90, 120, 0.9, 0.5).outside
    assert not Evidence("p", 0, DOG, "dog", 0.9, 90, 120, 0.9, math.nan).outside
