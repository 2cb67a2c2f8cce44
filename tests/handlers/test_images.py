from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
import torch
from PIL import Image

from handlers.images import Geometry, PictureError, decode_picture, to_image, to_pictures

RED, GREY = (200, 30, 10), (128, 128, 128)


def encoded(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def png_of_sixteen_bits(value: int) -> bytes:
    """A 2x1 grey PNG, written by hand from the PNG specification."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    header = struct.pack(">IIBBBBB", 2, 1, 16, 0, 0, 0, 0)
    row = b"\0" + struct.pack(">HH", value, value)
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        [chunk(b"IHDR", header), chunk(b"IDAT", zlib.compress(row)), chunk(b"IEND", b"")]
    )


def gif_of_two_frames() -> bytes:
    frames = [Image.new("RGB", (4, 4), colour) for colour in (RED, GREY)]
    return encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])


@pytest.mark.parametrize(
    ("data", "first_pixel", "tolerance"),
    [
        (encoded(Image.new("RGB", (4, 2), RED)), RED, 0),
        (encoded(Image.new("RGB", (4, 2), RED), "JPEG", quality=95), RED, 3),
        (encoded(Image.new("L", (4, 2), 128)), GREY, 0),
        (encoded(Image.new("LA", (4, 2), (0, 128))), (127, 127, 127), 1),
        (encoded(Image.new("RGBA", (4, 2), (*RED, 255))), RED, 0),
        (encoded(Image.new("RGBA", (4, 2), (0, 0, 0, 0))), (255, 255, 255), 0),
        (encoded(Image.new("CMYK", (4, 2), (0, 255, 255, 0)), "JPEG"), (254, 0, 0), 5),
        (encoded(Image.new("1", (4, 2), 1)), (255, 255, 255), 0),
        (png_of_sixteen_bits(0x8080), GREY, 0),
        (gif_of_two_frames(), RED, 0),
        (encoded(Image.new("RGB", (1, 1), RED), "WEBP", lossless=True), RED, 0),
    ],
    ids=[
        *("rgb", "jpeg", "grey", "grey-alpha", "opaque", "transparent", "cmyk", "bilevel"),
        *("16-bit", "gif", "webp-1x1"),
    ],
)
def test_pixels(data: bytes, first_pixel: tuple[int, int, int], tolerance: int) -> None:
    picture = decode_picture(data)
    assert picture.dtype == torch.uint8
    difference = picture[:, 0, 0].int() - torch.tensor(first_pixel)
    assert int(difference.abs().max()) <= tolerance


def test_exif_rotation_is_applied() -> None:
    image = Image.new("RGB", (6, 4))
    image.putpixel((0, 0), RED)
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was held so that the picture must be turned clockwise
    picture = decode_picture(encoded(image, "PNG", exif=exif))
    assert list(picture.shape) == [3, 6, 4]
    assert picture[:, 0, 3].tolist() == list(RED)


def jpeg_with_damaged_exif(place: int, value: int) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6
    data = bytearray(encoded(Image.new("RGB", (6, 4), RED), "JPEG", exif=exif))
    data[place] = value
    return bytes(data)


@pytest.mark.parametrize(("place", "value"), [(53, 0), (55, 1), (49, 255), (40, 7)])
def test_a_damaged_exif_block_does_not_lose_the_picture(place: int, value: int) -> None:
    assert sorted(decode_picture(jpeg_with_damaged_exif(place, value)).shape) == [3, 4, 6]


NOISE = Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8))


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "zero bytes"),
        (b"%PDF-1.7 a report, not a picture", "not a picture"),
        (encoded(NOISE, "JPEG")[:1500], "damaged or truncated"),
        (encoded(NOISE)[:3000], "damaged or truncated"),
        (encoded(Image.new("1", (8000, 7000))), "8000 x 7000 pixels, more than the 50000000"),
        (encoded(Image.new("1", (20000, 20000))), "far more than the 50000000 pixels"),
        (encoded(Image.new("RGB", (4, 4)), "ICO"), "not a picture"),
        (encoded(Image.new("F", (4, 4), 0.8), "TIFF"), "no known range"),
        (encoded(Image.new("I", (4, 4), 200), "TIFF"), "no known range"),
        (encoded(Image.new("1", (65_501, 3))), "65500 a side"),
    ],
    ids=[
        "empty",
        "text",
        "truncated-jpeg",
        "truncated-png",
        "large",
        "bomb",
        "unlisted-format",
        "float",
        "32-bit",
        "long",
    ],
)
def test_what_is_no_usable_picture(data: bytes, reason: str) -> None:
    with pytest.raises(PictureError, match=reason):
        decode_picture(data)


def test_round_trip_to_pillow() -> None:
    assert np.array_equal(np.asarray(to_image(decode_picture(encoded(NOISE)))), np.asarray(NOISE))


# A picture of 200 x 100 shown at half size in a padded frame of 128 x 64.
HALF = Geometry(200, 100, 128.0, 64.0, 0.5, 0.5)


def test_cells_and_points_by_hand() -> None:
    # x = 64 lies at 32 of 128 in the frame: a quarter of 8 columns. y = 96 at 48 of 64 of 4 rows.
    assert HALF.cell_of(64, 96, height=4, width=8) == (2.0, 3.0)
    assert HALF.point_of(2.0, 3.0, height=4, width=8) == (64.0, 96.0)


def test_to_picture_peaks_at_the_cell_and_leaves_padding_out() -> None:
    heatmap = torch.zeros(4, 8)
    heatmap[1, 2] = 1  # its middle is (2.5 * 16, 1.5 * 16) in the frame: (80, 48) on the picture
    on_picture = HALF.to_picture(heatmap)
    assert list(on_picture.shape) == [100, 200]
    rows, columns = torch.where(on_picture == on_picture.max())
    assert {47, 48} >= set(rows.tolist())
    assert {79, 80} >= set(columns.tolist())
    # A quarter of a cell off the middle in y, as bilinear weights go.
    assert float(on_picture[40, 80] / on_picture.max()) == pytest.approx(
        0.765625 / 0.984375, abs=0.02
    )


def test_to_picture_equals_interpolate_when_nothing_is_padded() -> None:
    heatmap = torch.rand(5, 7, generator=torch.Generator().manual_seed(0))
    expected = torch.nn.functional.interpolate(heatmap[None, None], (60, 91), mode="bilinear")[0, 0]
    geometry = Geometry(91, 60, 182.0, 240.0, 2.0, 4.0)
    assert torch.allclose(geometry.to_picture(heatmap), expected, atol=1e-5)


@pytest.mark.parametrize(
    ("box", "least", "rows", "columns"),
    [
        # Frame pixels: twice as many of the picture's.
        ((10.0, 20.0, 40.0, 50.0), 4.0, slice(40, 100), slice(20, 80)),
        # A thin box is widened, as RoIAlign does, from its left edge.
        ((10.0, 20.0, 11.0, 50.0), 4.0, slice(40, 100), slice(20, 28)),
    ],
)
def test_a_crop_is_zero_off_its_box(
    box: tuple[float, ...], least: float, rows: slice, columns: slice
) -> None:
    expected = torch.zeros(100, 200)
    expected[rows, columns] = 1
    assert torch.equal(HALF.crop(box, least).to_picture(torch.ones(7, 7)), expected)


def test_cells_of_a_strided_map_lie_on_their_samples() -> None:
    # 128 x 64 of frame in 8 x 4 cells of stride 16: the middle of cell (column 3, row 2) is the
    # middle of input pixel (48, 32), which is picture point (97, 65) at half size.
    moved = HALF.on_samples(height=4, width=8)
    assert moved.point_of(3.5, 2.5, height=4, width=8) == (97.0, 65.0)


def test_the_outermost_cells_go_on() -> None:
    whole = Geometry(64, 32, 64.0, 32.0, 1.0, 1.0).on_samples(height=2, width=4)
    on_picture = whole.to_picture(torch.tensor([[0.0, 0, 0, 0], [0, 0, 0, 1]]))
    assert float(on_picture[31, 63]) == 1


def test_resized_pictures_keep_their_heatmap() -> None:
    heatmap = torch.rand(4, 8, generator=torch.Generator().manual_seed(1))
    small = HALF.resized(100, 50).to_picture(heatmap)
    large = HALF.to_picture(heatmap)
    middles = large.view(50, 2, 100, 2).mean((1, 3))
    assert torch.allclose(small, middles, atol=0.03)


def test_geometry_survives_json() -> None:
    assert Geometry.from_dict(HALF.to_dict()) == HALF


def test_strides_are_powers_of_two_also_where_a_side_was_rounded_up() -> None:
    # 320 pixels halved seven times give 3 cells: their stride is 128, not 320 / 3.
    moved = Geometry(320, 320, 320.0, 320.0, 1.0, 1.0).on_samples(height=3, width=3)
    assert [moved.point_of(i + 0.5, 0.5, 3, 3)[0] for i in range(3)] == [0.5, 128.5, 256.5]


def test_a_heatmap_on_the_grid_of_another() -> None:
    fine = HALF.on_samples(height=8, width=16)
    coarse = HALF.on_samples(height=4, width=8)
    generator = torch.Generator().manual_seed(2)
    heatmap = torch.rand(4, 8, generator=generator)
    moved = coarse.onto(heatmap, fine, 8, 16)
    # Cells lie on their samples: every second cell of the fine grid is one of the coarse.
    assert torch.allclose(moved[::2, ::2], heatmap, atol=1e-6)
    assert torch.allclose(moved[0, 1:-1:2], (heatmap[0, :-1] + heatmap[0, 1:]) / 2, atol=1e-6)


def test_a_box_on_the_grid_of_its_picture() -> None:
    whole = Geometry(8, 8, 8.0, 8.0, 1.0, 1.0)
    inside = whole.crop((2.0, 4.0, 6.0, 8.0), least=1.0)
    moved = inside.onto(torch.ones(2, 2), whole, 8, 8)
    expected = torch.zeros(8, 8)
    expected[4:8, 2:6] = 1
    assert torch.equal(moved, expected)


def test_maps_of_all_grids_together_are_as_each_alone() -> None:
    generator = torch.Generator().manual_seed(0)
    level = Geometry(40, 20, 96.0, 48.0, 2.0, 2.0)
    crops = [level.crop(box, 1) for box in ((0, 0, 30, 30), (20, 10, 90, 44))]
    maps = [
        *((torch.rand(3, 6, generator=generator), level) for _ in range(2)),
        *((torch.rand(7, 7, generator=generator), crop) for crop in crops),
        (torch.rand(3, 6, generator=generator), level.mirrored(True, False)),
    ]
    several = to_pictures(maps, torch.device("cpu"))
    assert several.shape == (5, 20, 40)
    for own, (heat, geometry) in zip(several, maps, strict=True):
        assert torch.allclose(own, geometry.to_picture(heat), atol=1e-6)
