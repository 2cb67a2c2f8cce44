"""Small operations in one thread: to wake another takes longer than it saves.

On a box's 100,000 floats an operation of two threads took 50 to 100 us where those that wait sleep
(OMP_WAIT_POLICY=passive, as for servers and jobs that share cores), one thread's 15.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from functools import cache
from importlib.util import find_spec
from typing import Any

from torch import Tensor

# Up to so many floats, 2 MiB of float32.
SMALL = 2**19


def one_thread_if_small(values: Tensor) -> AbstractContextManager[object]:
    """For what is done with values of this size on a processor: a `with` in which OpenMP, and so
    torch, has the calling thread alone. torch.set_num_threads would count for threads that start
    meanwhile as well, for ever; where a program has called it, MKL's products of matrices keep its
    number."""
    if values.device.type != "cpu" or values.numel() > SMALL:
        return nullcontext()
    openmp = _openmp()
    limited: AbstractContextManager[object] = openmp.limit(limits=1) if openmp else nullcontext()
    return limited


@cache
def _openmp() -> Any:
    """None on a server that was set up before Whybox needed threadpoolctl: maps are the same
    without."""
    if find_spec("threadpoolctl") is None:
        return None
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController().select(user_api="openmp")
