"""Where and how exactly a detector runs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from handlers.schema import RequestError

PRECISIONS = ("fp32", "bf16")


@contextmanager
def exact_convolutions() -> Iterator[None]:
    """float32 means float32: by default cuDNN rounds convolutions to TF32's ten bits."""
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32 = before


def device_named(name: str) -> torch.device:
    """The device of that name; raises RequestError unless it is cpu or a GPU that is here."""
    here = ["cpu"]
    if torch.cuda.is_available():
        here += ["cuda", *(f"cuda:{index}" for index in range(torch.cuda.device_count()))]
    if name not in here:
        raise RequestError("device", name, f"{', '.join(here)} (what torch has on this machine)")
    return torch.device(name)
