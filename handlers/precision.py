"""Where and how exactly a detector runs."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache, partial
from pathlib import Path
from threading import RLock
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import MultiScaleRoIAlign

from handlers.detectors.roi_align import pooled
from handlers.fields import RequestError
from handlers.memory import out_of_memory

PRECISIONS = ("fp32", "bf16", "fast")
# Processor flags that mean units for bfloat16 products.
BFLOAT16_FLAGS = ("amx_bf16", "avx512_bf16")
# Weights of a layer that is worth it: the first of a box head, a convolution of 256 channels.
LARGE = 2**19
# Where torchvision's two-stage detectors have theirs.
HEADS = ("rpn", "roi_heads")


@contextmanager
def exact_float32() -> Iterator[None]:
    """float32 means float32: by default cuDNN rounds convolutions to TF32's ten bits, and a program
    around this one may have allowed the same, or bfloat16, for matrix products, or have turned
    autocast on."""
    backends: Any = torch.backends
    mkldnn = backends.mkldnn
    kinds = [backends.cuda.matmul, backends.cudnn.conv, mkldnn.matmul, mkldnn.conv]
    before = [kind.fp32_precision for kind in kinds]
    autocast = [name for name in ("cpu", "cuda") if torch.is_autocast_enabled(name)]
    for kind in kinds:
        kind.fp32_precision = "ieee"
    for name in autocast:
        torch.set_autocast_enabled(name, False)
    try:
        yield
    finally:
        for name in autocast:
            torch.set_autocast_enabled(name, True)
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


def is_depthwise(model: nn.Module) -> bool:
    """Whether the network's backbone has convolutions of one channel each, as MobileNet's: they are
    no matrix products, so that a processor's units for bfloat16 leave them as slow as they are."""
    backbone = getattr(model, "backbone", model)
    return any(
        isinstance(each, nn.Conv2d) and each.groups == each.in_channels > 1
        for each in backbone.modules()
    )


class Replaced:
    """Modules that run another function for a while. Threads take turns."""

    def __init__(self, functions: Mapping[nn.Module, Callable[..., Any]]) -> None:
        self._functions = functions
        self._turn = RLock()

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Meanwhile they run it, but for one that somebody has wrapped."""
        with self._turn:
            own = [each for each in self._functions if "forward" not in vars(each)]
            for each in own:
                vars(each)["forward"] = self._functions[each]
            try:
                yield
            finally:
                for each in own:
                    if vars(each).get("forward") is self._functions[each]:
                        del vars(each)["forward"]


class HalvedProduct:
    """A layer, fully connected or a convolution, whose products are in bfloat16: inputs and weights
    are rounded, what comes out is float32 again. Where gradients are asked for it is the layer.

    The rounded weights are kept until the layer's own change, in place (but not by way of `.data`,
    which leaves no trace) or for others.
    """

    def __init__(self, layer: nn.Linear | nn.Conv2d) -> None:
        self._layer = layer
        self._source: Tensor | None = None
        self._version = -1

    def __call__(self, inputs: Tensor) -> Tensor:
        layer: Any = self._layer
        if torch.is_grad_enabled():
            own: Tensor = type(layer).forward(layer, inputs)
            return own
        source: Tensor = layer.weight
        if source is not self._source or source._version != self._version:
            self._source, self._version = source, source._version
            self._weight = source.detach().bfloat16()
        if isinstance(layer, nn.Linear):
            product: Tensor = F.linear(inputs.bfloat16(), self._weight).float()
            return product if layer.bias is None else product.add_(layer.bias)
        product = layer._conv_forward(inputs.bfloat16(), self._weight, None).float()
        return product if layer.bias is None else product.add_(layer.bias[:, None, None])


def halved_products(model: nn.Module) -> dict[nn.Module, Callable[..., Any]]:
    """The large layers of a two-stage network's heads as HalvedProduct. Those of dense heads stay:
    what explains them compares windows of maps with all of them, to a thousandth."""
    heads = [getattr(model, name) for name in HEADS if hasattr(model, name)]
    return {
        each: HalvedProduct(each)
        for head in heads
        for each in head.modules()
        if isinstance(each, (nn.Linear, nn.Conv2d)) and type(each) in (nn.Linear, nn.Conv2d)
        if "weight" in each._parameters and each.weight.numel() >= LARGE
    }


def quick_pools(model: nn.Module) -> dict[nn.Module, Callable[..., Any]]:
    """RoIAlign by `handlers.detectors.roi_align.pooled`, which equals torchvision's to rounding."""
    pools = [each for each in model.modules() if type(each) is MultiScaleRoIAlign]
    return {each: partial(pooled, each) for each in pools}


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


def order_weights(model: nn.Module, order: torch.memory_format) -> None:
    """Lays the weights of convolutions in that order; their values stay."""
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            module.weight.data = module.weight.data.contiguous(memory_format=order)
