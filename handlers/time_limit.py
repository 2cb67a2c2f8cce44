"""How long an explanation may take: long loops look at the clock between their steps.

    with time_limit(20):
        explainer.explain(pictures, request)  # OutOfTimeError as soon as it is clear

What is left of a loop is foreseen from its fastest step, once there were two (the first may have
made ready for all), so that what cannot be done is given up early rather than at the end of the
time. It is a lower bound: what there is time for is never refused.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, TypeVar

Step = TypeVar("Step")


class OutOfTimeError(RuntimeError):
    """needed: seconds in all, as far as they can be foreseen; limit: seconds that there are."""

    def __init__(self, needed: float, limit: float) -> None:
        super().__init__(f"it takes {needed:.3g} s or more, and there are {limit:.3g} s for it")
        self.needed = needed
        self.limit = limit


@dataclass(frozen=True)
class _Limit:
    """repeats: how often each loop that is under way will be run through again, outermost first."""

    start: float
    seconds: float
    repeats: list[int] = field(default_factory=list)

    def check(self, rest: float = 0.0, whole: float = 0.0) -> None:
        """rest: seconds that the loop under way still takes; whole: that all of it takes."""
        needed = time.monotonic() - self.start + rest
        for repeats in reversed(self.repeats):
            needed += repeats * whole
            whole *= repeats + 1
        if needed > self.seconds:
            raise OutOfTimeError(needed, self.seconds)


_LIMIT: ContextVar[_Limit | None] = ContextVar("time limit", default=None)


@contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Loops that run meanwhile raise OutOfTimeError where they would go on for longer."""
    token = _LIMIT.set(_Limit(time.monotonic(), seconds))
    try:
        yield
    finally:
        _LIMIT.reset(token)


def on_time(steps: Iterable[Step], total: int, size: Callable[[Any], int] = len) -> Iterator[Step]:
    """The steps of a loop over `total` items, each so many of them as `size` says; a total of 0 is
    one that is not known. Raises OutOfTimeError before or after a step if the time is over, or by
    the fastest step of two or more will be before the end."""
    limit = _LIMIT.get()
    if limit is None:
        yield from steps
        return
    done, taken, fastest, before = 0, 0, math.inf, time.monotonic()
    limit.check()
    for step in steps:
        yield step
        done, taken = done + size(step), taken + 1
        now = time.monotonic()
        fastest, before = min(fastest, (now - before) / max(1, size(step))), now
        if taken > 1 and done < total:
            limit.check(fastest * (total - done), fastest * total)
        else:
            limit.check()


def each_alike(steps: Iterable[Step], number: int) -> Iterator[Step]:
    """The steps of a loop whose every step is a loop of its own, all of about the same length: what
    is foreseen within one counts for those that follow."""
    limit = _LIMIT.get()
    if limit is None:
        yield from steps
        return
    for place, step in enumerate(steps):
        limit.check()
        limit.repeats.append(number - place - 1)
        try:
            yield step
        finally:
            limit.repeats.pop()
