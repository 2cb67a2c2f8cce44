from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
import torch

from handlers.cam import one_thread
from handlers.cam.one_thread import SMALL, one_thread_if_small


@pytest.fixture(autouse=True)
def two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize(("floats", "threads"), [(1, 1), (SMALL, 1), (SMALL + 1, 2)])
def test_what_is_small_has_one_thread(floats: int, threads: int) -> None:
    with one_thread_if_small(torch.empty(floats)):
        assert torch.get_num_threads() == threads
    assert torch.get_num_threads() == 2


def test_what_is_elsewhere_or_raises_changes_nothing() -> None:
    with one_thread_if_small(torch.empty(1, device="meta")):
        assert torch.get_num_threads() == 2
    with pytest.raises(ZeroDivisionError), one_thread_if_small(torch.empty(1)):
        _ = 1 / 0
    assert torch.get_num_threads() == 2


def test_a_thread_that_starts_meanwhile_keeps_its_own() -> None:
    found = []

    def look() -> None:
        torch.ones(2) + 1
        found.append(torch.get_num_threads())

    with one_thread_if_small(torch.empty(1)):
        thread = threading.Thread(target=look)
        thread.start()
        thread.join()
    assert found == [2]


def test_without_threadpoolctl_threads_stay_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    one_thread._openmp.cache_clear()
    monkeypatch.setattr(one_thread, "find_spec", lambda name: None)
    with one_thread_if_small(torch.empty(1)):
        assert torch.get_num_threads() == 2
    one_thread._openmp.cache_clear()
