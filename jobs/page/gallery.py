"""The gallery's data: scripts that hand it over, since a page opened from disk may fetch nothing.

data/meta.js is what all of it refers to; data/index-000.js, ... hold boxes and findings of all its
pictures, in its order; data/picture-00000.js, ... one picture each, small, with its heatmaps, which
the page asks for when it is to be seen. What is data is in values, never in names of properties.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import torch
from PIL import Image

from archives.errors import DeniedObjectError, MissingObjectError
from archives.stores.store import Store
from handlers.images import PictureError, decode_picture, to_image
from handlers.render import encode_heatmap, encode_jpeg
from handlers.schema import Explanation
from jobs.audit.findings import Finding, Part
from jobs.page.audits import Flags
from jobs.page.selection import Chosen
from jobs.page.text import setting, visible
from jobs.saved_run import Row, SavedPicture, SavedRun

LONGEST = 512  # pixels of a picture's longer side
QUALITY = 80
LONGEST_MAP = 128  # cells of a heatmap's longer side; of larger ones blocks are averaged
# Boxes of one index script: the first is small, so that the first pictures are there at once.
FIRST_BOXES, MORE_BOXES = 300, 2_000
THREADS = 4  # that read and shrink pictures
AHEAD = 4 * THREADS
DIGITS = 4  # of scores and energies

Write = Callable[[str, bytes], None]


@dataclass
class Numbering:
    """Names by numbers, in the order in which they came."""

    names: dict[str, int] = field(default_factory=dict)

    def of(self, name: str) -> int:
        """The number of a name, from 0."""
        return self.names.setdefault(name, len(self.names))


@dataclass
class Meta:
    """What the index refers to by numbers."""

    categories: Numbering = field(default_factory=Numbering)
    settings: Numbering = field(default_factory=Numbering)
    outcomes: Numbering = field(default_factory=Numbering)
    flags: Numbering = field(default_factory=Numbering)
    groups: Numbering = field(default_factory=Numbering)
    parts: Numbering = field(default_factory=Numbering)


def write_gallery(
    run: SavedRun, chosen: Chosen, flags: Flags, source: Store | None, write: Write
) -> int:
    """Writes the scripts; returns how many pictures could not be read any more.

    source: where the pictures lie, None for a report without them. write: takes a name below the
    report's folder, and what is to be there.
    """
    meta = Meta()
    index: list[Any] = [None] * len(chosen.ranks)
    in_box = bool(run.record["options"].get("normalize_in_box", False))
    gone = 0
    with ThreadPoolExecutor(THREADS, "pictures") as pool:
        waiting: list[Future[bool]] = []
        for each in run.pictures(sorted({shard for shard, _ in chosen.ranks})):
            rank = chosen.ranks.get((each.shard, each.name))
            if rank is None:
                continue
            index[rank] = _entry(each, flags, meta)
            waiting.append(pool.submit(_write_picture, rank, each, in_box, source, write))
            if len(waiting) >= AHEAD:
                gone += waiting.pop(0).result()
        gone += sum(each.result() for each in waiting)
    chunks = _chunks([each for each in index if each is not None])
    for number, chunk in enumerate(chunks):
        write(f"data/index-{number:03d}.js", _script(f"index-{number:03d}", chunk))
    names = {name: [visible(each) for each in own.names] for name, own in vars(meta).items()}
    facts = {
        "chunks": len(chunks),
        "pictures": len(index),
        "boxes": chosen.boxes,
        "pixels": source is not None,
    }
    write("data/meta.js", _script("meta", facts | names))
    return gone


def _entry(picture: SavedPicture, flags: Flags, meta: Meta) -> dict[str, Any]:
    """A picture of the index.

    key, shown (where that is another), width, height, shard; boxes: for each row index, x1, y1, x2,
    y2, label, category, score, setting, level, outcome, energy; findings: for each the index of its
    box (null for the picture), flag, severity, what it says, group, part.
    """
    found = [(None, each) for each in flags.by_picture.get(picture.name, [])]
    of_boxes: list[tuple[int | None, tuple[Part, Finding]]] = [
        (index, each)
        for index in dict.fromkeys(row["index"] for row in picture.rows)
        for each in flags.by_box.get((picture.name, index), [])
    ]
    first: Row = picture.rows[0] if picture.rows else {"width": 4, "height": 3}
    entry = {
        "key": picture.name,
        "width": first["width"],
        "height": first["height"],
        "shard": picture.shard,
        "boxes": [_box(row, meta) for row in picture.rows],
        "findings": [
            [
                index,
                meta.flags.of(each.flag),
                round(each.severity, DIGITS),
                visible(each.says),
                meta.groups.of(each.group),
                meta.parts.of(part.title),
            ]
            for index, (part, each) in sorted(
                [*found, *of_boxes], key=lambda pair: -pair[1][1].severity
            )
        ],
    }
    shown = visible(picture.name)
    return entry if shown == picture.name else entry | {"shown": shown}


def _box(row: Row, meta: Meta) -> list[Any]:
    return [
        row["index"],
        *(round(row[name], 1) for name in ("x1", "y1", "x2", "y2")),
        row["label"],
        meta.categories.of(row["category"]),
        round(row["score"], DIGITS),
        meta.settings.of(setting(row)),
        visible(row["level"]),
        meta.outcomes.of(row["outcome"]),
        round(row["energy_in_box"], DIGITS),
    ]


def _write_picture(
    rank: int, picture: SavedPicture, in_box: bool, source: Store | None, write: Write
) -> bool:
    """Writes one picture's script; whether it could not be read any more."""
    image = None if source is None else _small(source, picture.key)
    geometries = Numbering()
    maps = []
    for row in picture.rows:
        geometry = json.dumps(json.loads(row["geometry"]), sort_keys=True)
        explanation = picture.explanation(row)
        own = {"geometry": geometries.of(geometry), "boxes": explanation.boxes}
        maps.append(_map(explanation) | own)
    data = {
        "jpeg": None if image is None else _text(encode_jpeg(image, QUALITY)),
        "size": None if image is None else image.size,
        "inBox": in_box,
        "geometries": [json.loads(each) for each in geometries.names],
        "maps": maps,
    }
    write(f"data/picture-{rank:05d}.js", _script(f"picture-{rank:05d}", data))
    return source is not None and image is None


