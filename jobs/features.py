"""Feature maps of pictures: for each picture a grid of its layers, their maps, their channels."""

from __future__ import annotations

import io
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from typing import TYPE_CHECKING

import torch
from PIL import Image, ImageDraw, ImageFont

from archives.errors import UsageError, shortened
from archives.stores.opening import open_store
from archives.stores.store import Entry
from handlers.feature_maps import (
    SQUEEZE_MEAN,
    FeatureMap,
    FeatureView,
    Reduced,
    Reduction,
    check_layers,
    feature_maps,
    normalised,
    on_pixels,
)
from handlers.grid import BACKGROUND, GAP, INK, Block, draw_grid, wrapped
from handlers.images import Geometry, to_image
from handlers.render import blend, draw_boxes, encode_jpeg, resized
from handlers.schema import Detections, ExplainRequest, Explanation, RequestError
from jobs.errors import DONE, DONE_WITH_FAILURES
from jobs.inputs.listing import Listing, list_input
from jobs.names import file_name, printable
from jobs.notes import say
from jobs.options import FORMATS, FeatureOptions
from jobs.progress import Progress, counted
from jobs.worker.pictures import Failure, Picture, Pools, cores, load_ahead
from jobs.worker.shard import check_whose

if TYPE_CHECKING:
    from torch import Tensor

    from handlers.explainer import Explainer

ENDING = ".features."  # and the format: what this command drew is not its input
ENDINGS = tuple(ENDING + kind for kind in FORMATS)
CELL = 320  # pixels, the longer side of a map's picture
CHANNEL_CELL = 200  # of a picture in an arrangement of channels
NARROWEST = 150  # what a caption needs
IN_A_ROW = 5  # small pictures beside each other, unless one map's arrangement is wider
MOST_CELLS = 240
FONT_SIZE = 13


def features(options: FeatureOptions, explainer: Explainer) -> int:
    """Draws each picture's feature maps to the output; returns 0, or 3 if pictures failed.

    Drawings that are there already are replaced. Raises RequestError for layers, a reduction or a
    threshold that cannot be, UsageError if there are no pictures or the grid would be too large.
    """
    rows, columns = options.arrangement
    reduction = Reduction(options.channel_reduction, options.topk, (rows, columns))
    request = ExplainRequest(score_threshold=options.score_threshold)
    check_layers(explainer, options.layers)
    with list_input(options.inputs, options.output) as listing:
        entries = _pictures_of(listing, options.inputs)
    output = open_store(options.output)

    def finish(seen: tuple[Picture, FeatureView] | Failure) -> Failure | None:
        if isinstance(seen, Failure):
            return seen
        picture, view = seen
        try:
            boxes = _boxes(view.detections, explainer, request)
            sheet = _encoded(draw(picture, view, boxes, reduction, options), options.format)
        except RequestError:
            raise
        except Exception as error:
            return Failure.of(picture.key, "render", error)
        output.write(f"{file_name(picture.key)}{ENDING}{options.format}", sheet)
        return None

    outcomes: list[Failure | None] = []
    finishing: deque[Future[Failure | None]] = deque()
    pools = Pools.start()
    try:
        with Progress(len(entries), 0) as progress:
            for each in load_ahead(listing.store, entries, pools.transfer, 1):
                seen = each if isinstance(each, Failure) else _look(each, explainer, options)
                if not isinstance(seen, Failure):
                    _check_size(seen[1], reduction)
                finishing.append(pools.drawing.submit(finish, seen))
                # A few are drawn beside the detector; the maps of all would fill the memory.
                last = len(outcomes) + len(finishing) == len(entries)
                while len(finishing) > (0 if last else cores()):
                    outcomes.append(finishing.popleft().result())
                    progress.add(1, int(outcomes[-1] is not None))
    finally:
        pools.shutdown()
    return _summarise(outcomes, options)


