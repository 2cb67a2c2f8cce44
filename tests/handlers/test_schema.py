from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from pytorch_grad_cam.utils.image import scale_cam_image

from handlers.images import Geometry
from handlers.schema import ExplainRequest, Explanation, RequestError


def test_fields_from_text_and_json() -> None:
    text = {"method": "gradcam", "score_threshold": "0.25", "max_detections": "7"}
    expected = ExplainRequest(method="gradcam", score_threshold=0.25, max_detections=7)
    assert ExplainRequest.from_fields(text) == expected
    assert (
        ExplainRequest.from_fields({"score_threshold": 0.25, "layer": None}, expected) == expected
    )


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"target": "x1"}, ExplainRequest(target="x1", smooth=0.2, center_prior=0.3, shared=True)),
        ({"method": "odam"}, ExplainRequest(target="y1")),
        ({"method": "layercam", "smooth": 0.1}, ExplainRequest("layercam", "y1", smooth=0.1)),
        (
            {"sum_boxes": "true"},
            ExplainRequest(target="y1", sum_boxes=True, smooth=0.2, center_prior=0.3),
        ),
        ({"center_prior": 0}, ExplainRequest(target="y1", smooth=0.2)),
    ],
)
def test_a_method_that_is_named_is_plain(fields: dict[str, Any], expected: ExplainRequest) -> None:
    defaults = ExplainRequest(target="y1", smooth=0.2, center_prior=0.3, shared=True)
    assert ExplainRequest.from_fields(fields, defaults) == expected


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"methd": "odam"}, "field: got 'methd'; allowed: method, target, layer"),
        ({"method": ""}, "method: got ''; allowed: a non-empty string"),
        ({"method": 3}, "method: got 3"),
        ({"score_threshold": "high"}, "score_threshold: got 'high'; allowed: a number from 0 to 1"),
        ({"score_threshold": 1.5}, "score_threshold: got 1.5; allowed: a number from 0 to 1"),
        ({"score_threshold": "nan"}, "score_threshold: got 'nan'"),
        ({"score_threshold": True}, "score_threshold: got True"),
        ({"max_detections": 0}, "max_detections: got 0; allowed: an integer from 1 to 10000"),
        ({"max_detections": 2.5}, "max_detections: got 2.5"),
        ({"max_detections": [1]}, r"max_detections: got \[1\]"),
        ({"category": "x" * 500}, None),
    ],
)
def test_wrong_fields(fields: dict[str, Any], message: str | None) -> None:
    if message is None:
        assert ExplainRequest.from_fields(fields).category == "x" * 500
        return
    with pytest.raises(RequestError, match=message):
        ExplainRequest.from_fields(fields)


def test_a_long_value_is_cut_in_the_message() -> None:
    assert len(str(RequestError("picture", "x" * 10_000, "bytes"))) < 150


MAP = [[1.0, 2.0, 3.0, 9.0], [5.0, 4.0, 7.0, 8.0]]
# A picture of 4 x 2 pixels whose map has a cell for each.
SEEN = Geometry(4, 2, 4.0, 2.0, 1.0, 1.0)


def shown(box: tuple[float, float, float, float], values: list[list[float]]) -> list[list[float]]:
    heatmap = torch.tensor(values)
    each = Explanation(
        *(0, box, 1, "cat", 0.9, "odam", "class", "emitting", "0", heatmap, SEEN), in_box=True
    )
    found: list[list[float]] = each.normalised().tolist()
    assert each.on_picture().tolist() == values
    return found


