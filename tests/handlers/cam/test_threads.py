from __future__ import annotations

import threading
from collections.abc import Iterator
from contextvars import ContextVar
from typing import Any

import pytest
import torch
from torch import Tensor

from handlers.cam import threads
from handlers.cam.pooled import PooledGradient
from handlers.cam.registry import METHODS
from handlers.cam.threads import SMALL, TOGETHER, in_threads, one_thread_if_small


@pytest.fixture(autouse=True)
def two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)
    threads._openmp.cache_clear()


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


def test_a_new_thread_has_one_for_its_first_operation() -> None:
    found = []

    def look() -> None:
        with one_thread_if_small(torch.empty(1)):
            torch.ones(2) + 1
            found.append(torch.get_num_threads())

    thread = threading.Thread(target=look)
    thread.start()
    thread.join()
    assert found == [1]


@pytest.mark.skipif(not torch.backends.mkl.is_available(), reason="torch is built without MKL")
def test_mkl_has_one_where_a_program_chose_a_number() -> None:
    mkl = threads._mkl()
    assert mkl is not None
    with one_thread_if_small(torch.empty(1)):
        assert mkl(1) == 1
    assert mkl(2) == 2


def test_without_mkl_torch_has_one_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "_mkl", lambda: None)
    with one_thread_if_small(torch.empty(1)):
        assert torch.get_num_threads() == 1
    assert torch.get_num_threads() == 2


@pytest.mark.parametrize("number", [0, 1, 2, 7])
def test_what_runs_side_by_side_comes_in_order(number: int) -> None:
    """The large in the calling thread, with all that torch has; the others with one."""

    def work(item: int) -> tuple[int, int]:
        assert item != 3 or threading.current_thread() is threading.main_thread()
        return item, torch.get_num_threads()

    items = range(number)
    found = list(in_threads(work, items, [SMALL + 1 if item == 3 else 1 for item in items]))
    assert found == [(item, 2 if item == 3 else 1) for item in items]


def test_so_many_floats_at_a_time() -> None:
    runs = threads._runs([TOGETHER, 1, 1, SMALL, 9, SMALL + 1, 1])
    assert list(runs) == [[0], [1, 2, 3, 4], [5], [6]]


def test_two_run_at_once_in_the_modes_of_who_asked() -> None:
    both = threading.Barrier(2, timeout=20)
    asks: ContextVar[int] = ContextVar("asks")

    def work(item: int) -> tuple[bool, bool, int]:
        both.wait()
        return torch.is_inference_mode_enabled(), torch.is_grad_enabled(), asks.get()

    for who, modes in enumerate([(True, False), (False, False), (False, True)]):
        asks.set(who)
        with torch.inference_mode(modes[0]), torch.set_grad_enabled(modes[1]):
            assert list(in_threads(work, [0, 1], [1, 1])) == 2 * [(*modes, who)]


def test_what_is_raised_there_is_raised_here_and_ends_the_rest() -> None:
    before = set(threading.enumerate())
    both = threading.Barrier(2, timeout=20)
    done = []

    def work(item: int) -> None:
        both.wait()
        if threading.current_thread() is not threading.main_thread():
            raise ZeroDivisionError
        for other in set(threading.enumerate()) - before:
            other.join(20)
        done.append(item)

    with pytest.raises(ZeroDivisionError):
        list(in_threads(work, [0, 1, 2, 3], [1, 1, 1, 1]))
    assert len(done) == 1
    assert set(threading.enumerate()) <= before


@pytest.mark.parametrize("reason", ["one thread", "no threadpoolctl"])
def test_one_after_the_other(reason: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if reason == "one thread":
        torch.set_num_threads(1)
    else:
        monkeypatch.setattr(threads, "_openmp", lambda: None)
    found = in_threads(lambda item: threading.current_thread(), [1, 2], [1, 1])
    assert set(found) == {threading.main_thread()}


def test_without_threadpoolctl_threads_stay_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    threads._openmp.cache_clear()
    monkeypatch.setattr(threads, "find_spec", lambda name: None)
    with one_thread_if_small(torch.empty(1)):
        assert torch.get_num_threads() == 2


@pytest.mark.parametrize("method", ["odam", "gradcam++", "ssgradcam", "gcame", "eigengradcam"])
def test_the_maps_of_a_small_footprint_take_one(
    method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever makes a large tensor for each box. The maps equal those with all of torch's."""
    torch.manual_seed(0)
    rows, columns = torch.rand(5, 7, 12), torch.rand(5, 7, 16)
    pooled, gradient = torch.randn(2, 5, 64, 7, 7)
    evidence = PooledGradient(torch.randn(64, 12, 16), pooled, gradient, rows, columns)
    function = METHODS.get(method)
    assert function is not None
    with monkeypatch.context() as without:
        without.setattr(threads, "_openmp", lambda: None)
        one_by_one = function(evidence)
    numbers = []
    multiply = Tensor.__mul__

    def noted(one: Tensor, other: Any) -> Tensor:
        found: Tensor = multiply(one, other)
        if found.numel() >= 64 * 12 * 16:
            numbers.append(torch.get_num_threads())
        return found

    monkeypatch.setattr(Tensor, "__mul__", noted)
    torch.testing.assert_close(function(evidence), one_by_one, rtol=1e-5, atol=1e-5)
    assert set(numbers) == {1}
