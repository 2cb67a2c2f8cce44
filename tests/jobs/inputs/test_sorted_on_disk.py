from __future__ import annotations

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from archives.errors import StoreDownError
from archives.stores.store import Entry
from jobs.inputs.sorted_on_disk import BLOCK, SortedOnDisk, Spool

# Any text that can be a file's name, bytes that are not UTF-8 included; few letters, so that keys
# meet.
KEYS = st.text(st.sampled_from("ab/é\n\0🐈\udcff\udc80")) | st.text(
    st.characters(exclude_categories=["Cs"])
)
ENTRIES = st.lists(st.builds(Entry, KEYS, st.integers(-1, 3), st.sampled_from(["", "t"])))


def entry(key: str, size: int = 1, tag: str = "") -> Entry:
    return Entry(key, size, tag)


def in_order(entries: list[Entry], *sizes: int) -> tuple[list[Entry], int]:
    """What came out, and of how many runs."""
    with SortedOnDisk(*sizes) as on_disk:
        on_disk.extend(entries)
        return list(on_disk.read()), on_disk.runs


@given(ENTRIES, st.integers(1, 5), st.integers(2, 4))
def test_each_key_comes_once_in_order_whatever_came(
    entries: list[Entry], sorted_at_once: int, merged_at_once: int
) -> None:
    expected = {each.key: each for each in sorted(entries)}
    found, runs = in_order(entries, sorted_at_once, merged_at_once)
    assert found == list(expected.values())
    assert [each.key for each in found] == sorted({each.key for each in entries})
    assert runs <= merged_at_once


def test_of_equal_keys_the_one_whose_size_is_known_stays() -> None:
    known, unknown = entry("a", 7, "t"), entry("a", -1)
    assert in_order([known, unknown], 1)[0] == in_order([unknown, known], 1)[0] == [known]


@pytest.mark.parametrize(
    ("keys", "runs"), [("abcdefgh", 1), ("abcdabef", 2), ("hgfedcba", 4), ("abab", 2), ("", 0)]
)
def test_what_comes_in_order_is_one_run(keys: str, runs: int) -> None:
    found, counted = in_order([entry(key) for key in keys], 2)
    assert [each.key for each in found] == sorted(set(keys))
    assert counted == runs


def test_runs_are_merged_in_passes_with_few_files_open() -> None:
    keys = [f"{number * 7919 % 3000:04d}" for number in range(3000)]
    with SortedOnDisk(sorted_at_once=3, merged_at_once=5) as on_disk:
        on_disk.extend(map(entry, keys))
        before = len(os.listdir("/proc/self/fd"))
        assert on_disk.runs > 5**3
        assert [each.key for each in on_disk.read()] == sorted(keys)
        assert len(os.listdir("/proc/self/fd")) == before


def test_a_spool_is_read_by_several_at_once_and_from_any_place() -> None:
    entries = [entry(f"{number}.jpg", number, "t") for number in range(3 * BLOCK)]
    with Spool() as spool:
        spool.extend(entries[:5])
        place = spool.size
        spool.extend(entries[5:])
        first, second = spool.read(), spool.read(place)
        assert [next(first), next(second)] == [entries[0], entries[5]]
        assert [*spool.read(0, place)] == entries[:5]
        assert [*first, *second] == [*entries[1:], *entries[6:]]


def test_a_full_disk_is_worth_another_try(monkeypatch: pytest.MonkeyPatch) -> None:
    with open("/dev/full", "wb", buffering=0) as full:
        monkeypatch.setattr("tempfile.TemporaryFile", lambda *_, **__: full)
        spool = Spool()
        with pytest.raises(StoreDownError, match=r"No space left.*TMPDIR") as caught:
            spool.extend([entry("a")])
        assert caught.value.exit_code == 75
        spool.close()
