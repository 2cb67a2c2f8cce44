"""Do maps depend on what the detector learned? Parts of it are randomised, and the maps of the same
boxes compared (`jobs.evaluation.randomised`)."""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

from archives.errors import UsageError, shortened
from archives.stores.opening import open_store
from handlers.detectors.weights import PARTS, Weights, weights_by_part
from handlers.grid import Block, draw_grid
from handlers.render import encode_jpeg, overlay, resized
from handlers.schema import ExplainRequest, Explanation
from handlers.tap import undisturbed
from jobs.audit.findings import Finding, Image, Part, Table, write_part
from jobs.audit.markdown import as_markdown
from jobs.errors import DONE, DONE_WITH_FAILURES, NothingToMeasureError
from jobs.evaluation.randomised import (
    ANOTHER_BOX,
    INTACT,
    MEASURES,
    RANDOM_FIELD,
    Compared,
    RandomisedOptions,
    compared,
    parts_that_matter,
)
from jobs.evaluation.requested_maps import requested
from jobs.inputs.listing import Listing, list_input
from jobs.names import SANITY_SHEET, printable
from jobs.notes import say
from jobs.numbers_in_json import plain
from jobs.options import SanityOptions
from jobs.progress import counted
from jobs.scoring.summary import mean_and_error
from jobs.worker.pictures import Failure, Picture, Pools, load_ahead
from jobs.worker.shard import check_whose

if TYPE_CHECKING:
    from torch import Tensor

    from handlers.explainer import Explainer

RECORD, TABLE, SHEET = "sanity.json", "sanity.md", SANITY_SHEET
# Maps that are more alike than this, by both measures in the mean, are taken for the same.
ALIKE = 0.9
COLUMNS = (*PARTS, ANOTHER_BOX, RANDOM_FIELD)
TEXTS = {
    "pearson": "Means and standard errors on the picture's pixels: 1 is the same map, 0 nothing in"
    " common.",
    "spearman": "The same of the pixels' ranks, so that what is empty in both maps counts as alike"
    " as well.",
}
SHEET_IMAGE = Image(
    SHEET,
    "Maps of one box, and the same with parts of the detector randomised",
    "One box: a row for each map; a column for the detector as it is, and for each part that is"
    " randomised. A map should change with what its target reads.",
)
CELL = 240  # pixels, the longer side of each small picture

# By map and what it is compared with, each of MEASURES: its mean and standard error.
Summary = Mapping[str, Mapping[str, Mapping[str, tuple[float, float]]]]


def sanity(options: SanityOptions, explainer: Explainer) -> int:
    """Compares, writes RECORD, TABLE, SHEET and the audit's part "sanity" to the output, prints the
    table; returns 0, or 3 if pictures failed.

    Raises RequestError for names that the detector does not know, UsageError if there are no
    pictures or all failed, NothingToMeasureError if there is not one box.
    """
    how = RandomisedOptions(
        options.score_threshold, options.per_picture, options.repeats, options.seed
    )
    requests = requested(options, explainer)
    with list_input(options.inputs, options.output) as listing:
        return _sanity(options, explainer, listing, requests, how)


def _sanity(
    options: SanityOptions,
    explainer: Explainer,
    listing: Listing,
    requests: Mapping[str, ExplainRequest],
    how: RandomisedOptions,
) -> int:
    output = open_store(options.output)
    rows: list[dict[str, Any]] = []
    failures: list[Failure] = []
    sheet: tuple[Tensor, Compared] | None = None
    weights: dict[str, list[Weights]] = {}
    for picture in _pictures(listing):
        if isinstance(picture, Failure):
            failures.append(picture)
            continue
        try:
            weights = weights or _weights(explainer, picture)
            found = compared(explainer, picture.pixels, requests, weights, how)
        except Exception as error:  # what a network raises for a picture is that picture's
            check_whose(error)
            failures.append(Failure.of(picture.key, "explain", error))
            continue
        rows += [{"picture": printable(picture.key), **row} for row in found.rows]
        if sheet is None and found.rows:
            sheet = (picture.pixels, found)
        if _boxes(rows) >= options.detections:
            break
    for failure in failures:
        say(f"{failure.key}: {failure.message}")
    if sheet is None:
        if len(failures) == listing.count:
            failed = counted(listing.count, "picture")
            raise UsageError(f"nothing to compare: all {failed} failed")
        raise NothingToMeasureError(
            f"nothing to compare: no box scores more than {options.score_threshold:g} in"
            f" {counted(listing.count - len(failures), 'picture')} of"
            f" {shortened(' '.join(options.inputs))}; lower --score-threshold"
        )
    if _boxes(rows) < options.detections:
        say(f"only {_boxes(rows)} of {options.detections} boxes: there are no more pictures")
    summary = summarised(rows)
    flags = {name: flagged(own, requests[name].target_name) for name, own in summary.items()}
    part = as_part(summary, flags, rows, weights, how)
    record = {
        "detector": type(explainer.detector.model).__name__,
        "archive": explainer.manifest.digest if explainer.manifest else "",
        "input": listing.fingerprint,
        "options": asdict(how),
        "weights": {name: [each.name for each in own] for name, own in weights.items()},
        "summary": summary,
        "flags": flags,
        "rows": rows,
    }
    text = as_markdown(part)
    output.write(RECORD, json.dumps(plain(record), indent=1, allow_nan=False).encode())
    output.write(TABLE, text.encode())
    if options.pictures:
        output.write(SHEET, _drawn(*sheet))
        part = replace(part, images=(SHEET_IMAGE,))
    else:
        output.delete(SHEET)  # an earlier run's
    write_part(output, part)
    print(text)
    print(f"{output.uri}/{RECORD}, {TABLE}" + f", {SHEET}" * options.pictures)
    return DONE_WITH_FAILURES if failures else DONE


