"""Signals that become an exception."""

from __future__ import annotations

import signal

import pytest

from jobs.errors import Interrupted
from jobs.interruption import SIGNALS, interruptible


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_the_first_signal_ends_what_is_inside_and_later_ones_do_not(
    number: signal.Signals, code: int
) -> None:
    before = [signal.getsignal(each) for each in SIGNALS]
    cleaned = []

    def work() -> None:
        try:
            signal.raise_signal(number)
        finally:
            for each in SIGNALS:
                signal.raise_signal(each)
            cleaned.append(True)

    with pytest.raises(Interrupted) as caught, interruptible():
        work()
    assert cleaned
    assert caught.value.exit_code == code
    assert [signal.getsignal(each) for each in SIGNALS] == before
