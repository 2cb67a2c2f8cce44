"""What a head that we did not write does with its maps, found out by running it: how far it looks,
and whether its outputs have a gradient."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from handlers.tap import masked

Heads = Sequence[Mapping[str, Tensor]]
# The head's numbers on each level, [B, h * w * A, *], of all its maps.
RunHead = Callable[[Sequence[Tensor]], Heads]


@torch.no_grad()
def reach_of(run: RunHead, maps: Sequence[Tensor], level: int) -> int | None:
    """How many cells around its own an output on `level` depends on, None if on too many, or on
    other levels' maps.

    Not-a-number in one cell comes out wherever that cell is read, whatever its weight is.
    """
    height, width = maps[level].shape[-2:]
    middle = (height // 2, width // 2)
    spoiled = [each.clone() for each in maps]
    spoiled[level][..., middle[0], middle[1]] = torch.nan
    places = _spoiled(run(spoiled), level, height, width)
    if not len(places):
        return None
    far = int((places - torch.tensor(middle).to(places)).abs().max())
    edge = min(middle[0], middle[1], height - 1 - middle[0], width - 1 - middle[1])
    if far >= edge:  # it may go on beyond the map
        return None
    others = [torch.full_like(each, torch.nan) for each in maps]
    others[level] = maps[level]
    if len(_spoiled(run(others), level, height, width)):
        return None
    return far


def _spoiled(heads: Heads, level: int, height: int, width: int) -> Tensor:
    """[n, 2]: rows and columns of the cells of a level with outputs that are not numbers."""
    wrong = torch.zeros(height * width, dtype=torch.bool, device=_first(heads).device)
    for each in heads[level].values():
        wrong |= each.isnan().any(0).reshape(height * width, -1).any(1)
    return wrong.view(height, width).nonzero()


def _first(heads: Heads) -> Tensor:
    return next(iter(heads[0].values()))


@torch.enable_grad()
def why_no_gradient(run: RunHead, maps: Sequence[Tensor], scripted: bool) -> dict[str, str]:
    """By the name of a group of the head's outputs: why it has no gradient, and what to change."""
    found = {}
    leaves = [each.detach().requires_grad_() for each in maps]
    heads = run(leaves)
    for name in heads[0]:
        value = torch.stack([each[name].sum() for each in heads]).sum()
        gradients: Sequence[Tensor | None] = []
        try:
            if value.requires_grad:
                gradients = torch.autograd.grad(value, leaves, retain_graph=True, allow_unused=True)
        except RuntimeError as error:
            if "inplace" not in str(error):
                raise
            found[name] = (
                f"the network edits its {name} in place, so that their gradient is lost: write"
                " torch.cat or torch.stack of new values instead of assigning to slices, or clone()"
                f" before (torch says: {str(error).splitlines()[0][:120]})"
            )
            continue
        # Joined with others that have one, numbers without a gradient have zeros.
        if not any(each is not None and bool(each.any()) for each in gradients):
            found[name] = (
                f"the {name} in the TorchScript module's graph have no gradient with respect to its"
                " feature maps: script or trace it without torch.no_grad(), detach() and freezing"
                if scripted
                else f"the network computes its {name} under torch.no_grad(), or detaches them:"
                " take that out of the head's forward, or name a head (and layout) before it"
            )
    return found


def looks_beyond_cell(head: nn.Module | None) -> list[nn.Module]:
    """The head's convolutions that look beyond their own cell."""
    every = head.modules() if head is not None else ()
    modules = [each for each in every if isinstance(each, nn.Conv2d)]
    return [each for each in modules if each.kernel_size != (1, 1)]


@torch.no_grad()
def windows_agree(
    run: Callable[[Tensor], Mapping[str, Tensor]],
    whole: Mapping[str, Tensor],
    maps: Tensor,
    reach: int,
    convolutions: Sequence[nn.Module],
) -> bool:
    """The head gives on windows of a map, also at its edges, what it gives on all of it.

    run: the head on windows [n, C, s, s]. whole: on maps [1, C, h, w].
    """
    height, width = maps.shape[-2:]
    side = 2 * reach + 1
    cells = [(0, 0), (height // 2, 0), (height - 1, width - 1), (height // 2, width // 2)]
    padded = F.pad(maps, (reach,) * 4)
    inside = F.pad(torch.ones_like(maps[:, :1]), (reach,) * 4)
    cut = [(..., slice(row, row + side), slice(column, column + side)) for row, column in cells]
    windows = torch.cat([padded[each] for each in cut])
    with masked(convolutions, torch.cat([inside[each] for each in cut])):
        heads = run(windows)
    for name, own in heads.items():
        here = own.reshape(len(cells), side, side, -1)[:, reach, reach]
        there = whole[name].reshape(height, width, -1)
        there = torch.stack([there[cell] for cell in cells])
        if not torch.allclose(here, there, rtol=1e-4, atol=1e-4 * float(there.abs().max())):
            return False
    return True
