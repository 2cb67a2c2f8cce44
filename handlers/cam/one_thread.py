"""Small operations in one thread: to wake another takes longer than it saves.

On a box's 100,000 floats an operation of two threads took 50 to 100 us where those that wait sleep
(OMP_WAIT_POLICY=passive, as for servers and jobs that share cores), one thread's 15.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

# Up to so many floats, 2 MiB of float32.
SMALL = 2**19


def one_thread_if_small(values: Tensor) -> AbstractContextManager[object]:
    """For what is done with values of this size on a processor: a `with` in which OpenMP, and so
    torch, has the calling thread alone."""
    small = values.device.type == "cpu" and values.numel() <= SMALL
    return _one_thread() if small and _openmp() is not None else nullcontext()


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
    for library in (Path(torch.__file__).parent / "lib").glob("*torch_cpu.*"):
        with suppress(OSError):  # a file that is no library
            return getattr(ctypes.CDLL(str(library)), "MKL_Set_Num_Threads_Local", None)
    return None


@cache
def _openmp() -> Any:
    """None on a server that was set up before Whybox needed threadpoolctl: maps are the same
    without."""
    if find_spec("threadpoolctl") is None:
        return None
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController().select(user_api="openmp")
