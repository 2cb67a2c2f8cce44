"""Bytes to pixels, and the geometry between a picture and what the network saw of it."""

from __future__ import annotations

import io
import math
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

FORMATS = ("JPEG", "PNG", "GIF", "WEBP", "BMP", "TIFF")
MAX_PIXELS = 50_000_000
MAX_SIDE = 65_500  # what a JPEG, as overlays are, can hold
# Pillow's own limit only warns between one and two times its maximum; MAX_PIXELS decides.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)


class PictureError(ValueError):
    """Bytes, or a picture, that cannot be explained; the message says why."""


def decode_picture(data: bytes, max_pixels: int = MAX_PIXELS) -> Tensor:
    """The picture in `data` as a uint8 RGB tensor [3, H, W], turned upright by its EXIF tag.

    Grey, palette and CMYK become RGB; 16 bits become 8; transparency is laid on white; of an
    animation the first frame is taken.

    Raises PictureError if `data` is empty, truncated, in none of FORMATS, has more than
    `max_pixels` pixels or a side beyond MAX_SIDE (checked in the header, before anything is
    unpacked), or has samples of no known range (32-bit and float TIFF).
    """
    if not data:
        raise PictureError("the picture has zero bytes; expected " + ", ".join(FORMATS))
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            if image.width * image.height > max_pixels or max(image.size) > MAX_SIDE:
                raise PictureError(
                    f"the picture has {image.width} x {image.height} pixels, more than the"
                    f" {max_pixels} allowed (and {MAX_SIDE} a side); make it smaller"
                )
            image.load()
            return to_tensor(_to_rgb(_upright(image)))
    except PictureError:
        raise
    except Image.DecompressionBombError as error:
        raise PictureError(
            f"the picture has far more than the {max_pixels} pixels allowed; make it smaller"
        ) from error
    except UnidentifiedImageError as error:
        raise PictureError(
            f"not a picture: its {len(data)} bytes are none of " + ", ".join(FORMATS)
        ) from error
    except (OSError, ValueError, SyntaxError, EOFError, OverflowError) as error:
        # Pillow's decoders raise any of these on damaged files.
        raise PictureError(f"the picture is damaged or truncated: {error}") from error


def _upright(image: Image.Image) -> Image.Image:
    try:
        return ImageOps.exif_transpose(image)
    except Exception:
        # A damaged EXIF block makes Pillow raise nearly anything; viewers show such pictures as
        # they are stored, and so do we.
        return image


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode == "F" or (image.mode == "I" and image.format != "PNG"):
        raise PictureError(
            "32-bit and float pictures have no known range of brightness; convert to 8 or 16 bits"
        )
    if image.mode.startswith("I"):
        # A 16-bit PNG opens as "I;16" or "I"; Pillow's own conversion clips at 255.
        # In whole numbers and in place: several are decoded at once, of up to 50 megapixels.
        values = np.array(image, dtype=np.int32)
        values += 128
        values //= 257  # the nearest of 255 levels: 65535 is 255 * 257
        np.clip(values, 0, 255, out=values)
        return Image.fromarray(values.astype(np.uint8)).convert("RGB")
    if "A" in image.getbands() or "transparency" in image.info:
        layer = image.convert("RGBA")
        white = Image.new("RGBA", layer.size, "white")
        return Image.alpha_composite(white, layer).convert("RGB")
    return image.convert("RGB")


def to_tensor(image: Image.Image) -> Tensor:
    """A uint8 tensor [3, H, W] of a Pillow RGB image."""
    return torch.from_numpy(np.array(image, dtype=np.uint8)).permute(2, 0, 1).contiguous()


def to_image(picture: Tensor) -> Image.Image:
    """A Pillow RGB image of a uint8 tensor [3, H, W]."""
    return Image.fromarray(picture.permute(1, 2, 0).contiguous().numpy())


