from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import handlers.memory
from handlers.memory import (
    MIB,
    Batches,
    Footprint,
    free_bytes,
    measured,
    out_of_memory,
    worthwhile,
)

CPU = torch.device("cpu")
V1, V2 = "sys/fs/cgroup/memory", "sys/fs/cgroup"


@pytest.fixture(autouse=True)
def _nothing_is_ample(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(handlers.memory, "GENEROUS", 10**15)


def test_what_fits_in_any_case_is_not_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(handlers.memory, "GENEROUS", 10)
    monkeypatch.setattr(handlers.memory, "free_bytes", lambda device: 1000)
    sizes = list[int]()
    list(Batches(CPU, 4, name=None).run(doubled(sizes), range(4), 10))  # 400 bytes of 400
    assert sizes == [4]
    list(Batches(CPU, 4, name=None).run(doubled(sizes), range(4), 11))
    assert sizes[:2] == [4, 1]


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"proc/meminfo": "MemTotal: 9000 kB\nMemAvailable:    5000 kB\n"}, 5000 * 1024),
        ({"proc/meminfo": "MemTotal: 9000 kB\n"}, None),
        ({}, None),
        (
            {
                "proc/self/cgroup": "0::/jobs/one\n",
                f"{V2}/jobs/memory.max": "4000000",  # the group around it has less left
                f"{V2}/jobs/memory.current": "3000000",
                f"{V2}/jobs/one/memory.max": "max",
                f"{V2}/jobs/one/memory.current": "2000000",
            },
            1_000_000,
        ),
        (
            {  # in a container the group is the root of what is seen
                "proc/meminfo": "MemAvailable: 5000 kB",
                "proc/self/cgroup": "0::/\n",
                f"{V2}/memory.max": "3000000",
                f"{V2}/memory.current": "2500000",
                f"{V2}/memory.stat": "anon 7\ninactive_file 400000\n",
            },
            900_000,
        ),
        (
            {
                "proc/meminfo": "MemAvailable: 5000 kB",
                "proc/self/cgroup": "3:cpuset:/\n4:memory:/jobs/one\n0::/\n",
                f"{V1}/memory.limit_in_bytes": "9223372036854771712",
                f"{V1}/memory.usage_in_bytes": "123",
                f"{V1}/jobs/one/memory.limit_in_bytes": "2000000",
                f"{V1}/jobs/one/memory.usage_in_bytes": "2500000",
                f"{V1}/jobs/one/memory.stat": "total_inactive_file 600000\n",
            },
            100_000,
        ),
        (
            {
                "proc/self/cgroup": "0::/\n",
                f"{V2}/memory.max": "10",
                f"{V2}/memory.current": "20",
            },
            0,
        ),
    ],
)
def test_free_memory(files: dict[str, str], expected: int | None, tmp_path: Path) -> None:
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    assert free_bytes(CPU, tmp_path) == expected


def test_free_memory_here() -> None:
    free = free_bytes(CPU)
    assert free is None or free > 10 * MIB
    assert free_bytes(torch.device("meta")) is None


def test_what_tensors_take_by_hand() -> None:
    def run() -> Tensor:
        first = torch.zeros(1000)  # 4000 bytes
        view = first.view(10, 100)
        second = view + 1  # 8000
        del first, view  # 4000
        third = torch.cat([second, second])  # 12000
        del second
        return third.relu_().T

    found, taken = measured(run)
    assert taken == 12_000
    assert found.shape == (100, 20)
    layer = nn.Linear(50, 10)  # weights are there already
    with torch.no_grad():
        assert measured(lambda: layer(torch.zeros(2, 50)))[1] == 2 * 50 * 4 + 2 * 10 * 4


def test_a_larger_picture_takes_more() -> None:
    footprint = Footprint(1000, pixels=100)
    assert [footprint.of(pixels) for pixels in (50, 100, 250)] == [1000, 1000, 2500]


