"""The most memory that Python took at any moment of a listing, a plan or a manifest's reading:
`python -m tests.jobs.inputs.peak_of_reading WHAT PICTURES ...` prints bytes, of each number.

It has a process of its own: while other threads allocate, `tracemalloc.stop()` can crash the
interpreter (python/cpython issue 128679, mended in 3.12.9), and tests' servers are such threads.
"""

from __future__ import annotations

import sys
import tempfile
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest.mock import patch

import pyarrow as pa
import pyarrow.parquet as pq

from archives.stores.folder import FolderStore
from archives.stores.store import Entry
from jobs.inputs import listing, manifest_files, plan
from jobs.inputs.listing import Listing, list_input
from jobs.inputs.manifest import read_manifest
from jobs.inputs.plan import Plan, changes, write_plan
from jobs.inputs.sorted_on_disk import SortedOnDisk


class Millions(FolderStore):
    """A store of so many pictures in no order, and the output of a job that comes last."""

    pictures = 0

    def find(self, key: str) -> None:
        pass

    def below(self, prefix: str) -> FolderStore:
        return self

    def entries(self, prefix: str = "") -> Iterator[Entry]:
        for number in range(self.pictures):
            shuffled = number * 7919 % self.pictures
            folder = "out/shards" if shuffled % 2 else "in"
            yield Entry(f"{prefix}{folder}/{shuffled:08d}.jpg", shuffled, f"{shuffled:032x}")
        yield Entry(f"{prefix}out/run.json", 1, "")


@contextmanager
def traced(peaks: list[int]) -> Iterator[None]:
    """Adds the most bytes there were at any moment of a `with`."""
    tracemalloc.start()
    yield
    peaks.append(tracemalloc.get_traced_memory()[1])
    tracemalloc.stop()


def peak_of_listing(pictures: int, folder: Path, peaks: list[int]) -> None:
    store = Millions(Path("/"))
    store.pictures = pictures
    with (
        patch.object(listing, "open_root", lambda root: store),
        patch.object(listing, "SortedOnDisk", lambda: SortedOnDisk(2000, 10)),
        traced(peaks),
        list_input(["/pictures"], "/elsewhere") as found,
    ):
        assert found.count == pictures // 2
        assert sum(entry.size for entry in found.entries()) == found.bytes


def peak_of_planning(pictures: int, folder: Path, peaks: list[int]) -> None:
    output = FolderStore(folder)
    entries = (Entry(f"{number:06d}.jpg", 5, "tag") for number in range(pictures))
    with (
        patch.object(plan, "PIECE_ROWS", 1000),
        Listing.of(output, True, entries) as found,
        traced(peaks),
    ):
        write_plan(found, output, 100)
        assert changes(found, Plan(output, 100, found.count)) == []


def peak_of_a_manifest(kind: str) -> Callable[[int, Path, list[int]], None]:
    def peak(pictures: int, folder: Path, peaks: list[int]) -> None:
        keys = [f"folder/picture-{number:030d}.jpg" for number in range(pictures)]
        path = folder / f"m.{kind}"
        if kind == "csv":
            path.write_text("\n".join(["key", *keys]))
        elif kind == "jsonl":
            path.write_text("\n".join(f'"{key}"' for key in keys))
        else:
            pq.write_table(pa.table({"key": keys}), path)
        with patch.object(manifest_files, "ROWS_AT_ONCE", 1000), traced(peaks):
            assert sum(1 for _ in read_manifest(str(path), "/in/")) == pictures

    return peak


PEAKS = {
    "listing": peak_of_listing,
    "plan": peak_of_planning,
    **{kind: peak_of_a_manifest(kind) for kind in ("csv", "jsonl", "parquet")},
}


def main(what: str, *numbers: str) -> None:
    peaks: list[int] = []
    for number in numbers:
        with tempfile.TemporaryDirectory() as folder:
            PEAKS[what](int(number), Path(folder), peaks)
    print(*peaks)


if __name__ == "__main__":
    main(*sys.argv[1:])