def summarised(rows: Sequence[Mapping[str, Any]]) -> Summary:
    """By map, what it is compared with and measure the mean and its standard error, boxes of one
    picture taken as dependent."""
    groups: dict[str, dict[str, list[Mapping[str, Any]]]] = defaultdict(lambda: defaultdict(list))
    for row in rows:
        groups[row["map"]][row["what"]].append(row)
    return {
        name: {
            what: {
                measure: mean_and_error(
                    [row[measure] for row in own], [row["picture"] for row in own]
                )
                for measure in MEASURES
            }
            for what, own in wholes.items()
        }
        for name, wholes in groups.items()
    }


def flagged(own: Mapping[str, Mapping[str, tuple[float, float]]], target: str) -> list[str]:
    """What a map for this target should change with, and does not: parts, or ANOTHER_BOX.

    own: a map's means and standard errors, by what it is compared with and measure.
    """
    should = (*parts_that_matter(target), ANOTHER_BOX)
    return [
        what
        for what in should
        if what in own and all(own[what][measure][0] > ALIKE for measure in MEASURES)
    ]


def as_part(
    summary: Summary,
    flags: Mapping[str, Sequence[str]],
    rows: Sequence[Mapping[str, Any]],
    weights: Mapping[str, Sequence[Weights]],
    how: RandomisedOptions,
) -> Part:
    """What is handed to the audit's report."""
    pictures = len({row["picture"] for row in rows})
    sizes = ", ".join(
        f"{name} {sum(map(len, own)):,} weights" if own else f"{name} none that is told apart"
        for name, own in weights.items()
    )
    tables = tuple(
        Table(
            f"How alike maps are: {measure.capitalize()}'s correlation",
            text,
            ("map", *COLUMNS, "does not change with"),
            tuple(
                (
                    name,
                    *(own[what][measure] if what in own else None for what in COLUMNS),
                    ", ".join(flags[name]) or "-",
                )
                for name, own in summary.items()
            ),
        )
        for measure, text in TEXTS.items()
    )
    return Part(
        name="sanity",
        title="Do maps depend on what the detector learned?",
        text=(
            f"Of {counted(_boxes(rows), 'box', 'boxes')} on {counted(pictures, 'picture')} maps"
            " were made before and after a part of the detector lost what it had learned (the"
            f" values of each of its tensors in a random order, {how.repeats} times: {sizes})."
            " They are of the same candidates: the randomised detector itself would draw other"
            f" boxes. A map that stays as it was (both correlations over {ALIKE:g}) does not"
            " explain that part; it is asked of the backbone, and of the heads that its target"
            " reads (the class of the class head, an edge of the box head). One that is like"
            " another box's does not tell boxes apart. That a map changes does not say that it is"
            " right."
        ),
        tables=tables,
        findings=tuple(_findings(flags, rows)),
        figures={
            f"{name} {what} similarity": own[what]["pearson"][0]
            for name, own in summary.items()
            for what in own
            if not math.isnan(own[what]["pearson"][0])
        },
    )


def _findings(
    flags: Mapping[str, Sequence[str]], rows: Sequence[Mapping[str, Any]]
) -> Iterator[Finding]:
    """For each flag the box whose map changed least."""
    for name, whats in flags.items():
        for what in whats:
            own = [row for row in rows if (row["map"], row["what"]) == (name, what)]
            row = max(own, key=lambda row: -1 if math.isnan(row["pearson"]) else row["pearson"])
            changed = f"when the {what} is randomised"
            flag = f"map does not depend on the {what}"
            if what == ANOTHER_BOX:
                changed, flag = "from that of another box", "map does not tell boxes apart"
            yield Finding(
                key=row["picture"],
                index=row["index"],
                flag=flag,
                severity=min(max(row["pearson"], 0.0), 1.0),
                says=f"The map {name} of this {row['category']} ({row['score']:.2f}) does not"
                f" differ {changed}: their correlation is {row['pearson']:.3f}.",
                group=name,
            )


def _weights(explainer: Explainer, picture: Picture) -> dict[str, list[Weights]]:
    with undisturbed(explainer.detector.model):
        found = weights_by_part(explainer.detector, explainer.prepare(picture.pixels))
    for part in (name for name, own in found.items() if not own):
        say(f"no weights are the {part}'s alone, as far as gradients tell: it is left out")
    return found


def _pictures(listing: Listing) -> Iterator[Picture | Failure]:
    pools = Pools.start()
    try:
        yield from load_ahead(listing.store, listing.entries(), pools.transfer, 1)
    finally:
        pools.shutdown()


def _drawn(picture: Tensor, found: Compared) -> bytes:
    """One box's maps: a row for each map, a column for each part."""
    columns = [INTACT, *(part for part in PARTS if part in next(iter(found.shown.values())))]
    cells = []
    for own in found.shown.values():
        explanations: list[Explanation] = [own[what] for what in columns]
        small, smaller = resized(picture, explanations, CELL)
        cells.append([overlay(small, each, CELL, labels=False) for each in smaller])
    some = next(iter(found.shown.values()))[INTACT]
    title = f"{some.category} {some.score:.2f}: maps, and the same with a part randomised"
    return encode_jpeg(draw_grid([Block(title, columns, list(found.shown), cells)]))


def _boxes(rows: Sequence[Mapping[str, Any]]) -> int:
    return len({(row["picture"], row["index"]) for row in rows})
