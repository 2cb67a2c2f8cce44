"""How much memory a run of the real command takes: its processes' peaks, as the kernel keeps them.

The detector is the archive stub, so that it is the runner that is measured.
"""

from __future__ import annotations

import re
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import psutil

SECONDS_BETWEEN_LOOKS = 0.02
PEAK = re.compile(r"^VmHWM:\s+(\d+) kB$", re.MULTILINE)
FLAT = 10**9


@dataclass(frozen=True)
class Peaks:
    """The most memory that was resident at any moment, in MiB.

    command: of the process that was started, which lists and coordinates. worker: of its largest
    child. seconds: how long the run took.
    """

    command: float
    worker: float
    seconds: float


def write_pictures(folder: Path, count: int, in_a_folder: int = FLAT) -> Path:
    """So many files that the archive stub takes for pictures, each with other bytes."""
    for number in range(count):
        place = folder / f"{number // in_a_folder:05d}"
        if number % in_a_folder == 0:
            place.mkdir(parents=True)
        (place / f"{number:08d}.jpg").write_bytes(b"ok%d" % number)
    return folder


def peaks_of(archive: Path, source: Path, output: Path, *more: str) -> Peaks:
    """Runs `python -m jobs explain`, which is to end well, and watches it. Linux only."""
    places = ["--archive", str(archive), "--input", str(source), "--output", str(output)]
    command = [sys.executable, "-m", "jobs", "explain", *places, "--no-pictures", *more]
    highest: dict[int, int] = {}
    started = time.monotonic()
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as process:
        try:
            while process.poll() is None:
                for pid in (process.pid, *_children(process.pid)):
                    highest[pid] = max(highest.get(pid, 0), _peak(pid))
                time.sleep(SECONDS_BETWEEN_LOOKS)
            _, said = process.communicate()
        finally:
            process.terminate()  # where this one was told to end
    if process.returncode:
        raise RuntimeError(f"the run ended with {process.returncode}: {said.decode()}")
    own = highest.pop(process.pid)
    return Peaks(own / 1024, max(highest.values()) / 1024, time.monotonic() - started)


def _children(pid: int) -> list[int]:
    try:
        return [each.pid for each in psutil.Process(pid).children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def _peak(pid: int) -> int:
    """In KiB; 0 of a process that has ended."""
    try:
        found = PEAK.search(Path(f"/proc/{pid}/status").read_text())
    except OSError:
        return 0
    return int(found[1]) if found else 0
