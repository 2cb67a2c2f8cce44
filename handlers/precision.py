"""Where and how exactly a detector runs."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from threading import RLock
from typing import Any

import torch
from torch import Tensor, nn

from handlers.fields import RequestError
from handlers.memory import out_of_memory

PRECISIONS = ("fp32", "bf16", "fast")
# Processor flags that mean units for bfloat16 products.
BFLOAT16_FLAGS = ("amx_bf16", "avx512_bf16")


@contextmanager
def exact_float32() -> Iterator[None]:
    """float32 means float32: by default cuDNN rounds convolutions to TF32's ten bits, and a program
    around this one may have allowed the same, or bfloat16, for matrix products."""
    backends: Any = torch.backends
    mkldnn = backends.mkldnn
    kinds = [backends.cuda.matmul, backends.cudnn.conv, mkldnn.matmul, mkldnn.conv]
    before = [kind.fp32_precision for kind in kinds]
    for kind in kinds:
        kind.fp32_precision = "ieee"
    try:
        yield
    finally:
        for kind, precision in zip(kinds, before, strict=True):
            kind.fp32_precision = precision


def device_named(name: str) -> torch.device:
    """The device of that name; raises RequestError unless it is cpu or a GPU that is here."""
    here = ["cpu"]
    if torch.cuda.is_available():
        here += ["cuda", *(f"cuda:{index}" for index in range(torch.cuda.device_count()))]
    if name not in here:
        raise RequestError("device", name, f"{', '.join(here)} (what torch has on this machine)")
    return torch.device(name)


@cache
def has_bfloat16_units(device: torch.device, processor: Path = Path("/proc/cpuinfo")) -> bool:
    """bfloat16 is faster than float32 there: a GPU since Ampere, a processor with AMX or AVX-512
    BF16 (by the flags in `processor`; elsewhere it is taken to have none)."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    flags = processor.read_text().split() if processor.exists() else []
    return any(flag in flags for flag in BFLOAT16_FLAGS)


class CompiledBackbone:
    """A network's backbone compiled by torch.compile where detection runs it, and only there: what
    is differentiated or tapped runs module by module.

    Compiled at the first pictures, and again at their second padded size, which takes up to a
    minute each; sizes that follow run at once. Where it cannot be compiled (torch.compile needs a
    C++ compiler on a CPU) it runs as it is, and a warning says so. Threads take turns.
    """

    def __init__(self, model: nn.Module) -> None:
        backbone = getattr(model, "backbone", None)
        self.backbone = backbone if isinstance(backbone, nn.Module) else None
        self._turn = RLock()
        self._compiled: Callable[..., Any] | None = None
        if self.backbone is not None:
            self._own = self.backbone.forward
            self._compiled = torch.compile(self._own)

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Meanwhile the compiled backbone runs instead of the model's own."""
        if self.backbone is None or self._compiled is None:
            yield
            return
        attributes = vars(self.backbone)
        with self._turn:
            before = attributes.get("forward")  # where somebody has wrapped it
            attributes["forward"] = self._run
            try:
                yield
            finally:
                del attributes["forward"]
                if before is not None:
                    attributes["forward"] = before

    def _run(self, tensors: Tensor) -> Any:
        if self._compiled is not None:
            try:
                return self._compiled(tensors)
            except Exception as error:
                if out_of_memory(error):
                    raise
                # Whatever a compiler stumbles over: the network itself meets its own errors below.
                warnings.warn(
                    "the backbone runs uncompiled, since torch.compile failed:"
                    f" {type(error).__name__}: {str(error).splitlines()[0][:200]}",
                    stacklevel=2,
                )
                self._compiled = None
        return self._own(tensors)


def order_channels_last(model: nn.Module) -> None:
    """Lays the weights of convolutions in the order of channels_last; their values stay."""
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            module.weight.data = module.weight.data.contiguous(memory_format=torch.channels_last)
