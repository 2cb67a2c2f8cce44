"""What the works share that run pytorch-grad-cam."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor


def before_stretching(cam: Any) -> list[Tensor]:
    """Filled, call by call of `cam`, with its maps [B, h, w] on the layer's own grid, before they
    are stretched over the picture."""
    native: list[Tensor] = []
    own = cam.get_cam_image

    def kept(*arguments: Any) -> Any:
        found = own(*arguments)
        native.append(torch.from_numpy(np.float32(found)))
        return found

    cam.get_cam_image = kept
    return native
