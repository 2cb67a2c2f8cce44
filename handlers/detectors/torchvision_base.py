"""What torchvision's detectors share: the transform, the backbone's maps, heads' reach."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.ops.misc import FrozenBatchNorm2d

from handlers.detectors.base import Features, Inputs
from handlers.detectors.selection import SuppressingDetector
from handlers.images import Geometry, PictureError
from handlers.tap import undisturbed

# Modules whose output at a cell depends on that cell alone (in eval mode).
POINTWISE = (
    *(nn.BatchNorm2d, FrozenBatchNorm2d, nn.Identity, nn.Dropout),
    *(nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.SiLU, nn.GELU, nn.Hardswish, nn.Hardsigmoid, nn.Sigmoid),
)


class TorchvisionDetector(SuppressingDetector):
    """`prepare` and `features` of a model with torchvision's transform and backbone.

    Every step of the four verbs calls the same operators in the same order as the stock model's
    `forward`, so a picture alone gives the stock model's numbers exactly.
    """

    background = True
    first_label = 1
    # Chosen by deletion and insertion on trained detectors: docs/methods.md.
    defaults: Mapping[str, Any] = {"smooth": 0.2}
    no_gradient: Mapping[str, str] = {}
    no_backbone_gradient = ""

    def __init__(self, model: Any) -> None:
        # The submodules are typed as Module | Tensor; `Any` keeps their real interfaces.
        self.model = model
        self.names = list(self._probe())

    @torch.no_grad()
    def _probe(self) -> dict[str, Tensor]:
        """The maps of a blank picture."""
        with undisturbed(self.model):
            return self.maps(self.sample().tensors)

    def sample(self) -> Inputs:
        """A square of 256 pixels, or of the model's fixed size."""
        width, height = self.model.transform.fixed_size or (256, 256)
        device = next(self.model.parameters()).device
        frame = Geometry(width, height, float(width), float(height), 1.0, 1.0)
        return Inputs(torch.zeros(1, 3, height, width, device=device), [(height, width)], [frame])

    def maps(self, tensors: Tensor) -> dict[str, Tensor]:
        """Feature maps by name, finest first, of inputs [B, 3, h, w]."""
        maps = self.model.backbone(tensors)
        return OrderedDict([("0", maps)]) if isinstance(maps, Tensor) else maps

    def prepare(self, picture: Tensor) -> Inputs:
        height, width = picture.shape[-2:]
        device = next(self.model.parameters()).device
        transform = self.model.transform
        short, long = sorted((height, width))
        scale = min(transform.min_size[-1] / short, transform.max_size / long)
        if not transform.fixed_size and int(short * scale) < 1:
            raise PictureError(
                f"a picture of {width} x {height} pixels is too narrow for this detector: resized"
                f" to {transform.max_size} pixels, nothing is left of its shorter side"
            )
        images, _ = transform([picture.to(device).float() / 255])
        (resized_height, resized_width) = images.image_sizes[0]
        padded_height, padded_width = images.tensors.shape[-2:]
        geometry = Geometry(
            picture_width=width,
            picture_height=height,
            frame_width=float(padded_width),
            frame_height=float(padded_height),
            scale_x=resized_width / width,
            scale_y=resized_height / height,
        )
        return Inputs(images.tensors, [(resized_height, resized_width)], [geometry])

    def features(self, inputs: Inputs) -> Features:
        return Features(inputs, self.maps(inputs.tensors))

    def level_names(self) -> list[str]:
        return self.names

    def on_grid(self, frame: Geometry, height: int, width: int) -> Geometry:
        """Places a map of height x width cells whose padded network input has geometry `frame`."""
        return frame.on_samples(height, width)


def reach(modules: Iterable[nn.Module]) -> int | None:
    """How many cells around its own one output of a chain of modules depends on, None if that
    cannot be told: a GroupNorm couples all cells, a stride moves them."""
    cells = 0
    for module in (leaf for each in modules for leaf in _leaves(each)):
        if isinstance(module, nn.Conv2d):
            wide = module.dilation[0] * (module.kernel_size[0] - 1) // 2
            same = (
                module.kernel_size[0] == module.kernel_size[1]
                and module.dilation[0] == module.dilation[1]
                and module.stride == (1, 1)
                and module.padding == (wide, wide)
                and module.padding_mode == "zeros"
                and module.kernel_size[0] % 2 == 1
            )
            if not same:
                return None
            cells += wide
        elif not isinstance(module, POINTWISE):
            return None
    return cells


def convolutions(modules: Iterable[nn.Module]) -> list[nn.Module]:
    """The convolutions among modules that look beyond their own cell."""
    found = (inner for each in modules for inner in each.modules())
    return [each for each in found if isinstance(each, nn.Conv2d) and each.kernel_size != (1, 1)]


def _leaves(module: nn.Module) -> list[nn.Module]:
    return [each for each in module.modules() if not any(True for _ in each.children())]
