"""The contact sheet: a first look at a job, drawn from what it has committed."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from itertools import groupby, islice
from typing import Any

import torch
from numpy.typing import NDArray

from handlers.images import Geometry, decode_picture
from handlers.render import contact_sheet, encode_jpeg, overlay_all
from handlers.schema import Explanation
from jobs.errors import MissingObjectError
from jobs.listing import Listing
from jobs.names import CONTACT_SHEET, array_name, printable
from jobs.shard import folder, on_several_layers
from jobs.store import Store
from jobs.tables import read_npz, read_rows

PICTURES = 12
COLUMNS = 4
CELL = 320  # pixels


def write_contact_sheet(listing: Listing, output: Store, shards: int, shard_size: int) -> bool:
    """Draws the first pictures that have detections; False, and no sheet, if there are none.

    Of several layers the first is drawn.

    From tables, heatmaps and pictures read back, so that it is the same after a resumed run. A
    picture that has gone since is left out.
    """
    explained = _explained(listing, output, shards, shard_size)
    images = []
    for key, explanations in explained:
        try:
            data = listing.store.read(key)
        except MissingObjectError:
            continue
        images.append(overlay_all(decode_picture(data), explanations, longest=CELL))
        if len(images) == PICTURES:
            break
    if not images:
        return False
    sheet = contact_sheet(images, min(COLUMNS, len(images)), CELL)
    output.write(CONTACT_SHEET, encode_jpeg(sheet))
    return True


def _explained(
    listing: Listing, output: Store, shards: int, shard_size: int
) -> Iterator[tuple[str, list[Explanation]]]:
    for number in range(shards):
        rows = read_rows(output.read(folder(number) + "detections.parquet"))
        if not rows:
            continue
        maps = read_npz(output.read(folder(number) + "heatmaps.npz"))
        several = on_several_layers(row["layer"] for row in rows)
        rows = [row for row in rows if row["layer"] == rows[0]["layer"]]
        entries = islice(listing.entries, number * shard_size, (number + 1) * shard_size)
        keys = {printable(entry.key): entry.key for entry in entries}
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
