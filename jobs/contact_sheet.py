"""The contact sheet: a first look at a job, drawn from what it has committed."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import groupby, islice
from typing import Any

import torch
from numpy.typing import NDArray
from PIL import Image

from archives.errors import DeniedObjectError, MissingObjectError
from archives.stores.store import Store
from handlers.images import Geometry, PictureError, decode_picture
from handlers.render import contact_sheet, encode_jpeg, overlay_all
from handlers.schema import Explanation
from jobs.inputs.plan import Plan
from jobs.names import CONTACT_SHEET, array_name, printable
from jobs.tables import read_npz, read_rows
from jobs.worker.commit import read_stats, read_table
from jobs.worker.outcome import on_several_layers

PICTURES = 12
COLUMNS = 4
CELL = 320  # pixels


def write_contact_sheet(source: Store, output: Store, plan: Plan) -> bool:
    """Draws the first pictures that have detections; False, and no sheet, if there are none.

    Of several layers the first is drawn.

    From tables, heatmaps and pictures read back, so that it is the same after a resumed run. A
    picture that has gone since is left out.
    """
    images: list[Image.Image] = []
    explained = _explained(output, plan)
    with ThreadPoolExecutor(PICTURES) as pool:
        while len(images) < PICTURES and (some := [*islice(explained, PICTURES - len(images))]):
            pictures = pool.map(partial(_decoded, source), [key for key, _ in some])
            images += [
                overlay_all(picture, explanations, longest=CELL)
                for picture, (_, explanations) in zip(pictures, some, strict=True)
                if picture is not None
            ]
    if not images:
        return False
    sheet = contact_sheet(images, min(COLUMNS, len(images)), CELL)
    output.write(CONTACT_SHEET, encode_jpeg(sheet))
    return True


def _decoded(source: Store, key: str) -> torch.Tensor | None:
    try:
        return decode_picture(source.read(key))
    except (MissingObjectError, DeniedObjectError, PictureError):
        return None  # it was there when it was explained


def _explained(output: Store, plan: Plan) -> Iterator[tuple[str, list[Explanation]]]:
    for number in range(plan.shards):
        stats = read_stats(output, number)
        if not stats or not stats["detections"]:
            continue
        rows = read_rows(read_table(output, stats, "detections.parquet"))
        maps = read_npz(read_table(output, stats, "heatmaps.npz"))
        several = on_several_layers(row["layer"] for row in rows)
        rows = [row for row in rows if row["layer"] == rows[0]["layer"]]
        keys = {printable(entry.key): entry.key for entry in plan.entries(number)}
        for name, group in groupby(rows, key=lambda row: str(row["key"])):
            key = keys[name]
            yield key, [_explanation(row, maps[_name(key, row, several)]) for row in group]


def _name(key: str, row: Mapping[str, Any], several: bool) -> str:
    return array_name(key, row["index"], row["layer"] if several else None)


def _explanation(row: Mapping[str, Any], stored: NDArray[Any]) -> Explanation:
    return Explanation(
        index=row["index"],
        box=(row["x1"], row["y1"], row["x2"], row["y2"]),
        label=row["label"],
        category=row["category"],
        score=row["score"],
        outcome=row["outcome"],
        suppressed_by=row["suppressed_by"],
        together=tuple(row["together"]),
        method=row["method"],
        target=row["target"],
        layer=row["layer"],
        level=row["level"],
        heatmap=torch.from_numpy(stored).float() * row["map_max"],
        geometry=Geometry.from_dict(json.loads(row["geometry"])),
    )
