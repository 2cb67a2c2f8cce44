"""Shards on their way in: in order, a few pictures ahead, and every error reaches the consumer."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from archives.errors import StoreDownError
from archives.stores.folder import FolderStore
from jobs.errors import Interrupted
from jobs.inputs.listing import Listing
from jobs.inputs.plan import Plan, write_plan
from jobs.worker.clock import Clock
from jobs.worker.loading import Loader, Source
from jobs.worker.messages import Blame, ShardOrder
from jobs.worker.pictures import Failure, how_far_ahead, unwatched
from tests.jobs.conftest import picture_bytes

MakeSource = Callable[..., Source]
BATCH = 2
AHEAD = how_far_ahead(BATCH) + 1  # those in the queue, and the next, which waits for room


class Pictures(FolderStore):
    """Notes what is read; does not answer for "down"."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.asked: list[str] = []

    def read(self, key: str) -> bytes:
        self.asked.append(key)
        if "down" in key:
            raise StoreDownError("the store does not answer")
        return super().read(key)


@pytest.fixture
def make_source(tmp_path: Path) -> Iterator[MakeSource]:
    """Of pictures by their names, in shards of so many."""
    pool = ThreadPoolExecutor(4)

    def make(names: list[str], shard_size: int) -> Source:
        pictures, output = Pictures(tmp_path / "in"), FolderStore(tmp_path / "out")
        for name in names:
            pictures.write(name, b"" if "bad" in name else picture_bytes(4, 3))
        with Listing.of(pictures, True, pictures.entries()) as listing:
            write_plan(listing, output, shard_size)
        plan = Plan(output, shard_size, len(names))
        return Source(plan, pictures, pool, BATCH, lambda shard, place: unwatched)

    yield make
    pool.shutdown(cancel_futures=True)


def numbered(count: int) -> list[str]:
    return [f"{number:03d}.png" for number in range(count)]


def asked(source: Source) -> int:
    assert isinstance(source.store, Pictures)
    return len(source.store.asked)


def test_shards_and_pictures_come_in_the_order_of_the_orders(make_source: MakeSource) -> None:
    source = make_source(["0.png", "1.png", "2bad.png", "3.png", "4.png"], 2)
    with Loader([ShardOrder(2), ShardOrder(0), ShardOrder(1)], source) as loader:
        found = [
            (
                shard.number,
                [(place, each.key, type(each).__name__) for place, each in shard.pictures],
            )
            for shard in loader.shards(Clock())
        ]
    assert found == [
        (2, [(0, "4.png", "Picture")]),
        (0, [(0, "0.png", "Picture"), (1, "1.png", "Picture")]),
        (1, [(0, "2bad.png", "Failure"), (1, "3.png", "Picture")]),
    ]


def test_pictures_done_alone_or_blamed_are_left_out(make_source: MakeSource) -> None:
    source = make_source(numbered(6), 6)
    order = ShardOrder(0, alone=(1, 4), blamed=(Blame(3, "explain", "SIGSEGV"),))
    with Loader([order], source) as loader:
        [(shard, places)] = [
            (shard, [place for place, _ in shard.pictures]) for shard in loader.shards(Clock())
        ]
    assert places == [0, 2, 5]
    assert [each.key for each in shard.entries] == numbered(6)
    message = "it ended the process twice (SIGSEGV), once with nothing else in hand"
    assert shard.blamed() == {3: Failure("003.png", "explain", "SIGSEGV", message)}
    assert asked(source) == 3


def test_a_bounded_number_is_fetched_ahead_over_shards_ends(make_source: MakeSource) -> None:
    source = make_source(numbered(100), 10)
    with Loader(map(ShardOrder, range(10)), source) as loader:
        first = next(loader.shards(Clock()))
        next(first.pictures)
        while asked(source) < AHEAD:  # one taken; one place in the queue is the next shard's
            time.sleep(0.01)
        next(first.pictures)
        while asked(source) < AHEAD + 1:
            time.sleep(0.01)
        assert asked(source) == AHEAD + 1


def test_a_store_that_is_down_ends_the_consumer(make_source: MakeSource) -> None:
    with Loader([ShardOrder(0)], make_source(["0.png", "1down.png", "2.png"], 3)) as loader:
        pictures = next(loader.shards(Clock())).pictures
        assert next(pictures)[0] == 0
        with pytest.raises(StoreDownError):
            next(pictures)


@pytest.mark.parametrize("error", [StoreDownError("no plan"), Interrupted(15)])
def test_an_error_of_the_orders_comes_where_they_end(
    error: BaseException, make_source: MakeSource
) -> None:
    def orders() -> Iterator[ShardOrder]:
        yield ShardOrder(0)
        raise error

    with Loader(orders(), make_source(numbered(2), 2)) as loader:
        shards = loader.shards(Clock())
        assert [place for place, _ in next(shards).pictures] == [0, 1]
        with pytest.raises(type(error), match=str(error)):
            next(shards)


def test_a_shard_that_is_not_planned_is_an_error(make_source: MakeSource) -> None:
    with (
        Loader([ShardOrder(7)], make_source(numbered(2), 2)) as loader,
        pytest.raises(IndexError, match="shard 7 of 1"),
    ):
        next(loader.shards(Clock()))


def test_a_loader_that_is_no_longer_wanted_ends_and_fetches_no_more(
    make_source: MakeSource,
) -> None:
    source = make_source(numbered(100), 10)
    with Loader(map(ShardOrder, range(10)), source) as loader:
        next(next(loader.shards(Clock())).pictures)
    for thread in threading.enumerate():
        if thread.name == "loader":
            thread.join()
    source.pool.shutdown(wait=True)
    assert asked(source) <= AHEAD + 1


@pytest.mark.timeout(30)
def test_it_can_be_told_to_end_also_while_there_is_no_room(make_source: MakeSource) -> None:
    source = make_source(numbered(100), 100)
    with Loader([ShardOrder(0)], source) as loader:
        shard = next(loader.shards(Clock()))
        while asked(source) < AHEAD:
            time.sleep(0.01)
        loader.end_with(StoreDownError("a commit failed"))  # by the one who takes from the queue
        with pytest.raises(StoreDownError, match="a commit failed"):
            list(shard.pictures)


@pytest.mark.timeout(30)
def test_it_can_be_told_to_end_while_no_order_comes(make_source: MakeSource) -> None:
    ended = threading.Event()

    def orders() -> Iterator[ShardOrder]:
        yield ShardOrder(0)
        ended.wait(20)

    with Loader(orders(), make_source(numbered(2), 2)) as loader:
        shards = loader.shards(Clock())
        list(next(shards).pictures)
        threading.Timer(0.1, loader.end_with, [StoreDownError("a commit failed")]).start()
        with pytest.raises(StoreDownError, match="a commit failed"):
            next(shards)
    ended.set()


def test_waiting_for_pictures_is_counted(make_source: MakeSource) -> None:
    clock = Clock()
    with Loader([ShardOrder(0)], make_source(numbered(2), 2)) as loader:
        for shard in loader.shards(clock):
            list(shard.pictures)
    told = clock.advanced(2, 0)
    assert 0 < told.loading <= told.seconds
    assert (told.pictures, told.failures, told.writing) == (2, 0, 0.0)
    assert clock.advanced(0, 0).loading == 0.0
