"""What `jobs compare` tells: as data, as a part of an audit, as text."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from archives.errors import printable
from jobs.audit.changes.differences import APPEARED, DISAPPEARED, OUT_OF_REACH, TURNED
from jobs.audit.changes.findings import findings
from jobs.audit.changes.merging import Noted, Pictures
from jobs.audit.changes.options import CompareOptions
from jobs.audit.changes.settings import Setting
from jobs.audit.changes.statistics import PairedDifferences, fewest_pictures
from jobs.audit.changes.tally import CategoryTally, ChangedPicture, Tally, Test
from jobs.audit.findings import Cell, Part, Table
from jobs.progress import counted

PART = "changes"
ALL = "all categories"
LIST = 10  # pictures in the printed text
# What a figure's mean is of.
UNITS = {
    "detections": "boxes a picture",
    "score": "of the score",
    "size": "of the area's logarithm",
    "energy": "of the energy in the box",
}


@dataclass(frozen=True)
class Compared:
    """Everything that is told. before, after: where the runs lie."""

    options: CompareOptions
    before: str
    after: str
    settings: tuple[Setting, ...]
    pictures: Pictures
    tally: Tally
    tests: tuple[Test, ...]
    worst: tuple[ChangedPicture, ...]

    @property
    def found(self) -> list[Test]:
        """The tests that say that something changed."""
        alpha = self.options.alpha
        return [
            each for each in self.tests if each.corrected is not None and each.corrected <= alpha
        ]

    @property
    def tested(self) -> int:
        """How many tests there were."""
        return sum(each.p is not None for each in self.tests)


def summary(compared: Compared) -> dict[str, Any]:
    """As changes.json holds it."""
    tally, options = compared.tally, compared.options
    return {
        "before": compared.before,
        "after": compared.after,
        "alpha": options.alpha,
        "iou": options.iou,
        "settings": [asdict(each) for each in compared.settings],
        "pictures": {**asdict(compared.pictures), "changed": tally.changed_pictures},
        "everything": _tally(tally.everything),
        "categories": {name: _tally(each) for name, each in sorted(tally.categories.items())},
        "fewest_pictures": fewest_pictures(options.alpha),
        "tests": [asdict(each) for each in compared.tests],
        "found": [asdict(each) for each in compared.found],
        "worst": [
            {
                "key": each.key,
                "change": each.change,
                "says": [found.says for found in findings(each)],
            }
            for each in compared.worst
        ],
    }


def _tally(tally: CategoryTally) -> dict[str, Any]:
    return {
        "counts": dict(sorted(tally.counts.items())),
        "differences": {name: _figures(each) for name, each in tally.differences.items()},
        "distances": {name: _figures(each) for name, each in tally.distances.items()},
    }


def _figures(each: PairedDifferences) -> dict[str, Any]:
    return {
        "mean": each.mean(),
        "error": each.error(),
        "pictures": each.pictures,
        "number": each.number,
    }


def part(compared: Compared) -> Part:
    """For the report of an audit."""
    tally = compared.tally
    everything = tally.everything
    figures = {
        "pictures": float(compared.pictures.compared),
        "changed pictures": float(tally.changed_pictures),
        **{name: float(everything.counts[name]) for name in (APPEARED, DISAPPEARED, TURNED)},
        "changed figures": float(len(compared.found)),
        **{f"mean {name} difference": each.mean() for name, each in everything.differences.items()},
        **{f"mean {name} distance": each.mean() for name, each in everything.distances.items()},
    }
    return Part(
        PART,
        "What changed",
        _text(compared),
        (*_tables(compared),),
        tuple(found for each in compared.worst for found in findings(each)),
        figures,
    )


def _text(compared: Compared) -> str:
    options = compared.options
    fewest = fewest_pictures(options.alpha)
    return (
        f"{compared.after} (after) held against {compared.before} (before), picture by picture:"
        f" detections are matched one to one from an IoU of {options.iou:g} on, within their"
        " category first, then across categories. Differences within what rounding may do (0.05 px,"
        " 0.0001 of a score, 0.005 of the energy, 0.01 of a correlation) count as none. A box that"
        " one run could not have listed, by its threshold or its limit, is out of reach and counts"
        " neither way. Whether a figure changed is asked by a sign-flip test over pictures, the"
        f" unit of evidence, and corrected for all {counted(compared.tested, 'test')} (Holm): the"
        f" chance that any one is false is at most {options.alpha:g}. Holm's correction was taken"
        " and not a rate of false discoveries, since one false alarm costs a morning. A category on"
        f" fewer than {fewest} pictures is not tested. A change says nothing about which run is"
        " right, and pictures that are no random choice say nothing about others."
    )


def _tables(compared: Compared) -> Iterator[Table]:
    if compared.settings:
        yield Table(
            "Settings that differ",
            "What the runs were made with, and so a reason for what changed.",
            ("setting", "before", "after"),
            tuple((each.name, each.before, each.after) for each in compared.settings),
        )
    yield Table(
        "Pictures",
        "How many were compared, and how many could not be.",
        ("", "pictures", "such as"),
        tuple(_pictures(compared.pictures)),
    )
    yield Table(
        "Changed beyond chance",
        "Figures whose difference, after less before, is more than chance after the correction.",
        ("category", "figure", "difference", "pictures", "p", "p, corrected"),
        tuple(
            (each.category or ALL, each.figure, (each.mean, each.error), *_p(each))
            for each in compared.found
        ),
    )
    yield Table(
        "Detections by category",
        "How many each run has, and what became of them. Of the matched ones: the means of score,"
        " energy in the box and the area's logarithm, after less before, and how far they are from"
        " what they were (1 - IoU, 1 - correlation of the maps).",
        (
            *("category", "before", "after", APPEARED, DISAPPEARED, TURNED, OUT_OF_REACH),
            *("score", "energy", "size", "1 - IoU", "1 - correlation", "test"),
        ),
        tuple(_categories(compared)),
    )
    yield Table(
        "Pictures that changed most",
        "Each detection counts by its score where it came, went or became another; a matched one by"
        " the difference of its scores and by its score times 1 - IoU and times 1 - correlation, at"
        " most by its score. A picture's change is their sum.",
        ("picture", "change", "what"),
        tuple(
            (each.key, each.change, "; ".join(found.says for found in findings(each)))
            for each in compared.worst
        ),
    )


def _pictures(pictures: Pictures) -> Iterator[tuple[Cell, ...]]:
    yield "compared", pictures.compared, ""
    for name, noted in (
        ("under one name another picture", pictures.other_content),
        ("before alone", pictures.only_before),
        ("after alone", pictures.only_after),
        ("failed in a run", pictures.failed),
    ):
        yield name, noted.count, _such(noted)


def _such(noted: Noted) -> str:
    return ", ".join([*noted.first, "..."] if noted.count > len(noted.first) else noted.first)


def _p(test: Test) -> tuple[Cell, ...]:
    return test.pictures, test.p, test.corrected


def _categories(compared: Compared) -> Iterator[tuple[Cell, ...]]:
    rows = sorted(compared.tally.categories.items())
    for name, each in [(ALL, compared.tally.everything), *rows]:
        counts, differences, distances = each.counts, each.differences, each.distances
        yield (
            name,
            *(counts[kind] for kind in ("before", "after", APPEARED, DISAPPEARED)),
            *(counts[kind] for kind in (TURNED, OUT_OF_REACH)),
            *(_cell(differences[figure]) for figure in ("score", "energy", "size")),
            *(_cell(distances[figure]) for figure in ("box", "map")),
            _verdict(compared, None if each is compared.tally.everything else name),
        )


def _cell(each: PairedDifferences) -> Cell:
    return (each.mean(), each.error()) if each.number else None


def _verdict(compared: Compared, category: str | None) -> str:
    own = [each for each in compared.tests if each.category == category]
    if own and all(each.p is None for each in own):
        return "too few pictures"
    changed = [each.figure for each in compared.found if each.category == category]
    return ", ".join(changed)


def text(compared: Compared) -> str:
    """For a terminal, which no key or category steers."""
    pictures, tally = compared.pictures, compared.tally
    counts = tally.everything.counts
    lines = [
        f"before  {compared.before}",
        f"after   {compared.after}",
        *(
            f"  {each.name}: {each.before or '-'} -> {each.after or '-'}"
            for each in compared.settings
        ),
        "",
        f"{counted(pictures.compared, 'picture')} compared, {tally.changed_pictures:,} changed;"
        f" boxes: {counts['before']:,} before, {counts['after']:,} after, {counts[APPEARED]:,}"
        f" appeared, {counts[DISAPPEARED]:,} disappeared, {counts[TURNED]:,} changed category",
    ]
    for name, number, such in list(_pictures(pictures))[1:]:
        if number:
            lines.append(f"  not compared, {name}: {number} ({such})")
    lines += ["", *_tests(compared)]
    if compared.worst:
        lines += ["", "Pictures that changed most:"]
        lines += [_line(each) for each in compared.worst[:LIST]]
    return "\n".join(map(printable, lines))


def _tests(compared: Compared) -> Iterator[str]:
    what = f"{counted(compared.tested, 'test')}, alpha {compared.options.alpha:g}, Holm"
    if not compared.tested:
        fewest = fewest_pictures(compared.options.alpha)
        yield f"Nothing was tested: no category is on {counted(fewest, 'picture')}."
        return
    if not compared.found:
        yield f"Nothing changed beyond chance ({what})."
        return
    yield f"Changed beyond chance ({what}):"
    for each in compared.found:
        error = "" if math.isnan(each.error) else f" ± {each.error:.4f}"
        yield (
            f"  {each.category or ALL}: {each.mean:+.4f}{error} {UNITS[each.figure]}"
            f" ({counted(each.pictures, 'picture')}, p {_small(each.corrected)})"
        )


def _small(value: float | None) -> str:
    assert value is not None
    return "< 0.0001" if value < 1e-4 else f"= {value:.4f}"


def _line(picture: ChangedPicture) -> str:
    says: Sequence[str] = [found.says for found in findings(picture)]
    more = f" (and {len(says) - 1} more)" if len(says) > 1 else ""
    return f"  {picture.change:5.2f}  {picture.key}: {says[0] if says else 'a little'}{more}"
