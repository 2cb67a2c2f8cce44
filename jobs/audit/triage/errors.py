"""What is wrong with a picture's detections, held against its true objects.

The kinds are those of TIDE (Bolya et al. 2020): a wrong category, a badly placed box, a second box
of one object, a false alarm on the background, and a missed object that none of these is about.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from jobs.audit.findings import Finding
from jobs.audit.triage.noticed import (
    BADLY_PLACED,
    FALSE_ALARM,
    MISSED,
    SECOND_BOX,
    WRONG_CATEGORY,
    Noticed,
)
from jobs.saved_run import Row, SavedPicture
from jobs.scoring.matching import FALSE, matched, overlaps
from jobs.truth.objects import Objects

Box = tuple[float, float, float, float]
# IoU from which a box is an object's, and from which it is about it at all.
LEAST, NEAR = 0.5, 0.1


@dataclass(frozen=True)
class Missed:
    """An object that no detection is about. near: the best IoU with any detection."""

    category: str
    box: Box
    near: float


@dataclass(frozen=True)
class Judged:
    """One picture's. found: detections that are wrong. missed: objects to ask the detector about.
    objects: how many count, of the detector's categories. explained: of these missed ones that a
    detection in `found` is about, by its flag."""

    found: tuple[Noticed, ...]
    missed: tuple[Missed, ...]
    objects: int
    explained: tuple[str, ...]


def judged(
    picture: SavedPicture, rows: Sequence[Row], objects: Objects, known: Collection[str]
) -> Judged:
    """A picture's detections, a row of each, held against its objects.

    known: the detector's categories; objects of others count neither way.
    """
    boxes = np.array([[row[name] for name in ("x1", "y1", "x2", "y2")] for row in rows])
    boxes = boxes.reshape(-1, 4).astype(np.float64)
    names = [str(row["category"]) for row in rows]
    scores = np.array([row["score"] for row in rows], dtype=np.float64)
    places = matched(boxes, names, scores, objects, LEAST)
    shares = overlaps(boxes, objects.boxes)
    counted = [
        place
        for place, name in enumerate(objects.categories)
        if name in known and not (objects.difficult[place] or objects.crowd[place])
    ]
    left = [place for place in counted if place not in places]
    found, about = [], {}
    for place in np.flatnonzero(places == FALSE).tolist():
        flag, other, says = _wrong(shares[place], names[place], objects)
        if flag in (WRONG_CATEGORY, BADLY_PLACED) and other in left:
            about[other] = flag
        row, score = rows[place], float(scores[place])
        text = f"{names[place]} {score:.2f}: {says}"
        finding = Finding(picture.name, int(row["index"]), flag, min(score, 1.0), text)
        found.append(Noticed(picture.key, names[place], finding))
    missed = tuple(
        Missed(
            objects.categories[place],
            _box(objects.boxes[place]),
            float(shares[:, place].max()) if len(rows) else 0.0,
        )
        for place in left
        if place not in about
    )
    return Judged(tuple(found), missed, len(counted), tuple(about.values()))


def _wrong(
    shares: NDArray[np.float64], category: str, objects: Objects
) -> tuple[str, int | None, str]:
    """What kind of error a detection is, the object that it is about, and that in words."""
    same = np.array([name == category for name in objects.categories], dtype=np.bool_)
    own, others = np.where(same, shares, 0.0), np.where(same, 0.0, shares)
    if others.size and others.max() >= LEAST and others.max() >= own.max():
        place = int(others.argmax())
        return WRONG_CATEGORY, place, f"is {_named(objects, place)}"
    if own.size and own.max() >= LEAST:
        place = int(own.argmax())
        return SECOND_BOX, place, f"{_named(objects, place)} has a surer box already"
    if own.size and own.max() >= NEAR:
        place = int(own.argmax())
        says = f"is badly placed on {_named(objects, place)}, IoU {own.max():.2f}"
        return BADLY_PLACED, place, says
    return FALSE_ALARM, None, "there is nothing of the kind"


def _named(objects: Objects, place: int) -> str:
    edges = ", ".join(f"{edge:.0f}" for edge in objects.boxes[place])
    return f"the {objects.categories[place]} at {edges}"


def _box(edges: NDArray[np.float64]) -> Box:
    x1, y1, x2, y2 = (float(edge) for edge in edges)
    return x1, y1, x2, y2


@dataclass(frozen=True)
class Why:
    """Why an object was missed.

    kind: a few words, of which there are few. says: one clause for a person. severity: how sure the
    detector was that there is no such object, 0 ... 1: one less the score of its candidate, where
    that was on the object.
    """

    kind: str
    says: str
    severity: float


def missed_finding(key: str, name: str, missed: Missed, why: Why) -> Noticed:
    """The finding of an object that was missed on the picture `key`, printable `name`."""
    edges = ", ".join(f"{edge:.0f}" for edge in missed.box)
    text = f"the {missed.category} at {edges} was missed, {why.kind}: {why.says}"
    finding = Finding(name, None, MISSED, why.severity, text, why.kind)
    return Noticed(key, missed.category, finding)
