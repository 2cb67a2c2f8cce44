"""SIGINT and SIGTERM as an exception, so that what was begun is brought to an end."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from jobs.errors import Interrupted

SIGNALS = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def interruptible() -> Iterator[None]:
    """Inside, the first of SIGNALS raises Interrupted; those after it are passed over. In the main
    thread alone."""
    before = {number: signal.signal(number, _interrupt) for number in SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _interrupt(number: int, frame: FrameType | None) -> None:
    for each in SIGNALS:  # the end is short, and not to be ended itself
        signal.signal(each, signal.SIG_IGN)
    raise Interrupted(number)
