"""Pictures as transformers' image processors prepare them, from the numbers of their settings.

Nothing here runs the library: preprocessor_config.json is read as plain data.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2.functional import resize

from handlers.detectors.base import Inputs
from handlers.detectors.registry import DetectorError
from handlers.images import Geometry, PictureError

# What the processors do where their settings say nothing.
COMMON = {
    "do_resize": True,
    "resample": 2,
    "do_rescale": True,
    "rescale_factor": 1 / 255,
    "image_mean": [0.485, 0.456, 0.406],
    "image_std": [0.229, 0.224, 0.225],
}
# DETR's processor and RT-DETR's.
SHORTEST_800 = COMMON | {
    "size": {"shortest_edge": 800, "longest_edge": 1333},
    "do_normalize": True,
}
STRETCHED_640 = COMMON | {"size": {"height": 640, "width": 640}, "do_normalize": False}
# All settings that are read.
SETTINGS = {*SHORTEST_800, "max_size", "do_pad", "pad_size"}
# Pillow's numbers of the filters, as settings name them.
FILTERS = {
    0: InterpolationMode.NEAREST,
    2: InterpolationMode.BILINEAR,
    3: InterpolationMode.BICUBIC,
}
SIZES = (
    '{"shortest_edge": 800, "longest_edge": 1333}, {"shortest_edge": 800},'
    ' {"height": 640, "width": 640} or {"max_height": 640, "max_width": 640}'
)


class Preparation:
    """How pictures become network input."""

    def __init__(self, settings: Mapping[str, Any], defaults: Mapping[str, Any]) -> None:
        """settings: as in preprocessor_config.json; defaults: those of the family.

        Raises DetectorError for settings that are not understood.
        """
        given = {name: value for name, value in settings.items() if value is not None}
        self._settings: dict[str, Any] = {**defaults, **given}
        if given.get("do_pad", True) and given.get("pad_size"):
            raise DetectorError(
                f"the preprocessor pads to pad_size {given['pad_size']}; expected none, for"
                " pictures of one size share a batch unpadded: leave it out"
            )
        if self._settings["resample"] not in FILTERS:
            raise DetectorError(
                f"the preprocessor's resample is {self._settings['resample']}; expected 0"
                " (nearest), 2 (bilinear) or 3 (bicubic)"
            )
        self._size = self._read_size(self._settings["size"])

    def _read_size(self, size: Any) -> dict[str, int]:
        if isinstance(size, int):  # as older files have it
            size = {"shortest_edge": size, "longest_edge": self._settings.get("max_size")}
        known = {"shortest_edge", "longest_edge", "height", "width", "max_height", "max_width"}
        if isinstance(size, Mapping) and set(size) <= known:
            read = {name: value for name, value in size.items() if value is not None}
            whole = all(isinstance(value, int) and value > 0 for value in read.values())
            names = set(read)
            if whole and (
                names in ({"height", "width"}, {"max_height", "max_width"}, {"shortest_edge"})
                or names == {"shortest_edge", "longest_edge"}
            ):
                return read
        raise DetectorError(f"the preprocessor's size is {size!r}; expected {SIZES}")

    def __call__(self, picture: Tensor) -> Inputs:
        """One uint8 picture [3, H, W] as network input (B = 1). Raises PictureError for one of
        which nothing would be left."""
        height, width = picture.shape[-2:]
        rows, columns = self._resized(height, width)
        if min(rows, columns) < 1:
            raise PictureError(
                f"a picture of {width} x {height} pixels is too narrow for this detector: resized"
                f" to {max(rows, columns)} pixels, nothing is left of its shorter side"
            )
        if (rows, columns) != (height, width):
            picture = resize(
                picture, [rows, columns], FILTERS[self._settings["resample"]], antialias=True
            )
        frame = Geometry(
            picture_width=width,
            picture_height=height,
            frame_width=float(columns),
            frame_height=float(rows),
            scale_x=columns / width,
            scale_y=rows / height,
        )
        return Inputs(self._normalised(picture)[None], [(rows, columns)], [frame])

    def _normalised(self, picture: Tensor) -> Tensor:
        own = self._settings
        factor = own["rescale_factor"] if own["do_rescale"] else 1.0
        values = picture.to(torch.float32)
        if not own["do_normalize"]:
            return values * factor
        # Both steps at once, as the library takes them.
        mean, std = (_channels(own[name], values) / factor for name in ("image_mean", "image_std"))
        return (values - mean) / std

    def _resized(self, height: int, width: int) -> tuple[int, int]:
        """The (height, width) that a picture is resized to."""
        size = self._size
        if not self._settings["do_resize"]:
            return height, width
        if "height" in size:
            return size["height"], size["width"]
        if "max_height" in size:
            scale = min(size["max_height"] / height, size["max_width"] / width)
            return int(height * scale), int(width * scale)
        # The shorter side becomes `shortest_edge`, or less, so that the longer one keeps its limit.
        short, long = sorted((height, width))
        exact = float(size["shortest_edge"])
        limit = size.get("longest_edge")
        if limit is not None and long / short * exact > limit:
            exact = limit * short / long
        shorter = round(exact)
        if short == shorter:
            return height, width
        longer = int(exact * long / short)
        return (shorter, longer) if height <= width else (longer, shorter)


def _channels(values: float | Sequence[float], like: Tensor) -> Tensor:
    return like.new_tensor(values).reshape(-1, 1, 1)
