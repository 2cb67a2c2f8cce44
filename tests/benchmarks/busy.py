"""How busy a GPU is, as NVIDIA's own tool sees it."""

from __future__ import annotations

import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from tests.benchmarks.harness import SkippedError

TOOL = "nvidia-smi"
MILLISECONDS_BETWEEN_LOOKS = 200


class Busy:
    """Samples of a GPU's use: the share of the time before each in which a kernel ran."""

    def __init__(self) -> None:
        self._samples: list[tuple[float, float]] = []

    def add(self, line: str) -> None:
        """What the tool printed just now: percent, or "[N/A]" of a part of a GPU."""
        if line.strip().isdigit():
            self._samples.append((time.monotonic(), float(line) / 100))

    def share(self, start: float, end: float) -> float:
        """The mean between two times of time.monotonic(). Raises SkippedError without samples."""
        inside = [share for when, share in self._samples if start <= when <= end]
        if not inside:
            raise SkippedError(f"{TOOL} gave no sample of the GPU's use during the run")
        return sum(inside) / len(inside)


@contextmanager
def watched(device: str) -> Iterator[Busy]:
    """Samples one GPU ("cuda", "cuda:1") until the end. Raises SkippedError without the tool."""
    if shutil.which(TOOL) is None:
        raise SkippedError(f"the GPU's busy share needs {TOOL}, which is not installed")
    number = device.partition(":")[2] or "0"
    busy = Busy()
    with subprocess.Popen(
        [
            *(TOOL, f"--id={number}", "--query-gpu=utilization.gpu"),
            *("--format=csv,noheader,nounits", f"--loop-ms={MILLISECONDS_BETWEEN_LOOKS}"),
        ],
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        lines = process.stdout

        def listen() -> None:
            for line in lines:
                busy.add(line)

        thread = threading.Thread(target=listen, daemon=True)
        thread.start()
        try:
            yield busy
        finally:
            process.terminate()
            thread.join()
