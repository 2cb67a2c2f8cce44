"""Memory does not grow with the pictures that there are."""

from __future__ import annotations

import subprocess
import sys

import pytest


@pytest.mark.parametrize(
    ("what", "few", "many", "growth"),
    [
        # Ten blocks that are merged; the keys alone are 10 MB.
        ("listing", 4_000, 40_000, 1_000_000),
        ("plan", 2_000, 20_000, 200_000),
        ("csv", 4_000, 16_000, 100_000),
        ("jsonl", 4_000, 16_000, 100_000),
        ("parquet", 4_000, 16_000, 100_000),
    ],
)
def test_memory_does_not_grow_with_the_pictures(
    what: str, few: int, many: int, growth: int
) -> None:
    command = [sys.executable, "-m", "tests.jobs.inputs.peak_of_reading", what, str(few), str(many)]
    found = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert found.returncode == 0, found.stderr
    of_few, of_many = map(int, found.stdout.split())
    assert 0 < of_many < of_few + growth
