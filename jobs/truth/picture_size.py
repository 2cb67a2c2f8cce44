"""A picture's size by its header, as decoding it would give it."""

from __future__ import annotations

import io

from PIL import Image

ORIENTATION = 0x0112
LYING = (5, 6, 7, 8)  # EXIF: stored turned by a quarter


def picture_size(data: bytes) -> tuple[int, int]:
    """Width and height in pixels, upright by the EXIF tag as `handlers.images.decode_picture` turns
    it. Raises ValueError for what is no picture, or has more than MAX_PIXELS."""
    from handlers.images import FORMATS, MAX_PIXELS  # with torch

    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            width, height = image.size
            lying = _orientation(image) in LYING
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise ValueError(f"no picture that can be read ({error})") from error
    if width * height > MAX_PIXELS:
        raise ValueError(f"{width} x {height} pixels; expected at most {MAX_PIXELS:,}")
    return (height, width) if lying else (width, height)


def _orientation(image: Image.Image) -> int | None:
    try:
        found: int | None = image.getexif().get(ORIENTATION)
    except Exception:
        # A damaged EXIF block makes Pillow raise nearly anything; the picture counts as stored.
        return None
    return found
