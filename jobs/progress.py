"""How far a job is: a bar on a terminal, else a line now and then."""

from __future__ import annotations

import sys
import time
from types import TracebackType

from tqdm import tqdm

SECONDS_BETWEEN_LINES = 10.0


class Progress:
    """Counts pictures; used as a context manager, so that a bar never stays behind."""

    def __init__(
        self, total: int, done: int, seconds_between_lines: float = SECONDS_BETWEEN_LINES
    ) -> None:
        self.total = total
        self.done = done
        self.before = done
        self.seconds_between_lines = seconds_between_lines
        self.failures = 0
        self.started = self.last_line = time.monotonic()
        self.bar = (
            tqdm(total=total, initial=done, unit=" pictures", file=sys.stderr, dynamic_ncols=True)
            if sys.stderr.isatty()
            else None
        )

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self.bar is not None:
            self.bar.close()

    def add(self, pictures: int, failures: int) -> None:
        """So many more pictures are done, of which so many failed."""
        self.done += pictures
        self.failures += failures
        now = time.monotonic()
        if self.bar is not None:
            if failures:
                self.bar.set_postfix(failed=self.failures)
            self.bar.update(pictures)
        elif now - self.last_line >= self.seconds_between_lines:
            self.last_line = now
            new = self.done - self.before
            parts = [f"{self.done} of {counted(self.total, 'picture')} done"]
            if new:
                parts.append(speed(new, now - self.started))
            if self.failures:
                parts.append(f"{self.failures} failed")
            print(", ".join(parts), file=sys.stderr, flush=True)


def counted(number: int, singular: str, plural: str = "") -> str:
    """A number and what it counts: "1 picture", "2 pictures"."""
    return f"{number} {singular if number == 1 else plural or singular + 's'}"


def speed(pictures: int, seconds: float) -> str:
    """How fast so many pictures, at least one, were done: "2.5 a second", "4.0 s each"."""
    if pictures >= seconds:
        return f"{pictures / seconds:.1f} a second" if seconds else "at once"
    return f"{seconds / pictures:.1f} s each"
