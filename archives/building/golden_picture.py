"""The picture of a golden sample: the user's, or one that is drawn here."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from archives.errors import UsageError

# Six to one: detectors that enlarge the shorter side up to a limit for the longer then see a third
# of what a square costs them.
HEIGHT, WIDTH = 48, 288
MOST_PIXELS = 1_000_000
COLOURS = ((214, 64, 52), (40, 90, 200), (60, 160, 80), (240, 200, 60), (150, 80, 170), (0, 0, 0))
STORED = 65_535  # the longest block of bytes that are not compressed


def golden_picture(file: Path | None) -> bytes:
    """The picture in `file` as a PNG, or the drawn one; the same picture, the same bytes.

    Raises UsageError for a file that cannot be read, is no picture, or not a small one.
    """
    if file is None:
        return png(drawn_picture())
    from handlers.images import PictureError, decode_picture  # loads torch

    try:
        picture = decode_picture(file.read_bytes(), MOST_PIXELS)
    except OSError as error:
        raise UsageError(f"golden picture: {file} cannot be read ({error.strerror})") from error
    except PictureError as error:
        raise UsageError(f"golden picture: {file}: {error}") from error
    return png(picture.permute(1, 2, 0).numpy())


def drawn_picture() -> NDArray[np.uint8]:
    """Discs, rings and squares on a shaded, checked ground: uint8 [48, 288, 3]. Whole numbers
    alone, so that every machine draws the same."""
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    ground = 150 + x * 60 // WIDTH + 12 * ((x // 6 + y // 6) % 2)
    picture = np.stack([ground, ground - y // 2, ground - 20 + y], axis=-1)
    for place, colour in enumerate(COLOURS):
        right, down = x - (place * HEIGHT + HEIGHT // 2), y - (HEIGHT // 2 + (place % 3 - 1) * 4)
        radius, squared = 10 + 2 * (place % 4), right**2 + down**2
        disc, ring = squared < radius**2, (squared < radius**2) & (squared > (radius - 5) ** 2)
        square = np.maximum(abs(right), abs(down)) < radius - 2
        picture[(disc, ring, square)[place % 3]] = colour
    return picture.clip(0, 255).astype(np.uint8)


def png(picture: NDArray[np.uint8]) -> bytes:
    """A PNG of uint8 [H, W, 3], not compressed: no byte depends on a library's version."""
    height, width, _ = picture.shape
    rows = b"".join(b"\0" + row.tobytes() for row in picture)
    blocks = [rows[start : start + STORED] for start in range(0, len(rows), STORED)]
    data = b"\x78\x01"  # zlib's header
    for place, block in enumerate(blocks):
        last = place == len(blocks) - 1
        data += struct.pack("<BHH", last, len(block), len(block) ^ 0xFFFF) + block
    data += struct.pack(">I", zlib.adler32(rows))
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)  # 8 bits, RGB
    parts = ((b"IHDR", header), (b"IDAT", data), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(kind, each) for kind, each in parts)


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
