"""What of a processor's threads boxes get: one for each box, several boxes side by side.

On a box's 100,000 floats an operation of two threads took 50 to 100 us where those that wait sleep
(OMP_WAIT_POLICY=passive, as for servers and jobs that share cores), one thread's 15: to wake
another takes longer than it saves. Two boxes side by side took a quarter less time there; where
threads wait awake it made no difference.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import copy_context
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from threading import Thread
from typing import Any, TypeVar

import torch
from torch import Tensor

# Up to so many floats, 2 MiB of float32.
SMALL = 2**19
# So many floats at a time, side by side.
TOGETHER = 4 * SMALL
# Threads side by side: their operations are short, and Python starts one at a time.
MOST = 4

Item = TypeVar("Item")
Result = TypeVar("Result")


def one_thread_if_small(values: Tensor) -> AbstractContextManager[object]:
    """For what is done with values of this size on a processor: a `with` in which OpenMP, and so
    torch, has the calling thread alone."""
    small = values.device.type == "cpu" and values.numel() <= SMALL
    return _one_thread() if small and _openmp() is not None else nullcontext()


def in_threads(
    work: Callable[[Item], Result], items: Sequence[Item], floats: Sequence[int]
) -> Iterator[Result]:
    """work(item) of each item, for work on a processor, in their order; some at a time, as their
    results are asked for.

    floats: how many each is about. Those of at most SMALL run side by side in as many threads
    as torch has here, at most MOST, each with one; the others alone. Without
    threadpoolctl all run one after the other. What `work` raises is raised here.
    """
    threads = min(torch.get_num_threads(), MOST)
    if threads == 1 or _openmp() is None:
        yield from map(work, items)
        return
    for run in _runs(floats):
        if len(run) > 1:
            yield from _side_by_side(work, [items[place] for place in run], threads)
        else:
            with _one_thread() if floats[run[0]] <= SMALL else nullcontext():
                alone = work(items[run[0]])
            yield alone


def _runs(floats: Sequence[int]) -> Iterator[list[int]]:
    """Places that follow each other, as many as TOGETHER has room for, or one."""
    run: list[int] = []
    total = 0
    for place, number in enumerate(floats):
        own = number if number <= SMALL else TOGETHER + 1  # the large alone
        if run and total + own > TOGETHER:
            yield run
            run, total = [], 0
        run.append(place)
        total += own
    if run:
        yield run


def _side_by_side(work: Callable[[Item], Result], items: list[Item], threads: int) -> list[Result]:
    found: dict[int, Result] = {}
    raised: list[BaseException] = []
    left = iter(range(len(items)))
    inference, gradients = torch.is_inference_mode_enabled(), torch.is_grad_enabled()

    def run() -> None:
        try:  # both modes are a thread's own
            with torch.inference_mode(inference), torch.set_grad_enabled(gradients), _one_thread():
                for place in left:
                    if raised:
                        break
                    found[place] = work(items[place])
        except BaseException as error:
            raised.append(error)

    # Not those of concurrent.futures, which takes nothing more once the program's end has begun.
    others: list[Thread] = []
    try:
        for _ in range(min(threads, len(items)) - 1):
            other = Thread(target=copy_context().run, args=(run,))
            other.start()
            others.append(other)
        run()
    finally:
        for each in others:
            each.join()
    if raised:
        raise raised.pop(0)  # which nothing here holds then, or its tensors would stay
    return [found[place] for place in range(len(items))]


@contextmanager
def _one_thread() -> Iterator[None]:
    """torch.set_num_threads would count for threads that start meanwhile as well, for ever. Where a
    program has called it, MKL goes by its number rather than OpenMP's, and is told apart."""
    if torch.get_num_threads() == 1:  # asking sets a new thread's numbers, which would undo these
        yield
        return
    mkl = _mkl()
    before = mkl(1) if mkl else 0
    try:
        with _openmp().limit(limits=1):
            yield
    finally:
        if mkl:
            mkl(before)


@cache
def _mkl() -> Callable[[int], int] | None:
    """Sets how many threads MKL takes for the calling thread, 0 for as many as OpenMP, and returns
    what was set before; None where torch is built without it."""
    folder = Path(torch.__file__).parent / "lib"
    for name in ("libtorch_cpu.so", "libtorch_cpu.dylib", "torch_cpu.dll"):
        if (folder / name).is_file():
            library = ctypes.CDLL(str(folder / name))
            return getattr(library, "MKL_Set_Num_Threads_Local", None)
    return None


@cache
def _openmp() -> Any:
    """None on a server that was set up before Whybox needed threadpoolctl: maps are the same
    without."""
    if find_spec("threadpoolctl") is None:
        return None
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController().select(user_api="openmp")
