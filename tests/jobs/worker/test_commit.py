"""What is kept of a shard, and read back."""

from __future__ import annotations

from pathlib import Path

import pytest

from archives.errors import ConflictError
from archives.stores.folder import FolderStore
from archives.stores.store import Entry
from jobs.worker.commit import AHEAD, all_stats, commit, read_stats, read_table
from jobs.worker.pictures import Failure, Pools


def committed(folder: Path, *outcomes: Failure) -> dict[str, object]:
    entries = [Entry(each.key, 1, "") for each in outcomes]
    pools = Pools.start()
    try:
        return commit(3, entries, outcomes, 1.5, FolderStore(folder), pools.transfer, lambda: None)
    finally:
        pools.shutdown()


def test_a_table_that_another_run_has_written_is_refused(tmp_path: Path) -> None:
    store = FolderStore(tmp_path)
    stats = committed(tmp_path, Failure("a.jpg", "decode", "PictureError", "torn"))
    assert read_stats(store, 3) == stats
    assert read_table(store, stats, "failures.parquet")[:4] == b"PAR1"
    store.write("shards/00003/failures.parquet", b"PAR1 of another")
    with pytest.raises(ConflictError, match="two runs have written here"):
        read_table(store, stats, "failures.parquet")


def test_nothing_is_written_once_another_run_has_taken_over(tmp_path: Path) -> None:
    def refuse() -> None:
        raise ConflictError("taken over")

    pools = Pools.start()
    with pytest.raises(ConflictError, match="taken over"):
        commit(0, [], [], 0.0, FolderStore(tmp_path), pools.transfer, refuse)
    pools.shutdown()
    assert [*tmp_path.iterdir()] == []


def test_a_window_of_shards_is_read_ahead(tmp_path: Path) -> None:
    asked = []

    class Counting(FolderStore):
        def read(self, key: str) -> bytes:
            asked.append(key)
            return super().read(key)

    shards = all_stats(Counting(tmp_path), range(1_000))
    assert [next(shards) for _ in range(3)] == [(0, None), (1, None), (2, None)]
    assert len(asked) <= AHEAD + 2
