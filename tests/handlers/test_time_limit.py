from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace
from typing import Any

import pytest
import torch

from handlers import time_limit
from handlers.evidence.scene import in_chunks
from handlers.explainer import Explainer
from handlers.schema import ExplainRequest
from handlers.time_limit import OutOfTimeError, on_time
from tests.conftest import random_picture


class Clock:
    """Goes on only when told to."""

    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    found = Clock()
    monkeypatch.setattr(time_limit, "time", found)
    return found


@pytest.mark.parametrize(
    ("limit", "seconds", "taken", "needed"),
    [
        (None, [99, 99, 99, 99, 99], 5, None),
        (10, [1, 1, 1, 1, 1], 5, None),  # five steps of two items
        (4.9, [1, 1, 1, 1, 1], 2, 5.0),  # foreseen after the second
        (8.5, [4, 1, 1, 1, 1], 5, None),  # a first step that makes ready for all foretells nothing
        (7.5, [4, 1, 1, 1, 1], 2, 8.0),
        (3.5, [4, 1, 1, 1, 1], 1, 4.0),  # but the time may be over
        (20, [4, 1, 16, 1, 1], 3, 23.0),  # noticed after the slow step, by the fastest so far
        (5.5, [1, 1, 1, 1, 3], 5, 7.0),  # and after the last
    ],
)
def test_what_is_left_is_foreseen_from_the_fastest_step(
    clock: Clock, limit: float | None, seconds: list[float], taken: int, needed: float | None
) -> None:
    done = 0

    def run() -> None:
        nonlocal done
        for own in on_time([[0, 0]] * 5, 10):
            clock.now += seconds[done]
            done += len(own) // 2

    with time_limit.time_limit(limit) if limit else nullcontext():
        if needed is None:
            run()
        else:
            with pytest.raises(OutOfTimeError) as error:
                run()
            assert error.value.needed == pytest.approx(needed)
            assert error.value.limit == limit
    assert done == taken


def test_a_loop_that_begins_too_late_does_not_begin(clock: Clock) -> None:
    with time_limit.time_limit(2):
        assert [own.tolist() for own in in_chunks(3, 10**9)] == [[0], [1], [2]]
        clock.now += 2.5
        with pytest.raises(OutOfTimeError, match=r"2\.5 s or more, and there are 2 s"):
            next(in_chunks(3, 10**9))
    assert torch.equal(torch.cat([*in_chunks(3, 1)]), torch.arange(3))
    assert list(in_chunks(0, 1)) == []


@pytest.mark.parametrize(("limit", "taken"), [(20.0, 20), (19.0, 2), (9.5, 2)])
def test_loops_that_are_alike_are_foreseen_within_the_first(
    clock: Clock, limit: float, taken: int
) -> None:
    done = 0

    def run() -> None:
        nonlocal done
        for _ in time_limit.each_alike(range(2), 2):
            for _ in time_limit.each_alike(range(2), 2):
                for _ in on_time([[0]] * 5, 5):
                    clock.now += 1
                    done += 1

    with time_limit.time_limit(limit):
        with pytest.raises(OutOfTimeError) if taken < 20 else nullcontext() as error:
            run()
        if error is not None:
            assert error.value.needed == pytest.approx(20)
    assert done == taken
    run()  # without a limit


ALL = ExplainRequest(score_threshold=0.0, max_detections=4)


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"layer": "C3,C4"},
        {"layer": "roi"},
        {"layer": "pyramid", "method": "gradcam"},
        {"method": "ablationcam"},
        {"method": "ablationcam", "layer": "roi"},
        {"method": "scorecam"},
        {"method": "fullgrad"},
        {"method": "guidedgradcam"},
        {"method": "drise", "masks": 3},
        {"method": "dclose", "masks": 5},
        {"sum_boxes": True},
        {"sum_boxes": True, "method": "fullgrad"},
        {"shared": True, "center_prior": 0.3, "layer": "C3"},
        {"target": "box_score", "layer": "pyramid"},
    ],
)
def test_every_explanation_looks_at_the_clock(explainer: Explainer, fields: dict[str, Any]) -> None:
    request = replace(ALL, **fields)
    picture = random_picture(100, 130)
    with time_limit.time_limit(1e6):
        assert explainer.explain([picture], request)[0]
    with time_limit.time_limit(0), pytest.raises(OutOfTimeError):
        explainer.explain([picture], request)
