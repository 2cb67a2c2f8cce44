"""Bytes to pixels, and the geometry between a picture and what the network saw of it."""

from __future__ import annotations

import io
import warnings
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

FORMATS = ("JPEG", "PNG", "GIF", "WEBP", "BMP", "TIFF")
MAX_PIXELS = 50_000_000


class PictureError(ValueError):
    """Bytes, or a picture, that cannot be explained; the message says why."""


def decode_picture(data: bytes, max_pixels: int = MAX_PIXELS) -> Tensor:
    """The picture in `data` as a uint8 RGB tensor [3, H, W], turned upright by its EXIF tag.

    Grey, palette and CMYK become RGB; 16 bits become 8; transparency is laid on white; of an
    animation the first frame is taken.

    Raises PictureError if `data` is empty, truncated, in none of FORMATS, or has more than
    `max_pixels` pixels (checked in the header, before anything is unpacked).
    """
    if not data:
        raise PictureError("the picture has zero bytes; expected " + ", ".join(FORMATS))
    try:
        with warnings.catch_warnings():
            # Pillow's own limit only warns between one and two times its maximum; ours decides.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(data), formats=FORMATS) as image:
                if image.width * image.height > max_pixels:
                    raise PictureError(
                        f"the picture has {image.width} x {image.height} pixels, more than the"
                        f" {max_pixels} allowed; make it smaller"
                    )
                image.load()
                return _to_tensor(_to_rgb(ImageOps.exif_transpose(image)))
    except PictureError:
        raise
    except Image.DecompressionBombError as error:
        raise PictureError(f"the picture is too large: {error}") from error
    except UnidentifiedImageError as error:
        raise PictureError(
            f"not a picture: its {len(data)} bytes are none of " + ", ".join(FORMATS)
        ) from error
    except (OSError, ValueError, SyntaxError, EOFError, OverflowError) as error:
        # Pillow's decoders raise any of these on damaged files.
        raise PictureError(f"the picture is damaged or truncated: {error}") from error


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I;16") or image.mode in ("I", "F"):
        # A 16-bit PNG opens as "I;16" or "I"; Pillow's own conversion clips at 255.
        values = np.asarray(image, dtype=np.float64)
        return Image.fromarray(
            (values / 65535 * 255).round().clip(0, 255).astype(np.uint8)
        ).convert("RGB")
    if "A" in image.getbands() or "transparency" in image.info:
        layer = image.convert("RGBA")
        white = Image.new("RGBA", layer.size, "white")
        return Image.alpha_composite(white, layer).convert("RGB")
    return image.convert("RGB")


def _to_tensor(image: Image.Image) -> Tensor:
    return torch.from_numpy(np.array(image, dtype=np.uint8)).permute(2, 0, 1).contiguous()


def to_image(picture: Tensor) -> Image.Image:
    """A Pillow RGB image of a uint8 tensor [3, H, W]."""
    return Image.fromarray(picture.permute(1, 2, 0).contiguous().numpy())


@dataclass(frozen=True)
class Geometry:
    """Where a heatmap's grid lies on a picture.

    A point (x, y) of the picture, in pixels with (0, 0) at its upper left corner, lies at
    (x * scale_x + offset_x, y * scale_y + offset_y) of a frame of frame_width x frame_height; the
    heatmap's cells divide that frame evenly. For a whole pyramid level the frame is the padded
    network input; for a RoI it is the proposal.
    """

    picture_width: int
    picture_height: int
    frame_width: float
    frame_height: float
    scale_x: float
    scale_y: float
    offset_x: float = 0.0
    offset_y: float = 0.0

    def to_dict(self) -> dict[str, float]:
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Geometry:
        return cls(**values)

    def crop(self, box: tuple[float, float, float, float]) -> Geometry:
        """The geometry of a grid that covers only `box` (x1, y1, x2, y2 in pixels of the frame)."""
        x1, y1, x2, y2 = box
        return Geometry(
            self.picture_width,
            self.picture_height,
            max(x2 - x1, 1.0),  # RoIAlign, too, makes a proposal at least one cell large
            max(y2 - y1, 1.0),
            self.scale_x,
            self.scale_y,
            self.offset_x - x1,
            self.offset_y - y1,
        )

    def to_picture(self, heatmap: Tensor) -> Tensor:
        """A heatmap [h, w] on the picture's pixels: float32 [H, W], bilinear, 0 off the frame."""
        x = torch.arange(self.picture_width, dtype=torch.float64) + 0.5
        y = torch.arange(self.picture_height, dtype=torch.float64) + 0.5
        u = (x * self.scale_x + self.offset_x) / self.frame_width
        v = (y * self.scale_y + self.offset_y) / self.frame_height
        grid = torch.stack(torch.meshgrid(u * 2 - 1, v * 2 - 1, indexing="xy"), -1)
        heat = F.grid_sample(
            heatmap.to(torch.float64)[None, None],
            grid[None],
            mode="bilinear",
            padding_mode="border",
            align_corners=False,
        )[0, 0]
        inside = ((u >= 0) & (u <= 1))[None, :] & ((v >= 0) & (v <= 1))[:, None]
        return (heat * inside).to(torch.float32)

    def cell_of(self, x: float, y: float, height: int, width: int) -> tuple[float, float]:
        """The place of picture point (x, y) on a grid of height x width cells, as (column, row).

        Whole numbers are cell edges: cell (0, 0) spans columns 0 to 1 and rows 0 to 1.
        """
        column = (x * self.scale_x + self.offset_x) / self.frame_width * width
        row = (y * self.scale_y + self.offset_y) / self.frame_height * height
        return column, row

    def point_of(self, column: float, row: float, height: int, width: int) -> tuple[float, float]:
        """The picture point (x, y) at (column, row) of the grid: the inverse of `cell_of`."""
        x = (column / width * self.frame_width - self.offset_x) / self.scale_x
        y = (row / height * self.frame_height - self.offset_y) / self.scale_y
        return x, y
