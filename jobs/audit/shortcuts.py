"""Which categories a detector knows by something outside the object: by what removal told of each
detection (jobs.audit.evidence), category by category.

A category is flagged at a place if more pictures hold a detection of it that depends on that place
than chance would have, at a level that honest detectors stay below; corrected for all categories
and places.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from jobs.audit.places import PLACES, Evidence, Place
from jobs.audit.proportions import binomial_tail, holm, wilson

# Of the pictures that hold a category the share in which a detection of an honest detector may
# depend on one place. Those measured in docs/shortcuts.md stay below.
HONEST_LEVEL = 0.01
# The corrected p-value below which a category is flagged.
SIGNIFICANT = 0.01
# The least share of a category's detections: fewer may be true, and are not worth a flag.
LEAST_SHARE = 0.05
# Of their colours (0 ... 1) so much is shared by marks that look alike.
ALIKE = 0.5
# A category's detections have to be this many.
LEAST_DETECTIONS = 5


@dataclass(frozen=True)
class Pair:
    """A category and a place that it may be known by.

    detections, pictures: of the category, and how many hold one. dependent, dependent_pictures: of
    those the ones that depend on the place. share: of the detections, and its 95 % interval, as if
    there were as many as pictures, since those of one picture are no independent evidence.
    p: corrected for all pairs. flagged: whether share and p agree.
    """

    category: str
    place: Place
    detections: int
    dependent: int
    pictures: int
    dependent_pictures: int
    share: float
    interval: tuple[float, float]
    p: float
    flagged: bool


def ascribed(evidence: Sequence[Evidence]) -> dict[tuple[str, int], Place]:
    """By key and index the one place that each dependent detection is ascribed to.

    Regions share pixels: a badge beside a box lies in a cell of the frame, too. So of a category
    the place that most detections depend on is taken first, then that of most of the rest.
    """
    found: dict[tuple[str, int], Place] = {}
    by_category: dict[str, dict[tuple[str, int], tuple[Place, ...]]] = defaultdict(dict)
    for each in evidence:
        if each.places:
            by_category[each.category][each.key, each.index] = each.places
    for left in by_category.values():
        while left:
            counts = Counter(place for places in left.values() for place in places)
            most = max(counts.values())
            best = next(place for place in PLACES if counts[place] == most)
            found |= {name: best for name, places in left.items() if best in places}
            left = {name: places for name, places in left.items() if best not in places}
    return found


def pairs(evidence: Sequence[Evidence], level: float = HONEST_LEVEL) -> list[Pair]:
    """Every category and place that any detection depends on, the flagged ones and the largest
    shares first."""
    places = ascribed(evidence)
    own: Mapping[str, list[Evidence]] = defaultdict(list)
    for each in evidence:
        own[each.category].append(each)
    rows = []
    for category, detections in own.items():
        pictures = len({each.key for each in detections})
        for place in PLACES:
            dependent = [each for each in detections if places.get((each.key, each.index)) == place]
            held = len({each.key for each in dependent})
            rows.append((category, place, len(detections), len(dependent), pictures, held))
    corrected = holm([binomial_tail(row[5], row[4], level) for row in rows])
    found = []
    for (category, place, number, dependent_number, pictures, held), p in zip(
        rows, corrected, strict=True
    ):
        if not dependent_number:
            continue
        share = dependent_number / number
        flagged = p < SIGNIFICANT and share >= LEAST_SHARE and number >= LEAST_DETECTIONS
        interval = _interval(share, pictures)
        found.append(
            Pair(
                category,
                place,
                number,
                dependent_number,
                pictures,
                held,
                share,
                interval,
                p,
                flagged,
            )
        )
    return sorted(found, key=lambda each: (not each.flagged, -each.share, each.category))


def _interval(share: float, pictures: int) -> tuple[float, float]:
    return wilson(round(share * pictures), pictures)


def clusters(
    evidence: Sequence[Evidence], places: Mapping[tuple[str, int], Place]
) -> dict[tuple[str, int], str]:
    """By key and index the name of each ascribed detection's cluster: its category, its place, and
    where marks of several looks lie there, a number.

    A detection joins the first cluster whose first one shares at least ALIKE of its colours.
    places: as `ascribed` gives them.
    """
    leaders: dict[tuple[str, Place], list[tuple[float, ...]]] = defaultdict(list)
    numbers: dict[tuple[str, int], tuple[str, Place, int]] = {}
    for each in sorted(evidence, key=lambda each: (each.key, each.index)):
        place = places.get((each.key, each.index))
        if place is None:
            continue
        own, look = leaders[each.category, place], each.looks.get(place, ())
        shared = [sum(map(min, look, first)) for first in own]
        number = next((turn for turn, share in enumerate(shared) if share >= ALIKE), len(own))
        if number == len(own):
            own.append(look)
        numbers[each.key, each.index] = (each.category, place, number)
    return {
        name: f"{category}: {place}"
        + (f", look {number + 1}" if len(leaders[category, place]) > 1 else "")
        for name, (category, place, number) in numbers.items()
    }
