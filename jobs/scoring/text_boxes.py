"""Detections and true objects as text files: a folder of each, a file for each picture."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from archives.errors import MissingObjectError, UsageError
from archives.stores.opening import open_store
from archives.stores.store import Store
from jobs.names import printable
from jobs.scoring.saved_boxes import SavedBoxes
from jobs.truth.annotation_files import LARGEST_FILE, decoded, number, shown

DETECTIONS, TRUTHS = "detections/", "groundtruths/"


def read_text_boxes(place: str) -> SavedBoxes:
    """Of detections/NAME.txt, lines "class confidence x y w h", and groundtruths/NAME.txt, lines
    "class x y w h", in pixels, as Object-Detection-Metrics (Padilla et al. 2020) has them; a class
    may hold spaces. A picture is one that has groundtruths, objects or not.

    That program counts pixels as VOC's does: give `pixel` 1 for its figures. Raises UsageError,
    naming the file and the line, for what is no such file.
    """
    store = open_store(place)
    truths = list(_rows(store, TRUTHS, 4))
    pictures = {entry.key.removeprefix(TRUTHS) for entry in _files(store, TRUTHS)}
    detections = []
    for row in _rows(store, DETECTIONS, 5):
        if row["file"] not in pictures:
            raise UsageError(
                f"{shown(store.uri)}: {DETECTIONS}{shown(row['file'])} is of a picture without"
                f" {TRUTHS}{shown(row['file'])}; expected that, empty where there are no objects"
            )
        detections.append(row)
    return SavedBoxes.of(detections, truths)


def holds_text_boxes(store: Store) -> bool:
    """Whether there are true objects in this form."""
    return next(_files(store, TRUTHS), None) is not None


def _files(store: Store, folder: str) -> Iterator[Any]:
    try:
        yield from (each for each in store.entries(folder) if each.key.endswith(".txt"))
    except MissingObjectError:
        return


def _rows(store: Store, folder: str, values: int) -> Iterator[dict[str, Any]]:
    for entry in _files(store, folder):
        address = f"{store.uri}/{entry.key}"
        if entry.size > LARGEST_FILE:
            raise UsageError(f"{shown(address)}: expected at most {LARGEST_FILE:,} bytes")
        name = entry.key.removeprefix(folder)
        for place, line in enumerate(decoded(store.read(entry.key), address).splitlines(), 1):
            if line.strip():
                where = f"{shown(address)}, line {place}"
                yield {"file": name, **_row(printable(name), line, values, where)}


def _row(name: str, line: str, values: int, where: str) -> dict[str, Any]:
    category, *words = line.strip().rsplit(maxsplit=values)
    if len(words) != values:
        raise UsageError(f"{where}: expected a class and {values} numbers, got {shown(line)!r}")
    *score, x, y, w, h = (number(each, where) for each in words)
    if w < 0 or h < 0:
        raise UsageError(f"{where}: expected no negative width or height")
    row = {"key": name.removesuffix(".txt"), "category": category}
    edges = {"x1": x, "y1": y, "x2": x + w, "y2": y + h}
    return {**row, **edges, **({"score": score[0]} if score else {})}
