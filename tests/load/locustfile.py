"""Users of the endpoint, for locust: each asks for what no other asks for, once a second, whatever
became of its last request, and looks whether the answer is to that.

Environment: TOKEN_HEADER, a file with the Authorization header; PICTURE, a picture's file; BOXES,
how many of its boxes there are to explain; REPORT, where to write counts as JSON.
"""

from __future__ import annotations

import itertools
import json
import os
import time
from collections import Counter
from pathlib import Path
from typing import Any

from gevent import GreenletExit
from locust import FastHttpUser, constant_pacing, events, task

NUMBERS = itertools.count()
COUNTS: Counter[str] = Counter()
# A busy server's: later, later, no room.
BUSY = (429, 503)
# Seconds: the queue and the batch before it are done in less.
PATIENCE = 30


class Person(FastHttpUser):
    """Asks for explanations of one picture, each time with a threshold of its own."""

    wait_time = constant_pacing(1)
    network_timeout = connection_timeout = 120.0

    def on_start(self) -> None:
        name, _, value = Path(os.environ["TOKEN_HEADER"]).read_text().strip().partition(": ")
        self.headers = {name: value}
        self.picture = Path(os.environ["PICTURE"]).read_bytes()
        self.boxes = int(os.environ["BOXES"])

    @task
    def explain(self) -> None:
        threshold = 0.5 + next(NUMBERS) * 1e-7
        COUNTS["sent"] += 1
        what, start = "wrong", time.monotonic()
        try:
            what = self.asked(threshold)
        except GreenletExit:
            # locust takes users away at its end, some in the midst of a request.
            what = "left" if time.monotonic() - start < PATIENCE else "wrong"
            raise
        finally:
            COUNTS[what] += 1

    def asked(self, threshold: float) -> str:
        """Asks, and says what came."""
        with self.client.post(
            "/explanations/demo",
            files={"picture": ("picture.png", self.picture)},
            data={"score_threshold": repr(threshold)},
            headers=self.headers,
            catch_response=True,
        ) as answer:
            what = self.judged(answer, threshold)
            if what == "wrong":
                answer.failure(f"{answer.status_code}: {(answer.text or '')[:200]}")
            else:
                answer.success()
        return what

    def judged(self, answer: Any, threshold: float) -> str:
        """What came: 200, 429, 503, or wrong."""
        if answer.status_code in BUSY:
            return str(answer.status_code)
        if answer.status_code != 200:
            return "wrong"
        found = answer.json()
        mine = found["request"]["score_threshold"] == threshold
        return "200" if mine and len(found["explanations"]) == self.boxes else "wrong"


@events.quit.add_listener  # type: ignore[untyped-decorator]
def report(**_: Any) -> None:
    """Writes the counts."""
    Path(os.environ["REPORT"]).write_text(json.dumps(COUNTS))
