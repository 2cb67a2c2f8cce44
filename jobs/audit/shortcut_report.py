"""What `jobs shortcuts` writes of what it found: rows, findings, a table."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from jobs.audit.findings import Finding, Part, Table
from jobs.audit.places import HALF, NEIGHBOUR, REGIONS, SPOT, Evidence, Place
from jobs.audit.shortcuts import Pair, ascribed, clusters

OUTSIDE, SAME_SPOT, ON_NEIGHBOUR = (
    *("evidence outside the box", "same spot of the frame", "evidence on a neighbour"),
)
NAME = "shortcuts"
# kept_...: the share of the score that is left without a region; none where it was not asked.
COLUMNS = pa.schema(
    [
        pa.field(name, kind)
        for kind, names in (
            (pa.string(), ("key",)),
            (pa.int32(), ("index",)),
            (pa.float32(), ("x1", "y1", "x2", "y2")),
            (pa.string(), ("category",)),
            (pa.float32(), ("score",)),
            (pa.int32(), ("width", "height")),
            (pa.float32(), ("kept_alone", "kept_exchanged")),
            (pa.float32(), tuple(place.column for place in REGIONS)),
            (pa.int32(), ("neighbour",)),
            (pa.string(), ("place", "instead", "cluster")),
        )
        for name in names
    ]
)
TEXT = (
    "Does the detector know objects by something else? Around each detection everything is taken"
    " away, and once another object is put into its place. Of those that fall, or stay, each strip"
    " beside the box, each cell of the frame and each neighbour is taken away by itself. A"
    " category is flagged where more pictures hold a detection of it that loses half of its score"
    " and more than chance would have. Not seen: a shortcut inside the box; cues of which each"
    " alone suffices; and what filling a region cannot hide."
)


def rows(evidence: Sequence[Evidence]) -> list[dict[str, Any]]:
    """Those of evidence.parquet."""
    places = ascribed(evidence)
    groups = clusters(evidence, places)
    found = []
    for each in evidence:
        name = each.key, each.index
        place = places.get(name)
        row = {"key": each.key, "index": each.index, "category": each.category}
        row |= dict(zip(("x1", "y1", "x2", "y2"), each.box, strict=True))
        row |= {"score": each.score, "width": each.width, "height": each.height}
        row |= {"kept_alone": each.alone, "kept_exchanged": each.exchanged}
        row |= {region.column: each.kept.get(region) for region in REGIONS}
        row |= {"neighbour": each.neighbour, "place": str(place) if place else None}
        row |= {"instead": each.instead.get(place) if place else None, "cluster": groups.get(name)}
        found.append(row)
    return found


def part(evidence: Sequence[Evidence], found: Sequence[Pair]) -> Part:
    """The report's: a finding for each detection that depends on something outside its box."""
    places = ascribed(evidence)
    groups = clusters(evidence, places)
    flagged = {(each.category, each.place): each for each in found if each.flagged}
    findings = []
    for each in evidence:
        place = places.get((each.key, each.index))
        if place is not None:
            pair = flagged.get((each.category, place))
            findings.append(_finding(each, place, pair, groups[each.key, each.index]))
    share = len(findings) / len(evidence) if evidence else 0.0
    figures = {
        "shortcuts flagged": float(len(flagged)),
        "share of detections with evidence outside": share,
        "detections asked": float(len(evidence)),
    }
    title = "Is the detector cheating?"
    return Part(NAME, title, TEXT, (table(found),), tuple(findings), figures)


def table(found: Sequence[Pair]) -> Table:
    """Categories and the places that they depend on."""
    columns = ("category", "evidence", "flagged", "detections", "pictures", "share", "95 %", "p")
    cells = tuple(
        (
            each.category,
            str(each.place),
            "yes" if each.flagged else "no",
            f"{each.dependent} of {each.detections}",
            f"{each.dependent_pictures} of {each.pictures}",
            round(each.share, 3),
            f"{each.interval[0]:.2f} to {each.interval[1]:.2f}",
            f"{each.p:.2g}",
        )
        for each in found
    )
    text = (
        "Of each category's detections those that depend on a place outside their box, and in how"
        " many of the pictures that hold the category there is one. p is corrected for all"
        " categories and places (Holm)."
    )
    return Table("Categories and where else their evidence lies", text, columns, cells)


def _finding(each: Evidence, place: Place, pair: Pair | None, group: str) -> Finding:
    if place.kind == NEIGHBOUR:
        flag = ON_NEIGHBOUR
    elif place.kind == SPOT and pair is not None:  # only then it is the same across pictures
        flag = SAME_SPOT
    else:
        flag = OUTSIDE
    # Of what stays though the object is another, all that stays speaks for the surroundings.
    lost = 1 - each.kept.get(place, each.alone)
    if place not in each.kept and each.alone >= HALF:
        lost = each.exchanged
    lost = min(1.0, max(0.0, lost))
    says = f"{each.category} {each.score:.2f} {reason(each, place)}"
    if pair is not None:
        says += (
            f"; so do {pair.dependent} of {pair.detections} detections of {each.category},"
            f" in {pair.dependent_pictures} of {pair.pictures} pictures"
        )
    severity = lost if pair is not None else lost / 2
    return Finding(each.key, each.index, flag, severity, f"{says}.", group)


def reason(each: Evidence, place: Place) -> str:
    """What shows that a detection depends on a place, for a person."""
    if place in each.kept:
        instead = each.instead.get(place, "")
        becomes = ""
        if instead != each.category:
            becomes = f" and is called {instead}" if instead else " and nothing is found there"
        score = each.kept[place] * each.score
        return f"keeps {score:.2f} without {_named(place)}{becomes}"
    if each.alone < HALF:
        return f"keeps {each.alone * each.score:.2f} with its box alone, and falls by no one region"
    return f"keeps {each.exchanged * each.score:.2f} with another object in its box"


def _named(place: Place) -> str:
    if place.kind == SPOT:
        return f"the frame's {place.name} part"
    if place.kind == NEIGHBOUR:
        return "its neighbour"
    return {"right": "what is to its right", "left": "what is to its left"}.get(
        place.name, f"what is {place.name} it"
    )
