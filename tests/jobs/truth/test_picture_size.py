"""A picture's size by its header."""

from __future__ import annotations

import io

import pytest
from PIL import Image

from handlers.images import decode_picture
from jobs.truth.picture_size import picture_size


@pytest.mark.parametrize(("orientation", "expected"), [(1, (20, 10)), (3, (20, 10)), (6, (10, 20))])
def test_sizes_are_upright(orientation: int, expected: tuple[int, int]) -> None:
    image = Image.new("RGB", (20, 10))
    exif = image.getexif()
    exif[0x0112] = orientation
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", exif=exif)
    data = buffer.getvalue()
    assert picture_size(data) == expected
    assert tuple(decode_picture(data).shape[:0:-1]) == expected


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"no", "no picture that can be read"),
        (b"", "no picture"),
        (None, "8000 x 8000 pixels; expected at most 50,000,000"),
    ],
)
def test_what_has_no_size(data: bytes | None, said: str) -> None:
    if data is None:
        buffer = io.BytesIO()
        Image.new("1", (8000, 8000)).save(buffer, "PNG")
        data = buffer.getvalue()
    with pytest.raises(ValueError, match=said):
        picture_size(data)
