"""A guard against wrong gradients of batch normalisation.

On a processor torch (2.15.0) gives, without a word, a wrong gradient for `nn.BatchNorm2d`, in eval
and in train mode, and for `nn.InstanceNorm2d` where a dimension has the size one, that of the batch
or another, and what comes in or the gradient is a view in which its stride is not the usual: as in
rows of cells, `x.flatten(2).transpose(1, 2)`. So in RT-DETR and its successors every gradient
behind the decoder was noise.

Modules are guarded, whoever calls them; not `F.batch_norm` by itself, and no scripted modules,
which run no hooks.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.instancenorm import _InstanceNorm

_BATCH_OR_INSTANCE = (_BatchNorm, _InstanceNorm)


@contextmanager
def exact_normalisation(model: nn.Module) -> Iterator[None]:
    """While open, the gradients of the batch and instance normalisations of a model, or of its
    `normalisations`, are right."""
    handles = []
    try:
        for module in normalisations(model):
            handles.append(module.register_forward_pre_hook(_given, with_kwargs=True))
            handles.append(module.register_forward_hook(_gave))
        yield
    finally:
        for handle in handles:
            handle.remove()


def normalisations(model: nn.Module) -> nn.ModuleList:
    """Those of the model that are guarded, to be found once."""
    return nn.ModuleList(each for each in model.modules() if isinstance(each, _BATCH_OR_INSTANCE))


def _given(module: nn.Module, arguments: tuple[Any, ...], named: dict[str, Any]) -> Any:
    if not torch.is_grad_enabled():  # what only runs forward keeps its order, and is not copied
        return None
    return (
        tuple(_safe(module, each) for each in arguments),
        {name: _safe(module, each) for name, each in named.items()},
    )


def _gave(module: nn.Module, arguments: Any, output: Any) -> None:
    if isinstance(output, Tensor) and output.requires_grad:
        output.register_hook(lambda gradient: _safe(module, gradient))


def _safe(module: nn.Module, value: Any) -> Any:
    """A tensor that torch may take for another: a copy in the usual order."""
    if not isinstance(value, Tensor):
        return value
    # Inside, an instance normalisation makes one picture of all.
    doubtful = 1 in value.shape or isinstance(module, _InstanceNorm)
    if not doubtful or value.stride() == _usual(value.shape):
        return value
    return value.clone(memory_format=torch.contiguous_format)


def _usual(shape: Sequence[int]) -> tuple[int, ...]:
    """The strides of a tensor of its own."""
    strides = [1]
    for size in reversed(shape[1:]):
        strides.append(strides[-1] * size)
    return tuple(reversed(strides))
