"""One picture, several methods, several layers: a grid that shows what each makes of a box."""

from __future__ import annotations

import io
from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from archives.errors import UsageError, shortened
from archives.stores.opening import open_root, split_uri
from handlers.grid import Block, draw_grid
from handlers.images import PictureError, decode_picture
from handlers.method_check import without_layer
from handlers.render import caption, encode_jpeg, overlay, resized
from handlers.schema import SHAPES, ExplainRequest, Explanation
from jobs.errors import DONE
from jobs.options import SweepOptions
from jobs.progress import counted

if TYPE_CHECKING:
    from PIL import Image
    from torch import Tensor

    from handlers.explainer import Explainer

CELL = 240  # pixels, the longer side of each small picture
MOST_CELLS = 240


def sweep(options: SweepOptions, explainer: Explainer) -> int:
    """Draws the grid to `options.output`; returns 0.

    Raises RequestError for names that the detector does not know, UsageError if there is no such
    picture, no layer of that pattern, no box, or if the grid would be too large.
    """
    picture = _read(options.input)
    common = {"max_detections": 1, **options.request}
    common |= {"fuse": False, "sum_boxes": False, "save_raw": False}
    defaults = ExplainRequest.from_fields(common, explainer.defaults)
    explainer.check(defaults)
    layers = expand(options.layers, explainer, defaults.target_name)
    _check_size(len(layers), len(options.methods), 1)
    shapes = {name: value for name, value in options.request.items() if name in SHAPES}
    requests = [
        ExplainRequest.from_fields(
            {
                "method": method,
                "layer": None if without_layer(method) else ",".join(layers),
                **shapes,
            },
            defaults,
        )
        for method in dict.fromkeys(options.methods)
    ]
    for request in requests:
        explainer.check(request)
    rows = []
    for request in requests:
        # A map of a method without a layer stands in the columns of all layers.
        times = len(layers) if without_layer(request.method) else 1
        found = explainer.explain([picture], request)[0]
        rows.append([each for each in found for _ in range(times)])
    if not rows[0]:
        raise UsageError(
            f"{shortened(options.input)}: nothing to explain, since no box scores at least"
            f" {explainer.resolved(defaults).score_threshold:g}; lower --score-threshold, or take"
            " --candidates 1"
        )
    boxes = len(rows[0]) // len(layers)
    _check_size(len(layers), len(requests), boxes)
    sheet = draw(picture, rows, len(layers))
    root, path = split_uri(options.output)
    open_root(root).write(path, _encoded(sheet, path))
    what = f"{counted(len(layers), 'layer')} x {counted(len(requests), 'method')}"
    print(f"{what} for {counted(boxes, 'box', 'boxes')}: {options.output}")
    return DONE


def expand(patterns: Sequence[str], explainer: Explainer, target: str) -> tuple[str, ...]:
    """The layers that names and patterns stand for, each once: in the patterns' order, those of
    one pattern in the detector's.

    Of a module and modules inside of it that match one pattern, those inside are taken: the outer
    one gives what the last of them does. Raises UsageError for a pattern that nothing matches.
    """
    found: list[str] = []
    for pattern in patterns:
        if not any(letter in pattern for letter in "*?["):
            found.append(pattern)
            continue
        names = [
            each.name
            for each in explainer.survey()
            if fnmatchcase(each.name, pattern) and each.explains(target)
        ]
        inner = [name for name in names if not any(other.startswith(name + ".") for other in names)]
        if not inner:
            raise UsageError(
                f"no layer that can be explained for the target {target} matches"
                f" {shortened(pattern)!r}; `python -m jobs explain --preview-model` lists them"
            )
        found += inner
    return tuple(dict.fromkeys(found))


def draw(picture: Tensor, rows: Sequence[Sequence[Explanation]], layers: int) -> Image.Image:
    """The grid: below each other the boxes, of each a row for each method.

    picture: uint8 [3, H, W]. rows: for each method its explanations, box by box, so many layers of
    each.
    """
    blocks = []
    for start in range(0, len(rows[0]), layers):
        first = rows[0][start]
        cells = []
        for row in rows:
            small, own = resized(picture, row[start : start + layers], CELL)
            cells.append([overlay(small, each, CELL, labels=False) for each in own])
        blocks.append(
            Block(
                title=f"{caption(first)}, target {first.target}",
                columns=[each.layer for each in rows[0][start : start + layers]],
                rows=[row[start].method for row in rows],
                cells=cells,
            )
        )
    return draw_grid(blocks)


def _read(uri: str) -> Tensor:
    root, path = split_uri(uri)
    try:
        return decode_picture(open_root(root).read(path))
    except PictureError as error:
        raise UsageError(f"{shortened(uri)}: {error}") from error


def _check_size(layers: int, methods: int, boxes: int) -> None:
    if layers * methods * boxes > MOST_CELLS:
        of_boxes = f" for {boxes} boxes" if boxes > 1 else ""
        raise UsageError(
            f"{layers} layers by {counted(methods, 'method')}{of_boxes} are more than the"
            f" {MOST_CELLS} small pictures that a grid holds; name fewer"
        )


def _encoded(image: Image.Image, name: str) -> bytes:
    if not name.lower().endswith(".png"):
        return encode_jpeg(image)
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()
