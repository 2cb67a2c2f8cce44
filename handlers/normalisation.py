"""A guard against wrong gradients of batch normalisation.

On a processor torch (2.15.0) gives, without a word, a wrong gradient for `nn.BatchNorm2d` in eval
and in train mode, and for `nn.InstanceNorm2d`, where a batch of one picture or its gradient is a
view of rows of cells, as from `x.flatten(2).transpose(1, 2)`: its first stride, that of a dimension
of size one, is not the size of the whole. So in RT-DETR and its successors every gradient behind
the decoder was noise.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.instancenorm import _InstanceNorm


@contextmanager
def exact_normalisation(model: nn.Module) -> Iterator[None]:
    """While open, the gradients of the model's batch and instance normalisations are right."""
    handles = []
    for module in model.modules():
        if isinstance(module, _BatchNorm | _InstanceNorm):
            handles.append(module.register_forward_pre_hook(_given))
            handles.append(module.register_forward_hook(_gave))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _given(module: nn.Module, arguments: tuple[Tensor, ...]) -> tuple[Tensor, ...] | None:
    (values,) = arguments
    return (_copied(values),) if values.requires_grad and _is_view(values) else None


def _gave(module: nn.Module, arguments: Any, output: Tensor) -> None:
    if output.requires_grad:
        output.register_hook(lambda gradient: _copied(gradient) if _is_view(gradient) else None)


def _is_view(values: Tensor) -> bool:
    """Of one picture, with other strides than those of a tensor of its own."""
    one = len(values) == 1
    return one and values.stride(0) != values.numel()


def _copied(values: Tensor) -> Tensor:
    return values.clone(memory_format=torch.contiguous_format)