@dataclass(frozen=True)
class Geometry:
    """Where a heatmap's grid lies on a picture.

    A point (x, y) of the picture, in pixels with (0, 0) at its upper left corner, lies at
    (x * scale_x + offset_x, y * scale_y + offset_y) of a frame of frame_width x frame_height; the
    heatmap's cells divide that frame evenly. A letterbox's margin is an offset; a mirrored frame
    has a negative scale. clipped: off the frame there is nothing (a RoI's frame is its proposal);
    otherwise the outermost cells go on (a pyramid level's frame is the padded network input, moved
    as the level's cells are). window: x1, y1, x2, y2 in pixels of the picture, off which there is
    nothing (what a network saw of a picture that was cropped); None for the whole picture.
    """

    picture_width: int
    picture_height: int
    frame_width: float
    frame_height: float
    scale_x: float
    scale_y: float
    offset_x: float = 0.0
    offset_y: float = 0.0
    clipped: bool = False
    window: tuple[float, float, float, float] | None = None

    def upright(self) -> Geometry:
        """The same frame, were it not mirrored."""
        return self.mirrored(self.scale_x < 0, self.scale_y < 0)

    def mirrored(self, across: bool, down: bool) -> Geometry:
        """The same frame flipped left to right (`across`), upside down (`down`)."""
        flipped = self
        if across:
            offset = self.frame_width - self.offset_x
            flipped = replace(flipped, scale_x=-self.scale_x, offset_x=offset)
        if down:
            offset = self.frame_height - self.offset_y
            flipped = replace(flipped, scale_y=-self.scale_y, offset_y=offset)
        return flipped

    def boxes_on_picture(self, boxes: Tensor) -> Tensor:
        """Boxes [N, 4], x1, y1, x2, y2 in pixels of the frame: in pixels of the picture."""
        offset = boxes.new_tensor([self.offset_x, self.offset_y] * 2)
        return (boxes - offset) / boxes.new_tensor([self.scale_x, self.scale_y] * 2)

    def boxes_on_frame(self, boxes: Tensor) -> Tensor:
        """Boxes [N, 4], x1, y1, x2, y2 in pixels of the picture: in pixels of the frame."""
        offset = boxes.new_tensor([self.offset_x, self.offset_y] * 2)
        return boxes * boxes.new_tensor([self.scale_x, self.scale_y] * 2) + offset

    def to_dict(self) -> dict[str, float]:
        """As JSON holds it."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Geometry:
        """The inverse of `to_dict`."""
        window = values.get("window")
        return cls(**{**values, "window": None if window is None else tuple(window)})

    def on_samples(self, height: int, width: int, strides: Sequence[int] = ()) -> Geometry:
        """The geometry of a strided map of height x width cells over this frame.

        Strided convolutions, anchors and RoIAlign all put the middle of cell i at the middle of
        input pixel i * stride, half a cell before where dividing the input evenly would put it.
        Every stride halves a side and rounds up, so the stride is a power of two and the map may
        reach beyond the frame. strides: those that the network is known to have, whatever they are.
        """
        across, down = self.frame_width / width, self.frame_height / height
        if across not in strides or down not in strides:
            across, down = _power_of_two(across), _power_of_two(down)
        return replace(
            self,
            frame_width=across * width,
            frame_height=down * height,
            offset_x=self.offset_x + (across - 1) / 2,
            offset_y=self.offset_y + (down - 1) / 2,
        )

    def on_blocks(self, height: int, width: int) -> Geometry:
        """The geometry of a map of height x width cells, each the middle of a block of input
        pixels, as pooling without overlap leaves them: a power of two wide where the map was only
        rounded up to whole cells, else an even division."""
        across, down = self.frame_width / width, self.frame_height / height
        block_width, block_height = _power_of_two(across), _power_of_two(down)
        return replace(
            self,
            frame_width=width * (block_width if across > 0.9 * block_width else across),
            frame_height=height * (block_height if down > 0.9 * block_height else down),
        )

    def resized(self, width: int, height: int) -> Geometry:
        """The geometry of the same heatmap on the picture resized to width x height pixels."""
        across, down = width / self.picture_width, height / self.picture_height
        window = self.window
        if window is not None:
            x1, y1, x2, y2 = window
            window = (x1 * across, y1 * down, x2 * across, y2 * down)
        return replace(
            self,
            picture_width=width,
            picture_height=height,
            scale_x=self.scale_x / across,
            scale_y=self.scale_y / down,
            window=window,
        )

    def crop(self, box: Sequence[float], least: float) -> Geometry:
        """The geometry of a grid that covers only `box` (x1, y1, x2, y2 in pixels of the frame),
        which is widened to at least `least` pixels, as RoIAlign does."""
        x1, y1, x2, y2 = box
        return replace(
            self,
            frame_width=max(x2 - x1, least),
            frame_height=max(y2 - y1, least),
            offset_x=self.offset_x - x1,
            offset_y=self.offset_y - y1,
            clipped=True,
        )

    def to_picture(self, heatmap: Tensor) -> Tensor:
        """A heatmap [h, w] on the picture's pixels: float32 [H, W], bilinear."""
        rows, columns = self.picture_weights(heatmap.shape[0], heatmap.shape[1])
        return rows @ heatmap.to(torch.float32) @ columns.T

    def picture_weights(self, height: int, width: int) -> tuple[Tensor, Tensor]:
        """What `to_picture` of a heatmap of height x width multiplies it by: float32 rows
        [H, height] and columns [W, width]."""
        x = torch.arange(self.picture_width, dtype=torch.float64) + 0.5
        y = torch.arange(self.picture_height, dtype=torch.float64) + 0.5
        return self._weights(height, width, y, x)

    def _at(self, heatmap: Tensor, y: Tensor, x: Tensor) -> Tensor:
        """A heatmap [h, w] at rows y and columns x of the picture: [len(y), len(x)]."""
        rows, columns = self._weights(heatmap.shape[0], heatmap.shape[1], y, x)
        return rows @ heatmap.to(torch.float32) @ columns.T

    def _weights(self, height: int, width: int, y: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        """What each row of a heatmap of height x width gives to rows y, [len(y), height], and each
        column to columns x, [len(x), width]: a bilinear weight is their product."""
        v = (y * self.scale_y + self.offset_y) / self.frame_height
        u = (x * self.scale_x + self.offset_x) / self.frame_width
        rows = _interpolation(v, height, self.clipped)
        columns = _interpolation(u, width, self.clipped)
        if self.window is not None:
            x1, y1, x2, y2 = self.window
            rows = rows * ((y >= y1) & (y <= y2))[:, None]
            columns = columns * ((x >= x1) & (x <= x2))[:, None]
        return rows, columns

    def onto(self, heatmap: Tensor, other: Geometry, height: int, width: int) -> Tensor:
        """A heatmap [h, w] of this geometry on the grid [height, width] of another geometry of the
        same picture, bilinear."""
        columns = (torch.arange(width, dtype=torch.float64) + 0.5) / width * other.frame_width
        rows = (torch.arange(height, dtype=torch.float64) + 0.5) / height * other.frame_height
        x = (columns - other.offset_x) / other.scale_x
        y = (rows - other.offset_y) / other.scale_y
        return self._at(heatmap, y, x)

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


def added_on(
    maps: Iterable[tuple[Tensor, Geometry]], geometry: Geometry, height: int, width: int
) -> Tensor:
    """Maps [h, w] of any grids of one picture, added up on the grid [height, width] of another
    geometry: float32, on the CPU."""
    total = torch.zeros(height, width)
    for heatmap, own in maps:
        same = own == geometry and heatmap.shape == total.shape
        heatmap = heatmap.cpu()
        total += heatmap if same else own.onto(heatmap, geometry, height, width)
    return total


def to_pictures(maps: Sequence[tuple[Tensor, Geometry]], device: torch.device) -> Tensor:
    """Maps [h, w] of one picture, of any grids, on its pixels: float32 [N, H, W], on the device.
    Those of one shape are interpolated together, as `Geometry.to_picture` does each."""
    weights: dict[tuple[Geometry, torch.Size], tuple[Tensor, Tensor]] = {}
    groups: dict[torch.Size, list[int]] = {}
    for place, (heatmap, geometry) in enumerate(maps):
        groups.setdefault(heatmap.shape, []).append(place)
        if (geometry, heatmap.shape) not in weights:
            height, width = heatmap.shape
            weights[geometry, heatmap.shape] = geometry.picture_weights(height, width)
    _, picture = maps[0]
    size = (len(maps), picture.picture_height, picture.picture_width)
    result = torch.empty(size, dtype=torch.float32, device=device)
    for shape, group in groups.items():
        own = [maps[place][1] for place in group]
        # A pyramid level's maps share their weights; each RoI's has its own.
        pairs = [weights[geometry, shape] for geometry in (own if len({*own}) > 1 else own[:1])]
        rows, columns = (torch.stack(each).to(device) for each in zip(*pairs, strict=True))
        heat = torch.stack([maps[place][0] for place in group]).to(device, torch.float32)
        result[torch.tensor(group, device=device)] = rows @ heat @ columns.mT
    return result


def _power_of_two(ratio: float) -> float:
    """The smallest power of two that is at least `ratio`."""
    return float(2 ** math.ceil(math.log2(ratio) - 1e-9))


def _interpolation(places: Tensor, cells: int, clipped: bool) -> Tensor:
    """What each cell gives to each place (a share of the frame), float32 [places, cells].

    Linear between the cells' middles, constant beyond the outer ones; if clipped, zero off the
    frame.
    """
    inside = ((places >= 0) & (places <= 1)) | (not clipped)
    middle = (places * cells - 0.5).clamp(0, cells - 1)
    low = middle.floor().long()
    high = (low + 1).clamp(max=cells - 1)
    fraction = middle - low
    matrix = torch.zeros(len(places), cells, dtype=torch.float64)
    matrix.scatter_add_(1, low[:, None], ((1 - fraction) * inside)[:, None])
    matrix.scatter_add_(1, high[:, None], (fraction * inside)[:, None])
    return matrix.to(torch.float32)