@pytest.mark.parametrize(
    ("box", "expected"),
    [
        ((0.0, 0.0, 2.0, 2.0), [[0, 0.25, 0, 0], [1, 0.75, 0, 0]]),
        ((0.9, 0.1, 2.1, 0.9), [[0, 0.5, 1, 0], [0, 0, 0, 0]]),  # to whole pixels
        ((1.0, 0.0, 3.0, 2.0), [[0, 0, 0.2, 0], [0, 0.4, 1, 0]]),
        ((-5.0, -5.0, 99.0, 0.5), [[0, 0.125, 0.25, 1], [0, 0, 0, 0]]),  # to the picture
        ((2.2, 1.1, 2.3, 1.2), [[0] * 4] * 2),  # one pixel is flat
        ((4.0, 2.0, 4.0, 2.0), [[0] * 4] * 2),  # the last, at the border
        ((-3.0, 0.0, -1.0, 2.0), [[0] * 4, [1, 0, 0, 0]]),  # the first column
    ],
)
def test_normalised_in_the_box(
    box: tuple[float, float, float, float], expected: list[list[float]]
) -> None:
    torch.testing.assert_close(torch.tensor(shown(box, MAP)), torch.tensor(expected).float())
    assert shown(box, [[3.0] * 4] * 2) == [[0.0] * 4] * 2


def test_boxes_together_are_normalised_each_and_the_larger_value_counts() -> None:
    values = [[1.0, 3.0, 5.0, 5.0], [2.0, 2.0, 4.0, 0.0]]
    left, right = (0.0, 0.0, 2.0, 2.0), (1.0, 0.0, 3.0, 2.0)
    each = Explanation(
        *(0, (0.0, 0.0, 3.0, 2.0), 1, "cat", 0.9, "odam", "class", "emitting", "0"),
        *(torch.tensor(values), SEEN),
        in_box=True,
        boxes=(left, right),
    )
    # Left 1 ... 3, right 2 ... 5; they share the second column.
    expected = torch.tensor([[0, 1, 1, 0], [0.5, 0.5, 2 / 3, 0]])
    torch.testing.assert_close(each.normalised(), expected)


Scale = Callable[[NDArray[np.float32]], NDArray[np.float32]]


def in_one_piece(heat: NDArray[np.float32]) -> NDArray[np.float32]:
    """`scale_cam_image` takes a batch: given [h, w] itself, it stretches each row on its own."""
    scaled: NDArray[np.float32] = scale_cam_image(heat[None])[0]
    return scaled


def renormalised(
    heat: NDArray[np.float32], boxes: list[tuple[int, int, int, int]], scale: Scale
) -> NDArray[np.float32]:
    """As renormalize_cam_in_bounding_boxes of pytorch-grad-cam's tutorial on detectors, where
    `scale` is scale_cam_image. Its boxes are integers inside the picture; and its last stretch
    changes nothing as long as boxes leave a pixel at 0."""
    images = np.zeros((len(boxes), *heat.shape), np.float32)
    for image, (x1, y1, x2, y2) in zip(images, boxes, strict=True):
        image[y1:y2, x1:x2] = scale(heat[y1:y2, x1:x2].copy())
    return scale(images.max(0))


@pytest.mark.parametrize("rows", ["alike", "different"])
@pytest.mark.parametrize(
    "boxes",
    [
        [(1, 2, 9, 8), (5, 4, 15, 11)],  # they overlap
        [(0, 0, 16, 9), (4, 3, 9, 7)],  # one in the other
        [(3, 3, 4, 12), (1, 5, 14, 6), (12, 0, 16, 4)],  # crossed, and one apart
    ],
)
def test_in_boxes_as_pytorch_grad_cam(boxes: list[tuple[int, int, int, int]], rows: str) -> None:
    heat = torch.rand((12, 16) if rows == "different" else 16, generator=torch.manual_seed(3))
    heat = heat.expand(12, 16).contiguous()
    each = Explanation(
        *(0, (0.0, 0.0, 16.0, 12.0), 1, "cat", 0.9, "odam", "class", "emitting", "0"),
        *(heat, Geometry(16, 12, 16.0, 12.0, 1.0, 1.0)),
        in_box=True,
        boxes=tuple((float(x1), float(y1), float(x2), float(y2)) for x1, y1, x2, y2 in boxes),
    )
    ours = each.normalised().numpy()
    np.testing.assert_allclose(ours, renormalised(heat.numpy(), boxes, in_one_piece), atol=1e-5)
    # As it is written there, each row of pixels has its own least and largest value.
    by_rows = renormalised(heat.numpy(), boxes, scale_cam_image)
    assert (np.abs(ours - by_rows).max() < 1e-5) == (rows == "alike")
