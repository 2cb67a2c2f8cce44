"""How long an explanation may take: long loops look at the clock between their steps.

    with time_limit(20):
        explainer.explain(pictures, request)  # OutOfTimeError as soon as it is clear

What is left of a loop is foreseen from its fastest step, so that what cannot be done is given up
after one step of it rather than at the end of the time.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator, Sized
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TypeVar

Step = TypeVar("Step", bound=Sized)


class OutOfTimeError(RuntimeError):
    """needed: seconds in all, as far as they can be foreseen; limit: seconds that there are."""

    def __init__(self, needed: float, limit: float) -> None:
        super().__init__(f"it takes {needed:.3g} s or more, and there are {limit:.3g} s for it")
        self.needed = needed
        self.limit = limit


@dataclass(frozen=True)
class _Limit:
    start: float
    seconds: float

    def check(self, rest: float = 0.0) -> None:
        needed = time.monotonic() - self.start + rest
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


def on_time(steps: Iterable[Step], total: int, size: Callable[[Step], int] = len) -> Iterator[Step]:
    """The steps of a loop over `total` items, each so many of them as `size` says. Raises
    OutOfTimeError after a step if by the fastest so far there is no time for what is left."""
    limit = _LIMIT.get()
    if limit is None:
        yield from steps
        return
    done, fastest, before = 0, math.inf, time.monotonic()
    limit.check()
    for step in steps:
        yield step
        done += size(step)
        now = time.monotonic()
        fastest, before = min(fastest, (now - before) / max(1, size(step))), now
        if done < total:
            limit.check(fastest * (total - done))
