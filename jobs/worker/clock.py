"""What the detector waits for."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

from jobs.worker.messages import Advanced


class Clock:
    """How long the detector has waited, since the last look."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._since = time.monotonic()
        self._waited = {"loading": 0.0, "writing": 0.0}

    def loading(self) -> AbstractContextManager[None]:
        """Entered while pictures are waited for."""
        return self._waiting("loading")

    def writing(self) -> AbstractContextManager[None]:
        """Entered while writes are waited for."""
        return self._waiting("writing")

    @contextmanager
    def _waiting(self, what: str) -> Iterator[None]:
        started = time.monotonic()
        yield
        with self._lock:
            self._waited[what] += time.monotonic() - started

    def advanced(self, pictures: int, failures: int) -> Advanced:
        """A message with the times, which begin anew."""
        with self._lock:
            now = time.monotonic()
            told = Advanced(pictures, failures, now - self._since, **self._waited)
            self._since = now
            self._waited = dict.fromkeys(self._waited, 0.0)
        return told