def draw(
    picture: Picture,
    view: FeatureView,
    boxes: Sequence[Explanation],
    reduction: Reduction,
    options: FeatureOptions,
) -> Image.Image:
    """The picture with its boxes, and below it the maps, layer by layer.

    Layers of one map stand beside each other, and layers of several in rows of their own.
    """
    longest = CELL if reduction.places == (1, 1) else CHANNEL_CELL
    base = None
    if options.over != "none":
        seen = picture.pixels if options.over == "picture" else view.network_input
        base = resized(seen, [], longest)[0]
    blocks = [_pictures(picture, view, boxes, options)]
    across = max(1, IN_A_ROW // reduction.places[1])
    single: list[tuple[str, Image.Image]] = []

    def flush() -> None:
        blocks.extend(_rows("", single, across))
        single.clear()

    for layer in dict.fromkeys(each.layer for each in view.maps):
        own = [each for each in view.maps if each.layer == layer]
        drawn = [(_heading(each), _drawn(each, base, longest, reduction, options)) for each in own]
        if len(own) == 1:
            single += [(f"{layer}: {name}", image) for name, image in drawn]
            continue
        flush()
        blocks += _rows(layer, drawn, across)
    flush()
    return draw_grid(blocks)


def _rows(title: str, drawn: Sequence[tuple[str, Image.Image]], across: int) -> Iterator[Block]:
    for start in range(0, len(drawn), across):
        names, images = zip(*drawn[start : start + across], strict=True)
        yield Block(title if start == 0 else "", names, [""], [images])


def _heading(each: FeatureMap) -> str:
    shape = "x".join(str(size) for size in each.activation.shape)  # in one line, where it wraps
    return f"{each.name}: {shape}" if each.name else shape


def _pictures(
    picture: Picture, view: FeatureView, boxes: Sequence[Explanation], options: FeatureOptions
) -> Block:
    small, moved = resized(picture.pixels, boxes, CELL)
    height, width = picture.pixels.shape[1:]
    names = [f"{shortened(printable(picture.key))}: {width} x {height} pixels"]
    images = [draw_boxes(small, moved, CELL)]
    if options.over == "network":
        height, width = view.network_input.shape[1:]
        names.append(f"as the network saw it: {width} x {height} pixels")
        images.append(to_image(resized(view.network_input, [], CELL)[0]))
    return Block("", names, [""], [images])


def _drawn(
    each: FeatureMap,
    base: Tensor | None,
    longest: int,
    reduction: Reduction,
    options: FeatureOptions,
) -> Image.Image:
    """One map: its small pictures, as the reduction arranges them.

    base: uint8 [3, H, W], what it is drawn over; None for nothing.
    """
    geometry = each.geometry if options.over == "picture" else each.input_geometry
    tiles = []
    for reduced in reduction(each.activation):
        values = reduced.values
        if base is not None:
            values = on_pixels(values, geometry.resized(base.shape[2], base.shape[1]))
        tile = blend(base, normalised(values), options.alpha)
        if base is None:
            tile = _enlarged(tile, longest)
        tiles.append(_captioned(tile, _caption(reduced, reduction, values)))
    rows, columns = reduction.places
    return tiles[0] if rows == columns == 1 else _arranged(tiles, rows, columns)


def _enlarged(tile: Image.Image, longest: int) -> Image.Image:
    """Cells as they are, without smoothing."""
    factor = longest / max(tile.size)
    size = (max(1, round(tile.width * factor)), max(1, round(tile.height * factor)))
    return tile.resize(size, Image.Resampling.NEAREST if factor > 1 else Image.Resampling.BOX)


def _caption(reduced: Reduced, reduction: Reduction, values: Tensor) -> str:
    """What is shown, and the values of the coldest and hottest colour."""
    what = f"channel {reduced.channels[0]}"
    if values.dim() == 3:
        what = "channels as RGB"
    elif reduction.channel_reduction == SQUEEZE_MEAN:
        what = "mean of channels"
    elif reduction.channel_reduction != "none":
        what = f"strongest: {what}"
    low, high = float(values.min()), float(values.max())
    # As many digits as tell the two apart.
    digits = next((d for d in range(3, 8) if f"{low:.{d}g}" != f"{high:.{d}g}"), 3)
    return f"{what}\n{low:.{digits}g} to {high:.{digits}g}"


def _captioned(image: Image.Image, text: str) -> Image.Image:
    font = ImageFont.load_default(FONT_SIZE)
    width = max(image.width, NARROWEST)
    text = "\n".join(wrapped(line, width, font) for line in text.split("\n"))
    measure = ImageDraw.Draw(Image.new("RGB", (1, 1)))
    bottom = round(measure.textbbox((0, 0), text, font=font)[3])
    tile = Image.new("RGB", (width, image.height + bottom + 6), BACKGROUND)
    tile.paste(image, ((width - image.width) // 2, 0))
    ImageDraw.Draw(tile).text((0, image.height + 2), text, fill=INK, font=font)
    return tile


def _arranged(tiles: Sequence[Image.Image], rows: int, columns: int) -> Image.Image:
    """The tiles row by row; places without one stay empty."""
    width = max(tile.width for tile in tiles)
    height = max(tile.height for tile in tiles)
    size = (columns * (width + GAP) - GAP, rows * (height + GAP) - GAP)
    sheet = Image.new("RGB", size, BACKGROUND)
    for place, tile in enumerate(tiles):
        row, column = divmod(place, columns)
        sheet.paste(tile, (column * (width + GAP), row * (height + GAP)))
    return sheet


def _look(
    picture: Picture, explainer: Explainer, options: FeatureOptions
) -> tuple[Picture, FeatureView] | Failure:
    try:
        return picture, feature_maps(explainer, picture.pixels, options.layers)
    except Exception as error:  # anything a detector raises for a picture is that picture's
        check_whose(error)
        return Failure.of(picture.key, "explain", error)


def _check_size(view: FeatureView, reduction: Reduction) -> None:
    rows, columns = reduction.places
    most = 1 if rows == columns == 1 else reduction.topk
    cells = sum(min(len(each.activation), most) for each in view.maps)
    if cells > MOST_CELLS:
        raise UsageError(
            f"{counted(len(view.maps), 'map')} with {cells} small pictures are more than the"
            f" {MOST_CELLS} that a grid holds; name fewer layers, or a smaller --topk"
        )


def _boxes(
    detections: Detections, explainer: Explainer, request: ExplainRequest
) -> list[Explanation]:
    """The reported boxes that are drawn, as `draw_boxes` takes them: with no heat."""
    chosen = explainer.choose(detections.labels, detections.scores, request).tolist()
    nowhere = Geometry(1, 1, 1.0, 1.0, 1.0, 1.0)
    found = []
    for index in chosen:
        x1, y1, x2, y2 = detections.boxes[index].tolist()
        label, score = int(detections.labels[index]), float(detections.scores[index])
        named = (label, explainer.categories[label], score)
        where = ("", "", "", detections.level[index])
        heat = torch.zeros(1, 1)
        found.append(Explanation(index, (x1, y1, x2, y2), *named, *where, heat, nowhere))
    return found


def _pictures_of(listing: Listing, inputs: Sequence[str]) -> list[Entry]:
    """The listing without what this command drew, unless such a file is named itself.

    Raises UsageError if nothing is left.
    """
    kept = [
        entry
        for entry in listing.entries()
        if not entry.key.endswith(ENDINGS)
        or any(f"/{uri}".endswith("/" + entry.key) for uri in inputs)
    ]
    if not kept:
        places = shortened(" ".join(inputs))
        raise UsageError(f"all pictures in {places} are feature maps that were drawn before")
    return kept


def _encoded(image: Image.Image, kind: str) -> bytes:
    if kind == "jpg":
        return encode_jpeg(image)
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def _summarise(outcomes: Sequence[Failure | None], options: FeatureOptions) -> int:
    failed = [each for each in outcomes if each is not None]
    layers = counted(len(options.layers), "layer")
    pictures = counted(len(outcomes) - len(failed), "picture")
    print(f"{layers} of {pictures}: {options.output.rstrip('/')}/*{ENDING}{options.format}")
    for each in failed:
        say(f"{each.key} could not be drawn: {each.message}")
    return DONE_WITH_FAILURES if failed else DONE
