"""A picture on the canvas of a network that takes one size: resized, padded, normalised."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from handlers.detectors.base import Inputs
from handlers.images import Geometry, PictureError

RESIZES = ("letterbox", "corner", "stretch")
MIRRORS = ("none", "horizontal", "vertical", "both")


@dataclass(frozen=True)
class NetworkInput:
    """How a picture becomes network input.

    size: (height, width) in pixels. resize: "letterbox" keeps the aspect and centres the picture,
    "corner" keeps the aspect and puts it at the upper left, "stretch" fills the canvas. fill: the
    grey of the padding, 0 ... 255. channels: "rgb" or "bgr". mean, std: by channel as the network
    has them: its input is (value - mean) / std of values 0 ... 255. mirror: "none", "horizontal",
    "vertical" or "both": the canvas is flipped left to right, upside down.
    """

    size: tuple[int, int] = (640, 640)
    resize: str = "letterbox"
    fill: float = 114.0
    channels: str = "rgb"
    mean: tuple[float, float, float] = (0.0, 0.0, 0.0)
    std: tuple[float, float, float] = (255.0, 255.0, 255.0)
    mirror: str = "none"


def letterboxed(picture: Tensor, options: NetworkInput, device: torch.device) -> Inputs:
    """One uint8 RGB picture [3, H, W] as network input.

    Sides and margins are rounded as YOLOv5's letterbox rounds them (bilinear, no antialiasing).
    Raises PictureError for a picture so narrow that nothing is left of it.
    """
    geometry = placed(picture.shape[-2], picture.shape[-1], options)
    height = round(geometry.picture_height * geometry.scale_y)
    width = round(geometry.picture_width * geometry.scale_x)
    pixels = picture.to(device).float()[None]
    if pixels.shape[-2:] != (height, width):
        pixels = F.interpolate(pixels, (height, width), mode="bilinear", align_corners=False)
    top, left = round(geometry.offset_y), round(geometry.offset_x)
    canvas = pixels.new_full((1, 3, *options.size), options.fill)
    canvas[:, :, top : top + height, left : left + width] = pixels
    flipped = {"none": [], "horizontal": [3], "vertical": [2], "both": [2, 3]}[options.mirror]
    canvas = canvas.flip(flipped) if flipped else canvas
    if options.channels == "bgr":
        canvas = canvas.flip(1)
    mean = canvas.new_tensor(options.mean).view(1, 3, 1, 1)
    std = canvas.new_tensor(options.std).view(1, 3, 1, 1)
    frame = mirrored(geometry, options.mirror)
    return Inputs((canvas - mean) / std, [(height, width)], [frame], late_clip=True)


def placed(height: int, width: int, options: NetworkInput) -> Geometry:
    """Where the canvas lies on a picture of height x width pixels, before mirroring."""
    canvas_height, canvas_width = options.size
    ratio = min(canvas_height / height, canvas_width / width)
    new_height, new_width = round(height * ratio), round(width * ratio)
    if options.resize == "stretch":
        new_height, new_width = canvas_height, canvas_width
    if min(new_height, new_width) < 1:
        raise PictureError(
            f"a picture of {width} x {height} pixels is too narrow for this detector: resized to"
            f" {canvas_width} x {canvas_height}, nothing is left of its shorter side"
        )
    margins = (0, 0)
    if options.resize == "letterbox":
        # YOLOv5 takes off a tenth, so that an odd margin is the smaller one above and left.
        margins = (
            round((canvas_height - new_height) / 2 - 0.1),
            round((canvas_width - new_width) / 2 - 0.1),
        )
    return Geometry(
        picture_width=width,
        picture_height=height,
        frame_width=float(canvas_width),
        frame_height=float(canvas_height),
        scale_x=new_width / width,
        scale_y=new_height / height,
        offset_x=float(margins[1]),
        offset_y=float(margins[0]),
    )


def mirrored(geometry: Geometry, mirror: str) -> Geometry:
    """The geometry of a canvas that is flipped after the picture was put on it."""
    return geometry.mirrored(mirror in ("horizontal", "both"), mirror in ("vertical", "both"))


def blank(options: NetworkInput, device: torch.device) -> Inputs:
    """Inputs of a picture of one grey, as large as the canvas."""
    picture = torch.full((3, *options.size), 114, dtype=torch.uint8)
    return letterboxed(picture, options, device)


def unmirrored_boxes(boxes: Tensor, options: NetworkInput) -> Tensor:
    """Boxes [..., 4] on the mirrored canvas: on the canvas as it was before."""
    x1, y1, x2, y2 = boxes.unbind(-1)
    height, width = options.size
    if options.mirror in ("horizontal", "both"):
        x1, x2 = width - x2, width - x1
    if options.mirror in ("vertical", "both"):
        y1, y2 = height - y2, height - y1
    return torch.stack([x1, y1, x2, y2], -1)
