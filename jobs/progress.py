"""How far a job is and what waits for what: a bar on a terminal, else a line now and then."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

from tqdm import tqdm

SECONDS_BETWEEN_LINES = 10.0
LEAST_SHARE_SHOWN = 0.01
BAR = "{l_bar}{bar}| {n:,}/{total:,} [{elapsed}<{remaining}, {rate_fmt}{postfix}]"


class Progress:
    """Counts pictures; used as a context manager, so that a bar never stays behind.

    total, done: pictures of all, and those that an earlier run did. clock: seconds.
    """

    def __init__(
        self,
        total: int,
        done: int,
        seconds_between_lines: float = SECONDS_BETWEEN_LINES,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.total = total
        self.done = done
        self.before = done
        self.seconds_between_lines = seconds_between_lines
        self.failures = 0
        self.clock = clock
        self.started = self.last_line = clock()
        self.waiting = _Waiting()
        self.bar = (
            tqdm(
                total=total,
                initial=done,
                unit=" pictures",
                bar_format=BAR,
                smoothing=0,  # shards come in bursts
                file=sys.stderr,
                dynamic_ncols=True,
            )
            if sys.stderr.isatty()
            else None
        )

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_: object) -> None:
        if self.bar is not None:
            self.bar.close()

    def add(self, pictures: int, failures: int) -> None:
        """So many more pictures are done, of which so many failed."""
        pictures = min(pictures, self.total - self.done)  # some are told twice, if a worker dies
        self.done += pictures
        self.failures += failures
        self._show(pictures)

    def skip(self, pictures: int) -> None:
        """So many pictures more are found to have been done by an earlier run."""
        self.done += pictures
        self.before += pictures
        if self.bar is not None:
            self.bar.initial += pictures
            self.bar.update(pictures)

    def waits(self, load: float, write: float, seconds: float = 1.0) -> None:
        """What the detector waited for since the last call, in shares of its time, 0 ... 1.

        load: pictures (store, decoder). write: what writes. seconds: how much time that was, by
        which several workers' are weighed; what is shown is the mean since the last line, or on a
        terminal of about as long.
        """
        self.waiting.add(load, write, seconds)
        self._show(0)

    def _show(self, pictures: int) -> None:
        now = self.clock()
        due = now - self.last_line >= self.seconds_between_lines
        if self.bar is not None:
            failed = [f"{self.failures:,} failed"] * bool(self.failures)
            self.bar.set_postfix_str("; ".join(failed + self.waiting.told()), refresh=False)
            self.bar.update(pictures)
        elif due:
            print("; ".join([self._line(now), *self.waiting.told()]), file=sys.stderr, flush=True)
        if due:
            self.last_line = now
            self.waiting = _Waiting()

    def _line(self, now: float) -> str:
        new, seconds = self.done - self.before, now - self.started
        parts = [f"{self.done:,} of {counted(self.total, 'picture')} done"]
        if new:
            parts.append(speed(new, seconds))
        if self.failures:
            parts.append(f"{self.failures:,} failed")
        if new and self.total > self.done:
            parts.append(f"about {duration(seconds / new * (self.total - self.done))} left")
        return ", ".join(parts)


class _Waiting:
    """What the detector waited for: the mean of several shares of its time."""

    def __init__(self) -> None:
        self.seconds = self.load = self.write = 0.0

    def add(self, load: float, write: float, seconds: float) -> None:
        self.seconds += seconds
        self.load += load * seconds
        self.write += write * seconds

    def told(self) -> list[str]:
        """In words, if it is worth any."""
        means = ((what, each / self.seconds) for what, each in self._sums() if self.seconds)
        shown = [
            f"{mean:.0%}".replace("%", " %") + f" for {what}"
            for what, mean in means
            if mean >= LEAST_SHARE_SHOWN
        ]
        return [f"the detector waits: {', '.join(shown)}"] if shown else []

    def _sums(self) -> tuple[tuple[str, float], ...]:
        return ("pictures", self.load), ("writing", self.write)


def counted(number: int, singular: str, plural: str = "") -> str:
    """A number and what it counts: "1 picture", "2,000 pictures"."""
    return f"{number:,} {singular if number == 1 else plural or singular + 's'}"


def speed(pictures: int, seconds: float) -> str:
    """How fast so many pictures, at least one, were done: "2.5 a second", "4.0 s each"."""
    if pictures >= seconds:
        return f"{pictures / seconds:,.1f} a second" if seconds else "at once"
    return f"{seconds / pictures:,.1f} s each"


def duration(seconds: float) -> str:
    """A time that is known roughly: "40 s", "3 min", "2 h 10 min", "3 days 4 h"."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 100:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    if hours < 48:
        return f"{hours} h {minutes} min" if minutes else f"{hours} h"
    days, hours = divmod(hours, 24)
    return f"{days} days {hours} h" if hours else f"{days} days"