def _small(source: Store, key: str) -> Image.Image | None:
    try:
        image = to_image(decode_picture(source.read(key)))
    except (MissingObjectError, DeniedObjectError, PictureError):
        return None  # it was there when it was explained
    image.thumbnail((LONGEST, LONGEST), Image.Resampling.LANCZOS, reducing_gap=2.0)
    return image


def _map(explanation: Explanation) -> dict[str, Any]:
    heat = explanation.heatmap
    height, width = heat.shape
    longest = max(height, width)
    if longest > LONGEST_MAP:
        # Blocks of whole frames: the cells divide the frame as evenly as before.
        height, width = (max(1, round(side * LONGEST_MAP / longest)) for side in (height, width))
        heat = torch.nn.functional.adaptive_avg_pool2d(heat[None], (height, width))[0]
    low, high = float(heat.min()), float(heat.max())
    png = _text(encode_heatmap(heat))
    return {"png": png, "width": width, "height": height, "min": low, "max": high}


def _chunks(index: Sequence[dict[str, Any]]) -> list[list[dict[str, Any]]]:
    chunks: list[list[dict[str, Any]]] = [[]]
    boxes = 0
    for each in index:
        if chunks[-1] and boxes >= (FIRST_BOXES if len(chunks) == 1 else MORE_BOXES):
            chunks.append([])
            boxes = 0
        chunks[-1].append(each)
        boxes += 1 + len(each["boxes"])
    return chunks


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _script(name: str, data: Any) -> bytes:
    """A script that hands `data` to the page, in ASCII."""
    text = json.dumps(data, separators=(",", ":"), allow_nan=False)
    return f'whybox.receive("{name}", {text});\n'.encode("ascii")
