"""A run's memory does not grow with its pictures."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.jobs.archive_stub import write_archive
from tests.jobs.peak_memory import FLAT, Peaks, peaks_of, write_pictures

MIB_MORE = 25  # of a process, whose allocators are warm after some thousand; 14 to 20 were seen


def grown(folder: Path, few: int, many: int, in_a_folder: int) -> Peaks:
    """How much more the larger run takes."""
    archive = write_archive(folder / "stub.mar")
    found = []
    for number in (few, many):
        source = write_pictures(folder / f"in-{number}", number, in_a_folder)
        found.append(peaks_of(archive, source, folder / f"out-{number}"))
    one, other = found
    return Peaks(other.command - one.command, other.worker - one.worker, other.seconds)


def test_five_thousand_pictures_take_as_much_memory_as_five_hundred(tmp_path: Path) -> None:
    more = grown(tmp_path, 500, 5000, FLAT)
    assert more.command < MIB_MORE, more
    assert more.worker < MIB_MORE, more


@pytest.mark.full
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("in_a_folder", [100, FLAT])
def test_a_hundred_thousand_pictures_take_as_much_memory_as_a_thousand(
    in_a_folder: int, tmp_path: Path
) -> None:
    more = grown(tmp_path, 1000, 100_000, in_a_folder)
    assert more.command < MIB_MORE, more
    assert more.worker < MIB_MORE, more
