from __future__ import annotations

import hashlib
import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from archives.building.golden_picture import drawn_picture, golden_picture, png
from archives.errors import UsageError
from handlers.images import decode_picture
from tests.conftest import random_picture


@pytest.mark.parametrize("size", [(1, 1), (48, 288), (150, 170)])
def test_a_png_holds_the_picture(size: tuple[int, int]) -> None:
    picture = random_picture(*size)
    assert torch.equal(decode_picture(png(picture.permute(1, 2, 0).numpy())), picture)


def test_every_machine_draws_the_same() -> None:
    drawn = drawn_picture()
    assert len(np.unique(drawn.reshape(-1, 3), axis=0)) > 100
    digest = hashlib.sha256(golden_picture(None)).hexdigest()
    assert digest == "fbd92bca16f34ed03050cb77c1e8827d8bb77ee360616fb26f407c207e3880a2"


def test_a_picture_of_the_users(tmp_path: Path) -> None:
    grey = Image.new("L", (30, 20), 77)
    grey.save(tmp_path / "grey.jpg")
    with Image.open(io.BytesIO(golden_picture(tmp_path / "grey.jpg"))) as opened:
        assert (opened.format, opened.size, opened.getpixel((3, 3))) == ("PNG", (30, 20), (77,) * 3)


@pytest.mark.parametrize(
    ("name", "text"),
    [("no.png", "cannot be read"), ("text.png", "not a picture"), ("large.png", "make it smaller")],
)
def test_what_is_no_small_picture(name: str, text: str, tmp_path: Path) -> None:
    (tmp_path / "text.png").write_text("hello")
    Image.new("L", (1001, 1000)).save(tmp_path / "large.png")
    with pytest.raises(UsageError, match=f"golden picture: .*{text}"):
        golden_picture(tmp_path / name)
