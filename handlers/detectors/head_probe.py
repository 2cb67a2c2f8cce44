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
def reaches_of(run: RunHead, maps: Sequence[Tensor], before: Heads) -> list[int | None]:
    """For each level how many cells around its own an output was seen to depend on, None if on too
    many: by changing the middle cell of every map, and looking where `before` changes."""
    sizes = [(each.shape[-2], each.shape[-1]) for each in maps]
    far = [-1 for _ in maps]
    for factor in (-1.0, 3.0):  # what a rectifier hides of the one it shows of the other
        changed = [each.clone() for each in maps]
        for each, (height, width) in zip(changed, sizes, strict=True):
            each[..., height // 2, width // 2] *= factor
        for level, after in enumerate(run(changed)):
            height, width = sizes[level]
            places = _changed(before[level], after, height, width)
            if len(places):
                middle = torch.tensor([height // 2, width // 2]).to(places)
                far[level] = max(far[level], int((places - middle).abs().max()))
    # As far as the edge: it may go on beyond the map.
    return [
        own if 0 <= own < min((height - 1) // 2, (width - 1) // 2) else None
        for own, (height, width) in zip(far, sizes, strict=True)
    ]


def _changed(
    before: Mapping[str, Tensor], after: Mapping[str, Tensor], height: int, width: int
) -> Tensor:
    """[n, 2]: rows and columns of the cells whose outputs differ."""
    wrong = torch.zeros(height * width, dtype=torch.bool, device=next(iter(before.values())).device)
    for name, each in before.items():
        differ = (after[name] - each).abs() > 1e-5 * float(each.abs().max())
        wrong |= differ.any(0).reshape(height * width, -1).any(1)
    return wrong.view(height, width).nonzero()


def why_no_backbone_gradient(maps: Sequence[Tensor], scripted: bool) -> str:
    """Why feature maps, made of an input with a gradient, have none; "" if they have."""
    if any(each.requires_grad for each in maps):
        return ""
    where = "TorchScript's graph" if scripted else "its forward"
    return (
        "the network computes its feature maps without a gradient (torch.no_grad() or"
        f" inference_mode()): take that out of {where}. At its head everything works"
    )


@torch.enable_grad()
def why_no_gradient(run: RunHead, maps: Sequence[Tensor], scripted: bool) -> dict[str, str]:
    """By the name of a group of the head's outputs: why it has no gradient, and what to change."""
    found = {}
    leaves = [each.detach().requires_grad_() for each in maps]
    heads = run(leaves)
    for name in heads[0]:
        if all(bool((each[name] == each[name].flatten()[0]).all()) for each in heads):
            found[name] = f"the network's {name} are the same whatever it sees"
            continue
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
    # Corners, edges, the middle, and cells beside them: a head may treat every other one alike.
    rows = sorted({0, 1, height // 2, height // 2 + 1, height - 2, height - 1})
    columns = sorted({0, 1, width // 2, width // 2 + 1, width - 2, width - 1})
    cells = [(row, column) for row in rows for column in columns]
    padded = F.pad(maps, (reach,) * 4)
    inside = F.pad(torch.ones_like(maps[:, :1]), (reach,) * 4)
    cut = [(..., slice(row, row + side), slice(column, column + side)) for row, column in cells]
    windows = torch.cat([padded[each] for each in cut])
    try:
        with masked(convolutions, torch.cat([inside[each] for each in cut])):
            heads = run(windows)
    except Exception:
        return False  # it takes no maps of this size, whatever its code raises then
    for name, own in heads.items():
        here = own.reshape(len(cells), side, side, -1)[:, reach, reach]
        there = whole[name].reshape(height, width, -1)
        there = torch.stack([there[cell] for cell in cells])
        if not torch.allclose(here, there, rtol=1e-4, atol=1e-4 * float(there.abs().max())):
            return False
    return True
