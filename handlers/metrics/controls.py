"""Two maps that explain nothing, to hold a method's figures against: what one must beat."""

from __future__ import annotations

import torch
from torch import Tensor

from handlers.smoothing import bell, gaussian_blur

# The Gaussian's standard deviation along each side of the box, as a share of that side: half of
# half a side. 0.95^2 = 0.91 of it then lies in the box.
GAUSSIAN_SHARE = 0.25
# The smooth field's standard deviation, as a share of the picture's longer side.
FIELD_SHARE = 0.05


def gaussian_in_box(
    box: tuple[float, float, float, float],
    height: int,
    width: int,
    share: float = GAUSSIAN_SHARE,
) -> Tensor:
    """A Gaussian at the middle of the box, which knows the box and nothing else: float32
    [height, width], 0 ... 1, at the pixels' middles.

    box: x1, y1, x2, y2 in picture pixels. share: the standard deviation over the box's side.
    """
    x1, y1, x2, y2 = box
    # A box without an area has its whole bell at its middle's nearest pixel.
    down, across = (max(share * side, 1e-3) for side in (y2 - y1, x2 - x1))
    rows = bell(torch.arange(height) + 0.5, (y1 + y2) / 2, down)
    columns = bell(torch.arange(width) + 0.5, (x1 + x2) / 2, across)
    return torch.outer(rows, columns).float()


def smooth_random_field(height: int, width: int, seed: int, share: float = FIELD_SHARE) -> Tensor:
    """Normal noise blurred by a Gaussian, which knows nothing: float32 [height, width], 0 ... 1,
    its least value 0 and its largest 1.

    seed: the same gives the same field. share: the blur's standard deviation over the longer side.
    """
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(1, height, width, generator=generator)
    field = gaussian_blur(noise, share * max(height, width))[0]
    field = field - field.min()
    largest = field.max()
    return field / largest if largest > 0 else field