def doubled(sizes: list[int], most: int = 10**9) -> Callable[[Any], list[int]]:
    """A function that doubles numbers and notes its batches; more than `most` are too many."""

    def run(items: list[int]) -> list[int]:
        sizes.append(len(items))
        if len(items) > most:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 5 GiB")
        blocks = [torch.zeros(MIB // 4) for _ in items]  # a MiB each
        return [2 * item for item in items if blocks]

    return run


@pytest.mark.parametrize(
    ("free", "asked", "expected"),
    [
        (1000, 4, [1, 4, 4, 1]),
        (None, 4, [4, 4, 2]),
        (10, 4, [1, 4, 4, 1]),  # 0.4 x 10 MiB: four fit
        (9, 4, [1, 3, 3, 3]),
        (8, 1000, [1, 3, 3, 3]),
        (0, 1000, [1] * 10),
        (0, 1, [1] * 10),
    ],
)
def test_batches_fit(
    free: int | None, asked: int, expected: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(handlers.memory, "free_bytes", lambda _: free and free * MIB)
    sizes: list[int] = []
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        found = list(Batches(CPU, asked).run(doubled(sizes), range(10), 1))
    assert found == [2 * item for item in range(10)]
    assert sizes == expected
    cut = free is not None and max(sizes) < asked
    assert len(told) == cut
    if cut:
        text = str(told[0].message)
        assert f"batch_size: {asked} pictures at a time do not fit" in text
        assert f"about 1 MiB and {free} MiB are free" in text
        assert f"taking {max(sizes)}" in text


def test_nobody_is_told_of_a_number_that_nobody_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(handlers.memory, "free_bytes", lambda _: 0)
    sizes: list[int] = []
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        list(Batches(CPU, 4, name=None).run(doubled(sizes), torch.arange(5), 1))
    assert sizes == [1] * 5


def test_what_a_picture_takes_is_measured_once() -> None:
    footprint, sizes = Footprint(), list[int]()
    run = doubled(sizes)
    assert list(Batches(CPU, 4, footprint).run(run, [7], 1)) == [14]
    assert footprint.taken == 0  # a single one needs no measure
    list(Batches(CPU, 4, footprint).run(run, range(6), 100))
    list(Batches(CPU, 4, footprint).run(run, range(6), 50))
    assert sizes == [1, 1, 4, 1, 4, 2]
    assert (footprint.taken, footprint.pixels) == (MIB, 100)


@pytest.mark.filterwarnings("error")
def test_half_the_batch_after_running_out_of_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(handlers.memory, "free_bytes", lambda _: None)
    sizes: list[int] = []
    batches = Batches(CPU, 8, Footprint(1))
    with pytest.warns(UserWarning, match="out of memory") as told:
        found = list(batches.run(doubled(sizes, most=3), range(10), 1))
    assert found == [2 * item for item in range(10)]
    assert sizes == [8, 4, 2, 2, 2, 2, 2]
    assert [str(each.message) for each in told] == [
        "out of memory with 8 pictures at a time; trying 4",
        "out of memory with 4 pictures at a time; trying 2",
    ]
    assert list(batches.run(doubled(sizes, most=3), range(4), 1)) == [0, 2, 4, 6]  # not again
    assert sizes[7:] == [2, 2]


@pytest.mark.parametrize(
    ("error", "known"),
    [
        (torch.OutOfMemoryError("CUDA out of memory"), True),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: 9e12"), True),
        (RuntimeError("sizes do not match"), False),
    ],
)
def test_other_errors_and_one_picture_that_is_too_large_raise(
    error: RuntimeError, known: bool
) -> None:
    def run(items: list[int]) -> list[int]:
        raise error

    assert out_of_memory(error) == known
    with pytest.raises(RuntimeError, match=str(error)[:12].replace("[", r"\[")):
        list(Batches(CPU, 1, Footprint(1)).run(run, [1, 2], 1))
    if not known:
        with pytest.raises(RuntimeError, match="sizes"):
            list(Batches(CPU, 2, Footprint(1)).run(run, [1, 2], 1))


def test_the_cpu_says_so_when_it_runs_out() -> None:
    with pytest.raises(RuntimeError) as error:
        torch.empty(2**50)
    assert out_of_memory(error.value)


@pytest.mark.parametrize(
    ("device", "pixels", "number"),
    [
        *(("cpu", 1, 8), ("cpu", 320 * 320, 8), ("cpu", 320 * 427, 7), ("cpu", 600 * 800, 2)),
        *(("cpu", 800 * 1066, 1), ("cpu", 10**8, 1), ("cuda", 800 * 1066, 8)),
    ],
)
def test_a_processor_takes_large_pictures_one_by_one(device: str, pixels: int, number: int) -> None:
    assert worthwhile(torch.device(device), 8, pixels) == number
