from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from archives.errors import ConflictError
from archives.stores.folder import FolderStore
from archives.stores.opening import open_store
from archives.stores.store import Entry
from jobs.inputs import plan
from jobs.inputs.listing import Listing
from jobs.inputs.plan import Plan, changes, write_plan

ODD = Entry("z\udce9/ %é\0.jpg", 3, "t")


def listing_of(entries: Iterable[Entry]) -> Listing:
    return Listing.of(open_store("/"), True, entries)


def numbered(*numbers: int) -> list[Entry]:
    return [Entry(f"{number:06d}.jpg", number, f"tag-{number}") for number in numbers]


def planned(output: FolderStore, entries: Sequence[Entry], shard_size: int) -> Plan:
    with listing_of(entries) as listing:
        write_plan(listing, output, shard_size)
        return Plan(output, shard_size, listing.count)


@pytest.fixture
def output(tmp_path: Path) -> FolderStore:
    return FolderStore(tmp_path)


@pytest.mark.parametrize("piece_rows", [1, 4, 5, 8_192])
@pytest.mark.parametrize("shard_size", [1, 2, 3, 100])
def test_shards_are_fixed_and_ordered_however_pieces_are_cut(
    output: FolderStore, monkeypatch: pytest.MonkeyPatch, shard_size: int, piece_rows: int
) -> None:
    monkeypatch.setattr(plan, "PIECE_ROWS", piece_rows)
    entries = [*numbered(*range(10)), ODD]
    found = planned(output, entries, shard_size)
    shards = [found.entries(number) for number in range(found.shards)]
    assert [each for shard in shards for each in shard] == entries
    assert [len(shard) for shard in shards[:-1]] == [shard_size] * (found.shards - 1)
    assert found.entries(0) == entries[:shard_size]
    for outside in (-1, found.shards):
        with pytest.raises(IndexError):
            found.entries(outside)


def test_a_piece_is_a_table_of_whole_shards(
    output: FolderStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plan, "PIECE_ROWS", 8)
    planned(output, [*numbered(*range(9)), ODD], 3)
    first, second = (pq.read_table(tmp_path / "listing" / f"0000{n}.parquet") for n in (0, 1))
    assert first.num_rows == 6
    assert second.slice(3).to_pylist() == [
        {"key": "z\\xe9/ %é\0.jpg", "exact": "z%E9%2F%20%25%C3%A9%00.jpg", "size": 3, "tag": "t"}
    ]
    assert first.slice(0, 1).to_pylist() == [
        {"key": "000000.jpg", "exact": None, "size": 0, "tag": "tag-0"}
    ]


def test_equal_listings_give_equal_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        planned(FolderStore(tmp_path / name), numbered(*range(100)), 7)
    first, second = ((tmp_path / name / "listing/00000.parquet").read_bytes() for name in "ab")
    assert first == second


def test_threads_share_one_piece(output: FolderStore, monkeypatch: pytest.MonkeyPatch) -> None:
    found = planned(output, numbered(*range(64)), 2)
    reads = []
    read = output.read

    def noted(key: str) -> bytes:
        reads.append(key)
        return read(key)

    monkeypatch.setattr(output, "read", noted)
    start = threading.Barrier(8)

    def shard(number: int) -> list[Entry]:
        if number < 8:
            start.wait(10)
        return found.entries(number)

    with ThreadPoolExecutor(8) as pool:
        shards = list(pool.map(shard, range(32)))
    assert [each.size for entries in shards for each in entries] == list(range(64))
    assert reads == ["listing/00000.parquet"]


def remove(path: Path) -> None:
    path.unlink()


def damage(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-9])


def shorten(path: Path) -> None:
    pq.write_table(pq.read_table(path).slice(1), path)


def replace(path: Path) -> None:
    pq.write_table(pa.table({"key": ["a"]}), path)


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (remove, "is missing"),
        (damage, "cannot be read"),
        (shorten, "has 4 rows, expected 5"),
        (replace, "has the columns key"),
    ],
)
def test_a_plan_that_was_changed_is_refused(
    output: FolderStore, tmp_path: Path, harm: Callable[[Path], None], message: str
) -> None:
    found = planned(output, numbered(*range(5)), 2)
    harm(tmp_path / "listing/00000.parquet")
    with pytest.raises(ConflictError, match=message + ".*choose another output"):
        found.entries(0)


@pytest.mark.parametrize(
    ("before", "after", "lines"),
    [
        ("abc", "abc", []),
        ("bd", "abcd", ["2 pictures added (a.jpg, c.jpg)"]),
        ("abc", "abC", ["1 picture changed (c.jpg)"]),
        ("abcdef", "f", ["5 pictures removed (a.jpg, b.jpg, c.jpg, ...)"]),
        ("abc", "def", ["3 pictures added (d.jpg, e.jpg, f.jpg)",
                        "3 pictures removed (a.jpg, b.jpg, c.jpg)"]),
        ("abce", "aBde", ["1 picture added (d.jpg)", "1 picture removed (c.jpg)",
                          "1 picture changed (b.jpg)"]),
    ],
)  # fmt: skip
def test_changes_say_what_was_added_removed_and_changed(
    output: FolderStore, before: str, after: str, lines: list[str]
) -> None:
    """A letter is a picture; a capital one has another tag."""
    old, new = (
        [Entry(f"{letter.lower()}.jpg", 1, letter) for letter in letters]
        for letters in (before, after)
    )
    with listing_of(new) as listing:
        assert changes(listing, planned(output, old, 2)) == lines


def test_many_changes_are_counted_with_separators(output: FolderStore) -> None:
    found = planned(output, [*numbered(*range(1204)), ODD], 100)
    with listing_of([ODD]) as listing:
        removed = "1,204 pictures removed (000000.jpg, 000001.jpg, 000002.jpg, ...)"
        assert changes(listing, found) == [removed]
    with listing_of(numbered(*range(1204))) as listing:
        assert changes(listing, found) == ["1 picture removed (z\\xe9/ %é\0.jpg)"]
