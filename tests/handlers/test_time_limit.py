from __future__ import annotations

from contextlib import nullcontext

import pytest
import torch

from handlers import time_limit
from handlers.evidence.scene import in_chunks
from handlers.time_limit import OutOfTimeError, on_time


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
        (4.9, [1, 1, 1, 1, 1], 1, 5.0),  # foreseen after the first
        (7.5, [4, 1, 1, 1, 1], 1, 20.0),  # a first step that is slow counts until another is faster
        (20, [4, 1, 1, 1, 1], 5, None),
        (20, [4, 1, 16, 1, 1], 3, 23.0),  # noticed after the slow step, by the fastest so far
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
