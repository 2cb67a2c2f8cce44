"""What one picture leaves behind: rows for the tables, maps, and files of its own."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from handlers.metrics.pointing import energy_in_box, peak
from handlers.render import draw_boxes, encode_jpeg, overlay_all
from jobs.names import array_name, file_name, on_several_layers, printable
from jobs.tables import npz_bytes
from jobs.worker.pictures import Failure, Picture, Watch

if TYPE_CHECKING:
    from handlers.schema import Explanation


@dataclass(frozen=True)
class Done:
    """A picture's rows for detections.parquet and its arrays for heatmaps.npz."""

    rows: list[dict[str, Any]]
    maps: dict[str, NDArray[np.float16]]


def outcome(
    picture: Picture, explanations: Sequence[Explanation], overlays: str, watch: Watch
) -> tuple[Done | Failure, dict[str, bytes]]:
    """Measures and draws; the files of a picture's own by their names below the shard's folder.

    overlays: "none", "all" or "each".
    """
    with watch("render"):
        try:
            several = on_several_layers(each.layer for each in explanations)
            named = {
                array_name(picture.key, each.index, each.layer if several else None): each
                for each in explanations
            }
            done = Done(
                [_row(picture, each) for each in explanations],
                {name: _stored(each) for name, each in named.items()},
            )
            return done, _draw(picture, explanations, overlays) | _raw(picture, named)
        except Exception as error:
            return Failure.of(picture.key, "render", error), {}


def _row(picture: Picture, explanation: Explanation) -> dict[str, Any]:
    x1, y1, x2, y2 = explanation.box
    peak_x, peak_y = peak(explanation)
    heatmap = np.asarray(explanation.heatmap)
    return {
        "key": printable(picture.key),
        "index": explanation.index,
        "width": int(picture.pixels.shape[2]),
        "height": int(picture.pixels.shape[1]),
        "x1": x1,
        "y1": y1,
        "x2": x2,
        "y2": y2,
        "label": explanation.label,
        "category": explanation.category,
        "score": explanation.score,
        "method": explanation.method,
        "target": explanation.target,
        "layer": explanation.layer,
        "level": explanation.level,
        "outcome": explanation.outcome,
        "suppressed_by": explanation.suppressed_by,
        "together": list(explanation.together),
        # The handlers of an older archive do not tell.
        "boxes": [list(box) for box in getattr(explanation, "boxes", ())],
        "map_height": heatmap.shape[0],
        "map_width": heatmap.shape[1],
        "map_max": float(heatmap.max()),
        "geometry": json.dumps(explanation.geometry.to_dict(), sort_keys=True),
        "energy_in_box": energy_in_box(explanation),
        "peak_x": peak_x,
        "peak_y": peak_y,
    }


def _stored(explanation: Explanation) -> NDArray[np.float16]:
    """The heatmap divided by its maximum (all zero stays zero): raw gradients are subnormal."""
    heatmap = np.asarray(explanation.heatmap, dtype=np.float32)
    largest = heatmap.max()
    scaled = heatmap / largest if largest > 0 else np.zeros_like(heatmap)
    return scaled.astype(np.float16)


def _draw(picture: Picture, explanations: Sequence[Explanation], overlays: str) -> dict[str, bytes]:
    """JPEG files by name, as `overlays` asks for them."""
    if overlays == "none":
        return {}
    name = f"overlays/{file_name(picture.key)}"
    images = {f"{name}.jpg": overlay_all(picture.pixels, explanations)}
    if overlays == "each":
        images[f"{name}.boxes.jpg"] = draw_boxes(picture.pixels, explanations)
        for index in {each.index: None for each in explanations}:
            own = [each for each in explanations if each.index == index]
            images[f"{name}.{index:03d}.jpg"] = overlay_all(picture.pixels, own)
    return {name: encode_jpeg(image) for name, image in images.items()}


def _raw(picture: Picture, named: Mapping[str, Explanation]) -> dict[str, bytes]:
    """One .npz file by its name, of the activations and gradients that were kept, if any."""
    arrays = {
        f"{name}/{kind}": np.asarray(tensor, dtype=np.float32)
        for name, each in named.items()
        for kind, tensor in (("activation", each.activation), ("gradient", each.gradient))
        if tensor is not None
    }
    return {f"raw/{file_name(picture.key)}.npz": npz_bytes(arrays)} if arrays else {}
