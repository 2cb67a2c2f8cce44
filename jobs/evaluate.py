"""Which method and layer explains an archive's detector best: each beside two controls.

Pointing game, energy in the box, deletion and insertion of at least so many boxes, with standard
errors, and each map's difference from each control, box by box (paired).
"""

from __future__ import annotations

import json
import math
import sys
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from archives.errors import ConflictError, MissedError, UsageError, shortened
from archives.stores.opening import open_store
from archives.stores.store import Store
from handlers.method_check import without_layer
from handlers.metrics.faithfulness import FaithfulnessOptions
from handlers.picture import reads_whole_picture
from handlers.schema import EMITTING, ExplainRequest, RequestError
from jobs.errors import DONE, DONE_WITH_FAILURES
from jobs.inputs.listing import Listing, list_input
from jobs.measure import (
    CONTROLS,
    FIGURES,
    GAUSSIAN,
    PAIRED,
    RANDOM,
    Maker,
    MeasureOptions,
    chosen_boxes,
    explained,
    gaussian,
    measure,
    random_fields,
)
from jobs.options import EvaluateOptions
from jobs.progress import SECONDS_BETWEEN_LINES, counted
from jobs.thresholds import REPORT, Measured, check_thresholds, write_audit
from jobs.worker.pictures import Failure, Pools, load_ahead
from jobs.worker.shard import check_whose

if TYPE_CHECKING:
    from handlers.explainer import Explainer

RECORD, TABLE = "evaluation.json", "evaluation.md"
# Figures of the printed table, and of the paired differences.
SHOWN = ("pointing", "energy", "deletion", "insertion", "deletion_score", "insertion_score")
# Of a request: what changes its map, and not which boxes it is about.
MAP_FIELDS = (
    *("method", "target", "layer", "fuse", "shared", "smooth", "center_prior"),
    *("ablation", "channels", "masks", "seed"),
)
# The map that the archive gives where a request says nothing.
DEFAULT = "default"


def evaluate(options: EvaluateOptions, explainer: Explainer) -> int:
    """Measures, writes RECORD and TABLE to the output, and prints the table; returns 0, 3 if
    pictures failed, or 4 if a threshold was missed, which audit.json then says.

    What a run that was interrupted measured is kept, picture by picture. Raises RequestError for
    names that the detector does not know, ConflictError if the output holds another evaluation,
    UsageError if there are no pictures, or not one box to measure.
    """
    how = MeasureOptions(
        score_threshold=options.score_threshold,
        per_picture=options.per_picture,
        batch_size=options.batch_size,
        seed=options.seed,
        faithfulness=FaithfulnessOptions(options.steps, options.blur, options.growth),
    )
    makers = _makers(options, explainer)
    check_thresholds(options.thresholds, makers, options.controls)
    with list_input(options.inputs, options.output) as listing:
        return _evaluate(options, explainer, listing, makers, how)


def _evaluate(
    options: EvaluateOptions,
    explainer: Explainer,
    listing: Listing,
    makers: Mapping[str, Maker],
    how: MeasureOptions,
) -> int:
    output = open_store(options.output)
    settings = {
        "detector": type(explainer.detector.model).__name__,
        "archive": _digest(explainer),
        "input": listing.fingerprint,
        "maps": list(makers),
        "target": options.target,
        "precision": options.precision,
        **{name: value for name, value in asdict(how).items() if name != "batch_size"},
    }
    pictures = _before(output, settings)
    rows = [row for found in pictures.values() for row in found]
    failures: list[Failure] = []
    said = time.monotonic()
    enough = _boxes(rows) >= options.detections
    for each in () if enough else _measured(explainer, listing, pictures, makers, how):
        if isinstance(each, Failure):
            failures.append(each)
            continue
        key, found = each
        pictures[key] = found
        rows += found
        _write(output, RECORD, {"settings": settings, "pictures": pictures})
        if time.monotonic() - said >= SECONDS_BETWEEN_LINES:
            said = time.monotonic()
            _say(f"{_boxes(rows)} of {counted(options.detections, 'box', 'boxes')} measured")
        if _boxes(rows) >= options.detections:
            break
    for failure in failures:
        _say(f"{failure.key}: {failure.message}")
    if not rows and len(failures) == listing.count:
        raise UsageError(f"nothing to measure: all {counted(len(failures), 'picture')} failed")
    if not rows:
        raise UsageError(
            f"nothing to measure: no box scores more than {options.score_threshold:g} in"
            f" {counted(listing.count, 'picture')} of {shortened(' '.join(options.inputs))};"
            " lower --score-threshold"
        )
    summary = summarised(rows)
    table = as_table(summary, settings, rows)
    _write(output, RECORD, {"settings": settings, "summary": summary, "pictures": pictures})
    output.write(TABLE, table.encode())
    print(table)
    print(f"{output.uri}/{RECORD}, {TABLE}")
    if _boxes(rows) < options.detections:
        _say(
            f"only {_boxes(rows)} of {options.detections} boxes: there are no more pictures; give"
            " more, or raise --per-picture"
        )
    notes = f"input {' '.join(options.inputs)}; boxes scoring more than {options.score_threshold:g}"
    measured = Measured(
        summary, _boxes(rows), len(pictures), len(failures), options.detections, notes
    )
    if _misses(options, explainer, output, measured):
        return MissedError.exit_code
    return DONE_WITH_FAILURES if failures else DONE


def _misses(
    options: EvaluateOptions, explainer: Explainer, output: Store, measured: Measured
) -> bool:
    """Whether a threshold was missed; says which, and writes the report that says so, too."""
    if not options.thresholds or explainer.manifest is None:
        return False
    missed = write_audit(output, explainer.manifest, measured, options.thresholds)
    for each in missed:
        _say(f"threshold missed: {each}")
    print(f"{output.uri}/{REPORT}: {'missed' if missed else 'passed'}")
    return bool(missed)


def _measured(
    explainer: Explainer,
    listing: Listing,
    done: Mapping[str, object],
    makers: Mapping[str, Maker],
    how: MeasureOptions,
) -> Iterator[tuple[str, list[dict[str, Any]]] | Failure]:
    """The rows of each picture that is not done yet, in the listing's order."""
    left = (entry for entry in listing.entries() if entry.key not in done)
    pools = Pools.start()
    try:
        for each in load_ahead(listing.store, left, pools.transfer, 1):
            if isinstance(each, Failure):
                yield each
                continue
            try:
                boxes = chosen_boxes(explainer, each.pixels, how)
                found = measure(explainer, each.pixels, boxes, makers, how)
            except Exception as error:  # what a network raises for a picture is that picture's
                check_whose(error)
                yield Failure.of(each.key, "explain", error)
                continue
            yield each.key, [{"picture": each.key, **row} for row in found]
    finally:
        pools.shutdown()


def _makers(options: EvaluateOptions, explainer: Explainer) -> dict[str, Maker]:
    """The maps by name: the controls if asked for, then each method on each layer."""
    makers: dict[str, Maker] = {}
    if options.controls:
        makers |= {GAUSSIAN: gaussian, RANDOM: random_fields(options.seed)}
    for name, fields in _wanted(options):
        target, method = options.target, explainer.defaults.method
        target = target or explainer.defaults.target_name
        if fields is None:
            request = replace(explainer.defaults, target=target)
        else:
            request = ExplainRequest.from_fields({"method": method, "target": target, **fields})
        explainer.check(request)
        if reads_whole_picture(request):
            raise RequestError("target", request.target_name, "one that each box has its own of")
        makers[name] = explained(explainer, request)
    return makers


def _wanted(options: EvaluateOptions) -> Iterator[tuple[str, dict[str, str] | None]]:
    """The names of maps and the fields of their requests, None for the default one."""
    for method in options.methods:
        for layer in (EMITTING,) if without_layer(method) else options.layers:
            fuse = str("+" in layer).lower()
            fields = {"method": method, "layer": layer.replace("+", ","), "fuse": fuse}
            yield f"{method} {layer}", fields
    for name in options.maps:
        if name == DEFAULT:
            yield name, None
            continue
        pairs = [each.partition("=")[::2] for each in name.split()]
        fields = dict(pairs)
        if len(fields) < len(pairs) or not fields.keys() <= set(MAP_FIELDS):
            allowed = " ".join(f"{each}=..." for each in MAP_FIELDS)
            raise RequestError("maps", name, f"{DEFAULT}, or each at most once: {allowed}")
        yield name, fields


def _digest(explainer: Explainer) -> str:
    return explainer.manifest.digest if explainer.manifest else ""


def _before(output: Store, settings: Mapping[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """What an earlier run measured, by picture."""
    if output.find(RECORD) is None:
        return {}
    try:
        before = json.loads(output.read(RECORD))
        before["settings"].keys(), before["pictures"].items()
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConflictError(
            f"{output.uri}/{RECORD} is no evaluation's, or was cut off ({type(error).__name__});"
            " give another --output, or remove it"
        ) from error
    differing = [name for name in settings if before["settings"].get(name) != settings[name]]
    if differing:
        raise ConflictError(
            f"{output.uri}/{RECORD} is another evaluation's: its {', '.join(differing)} differ;"
            " give another --output, or remove it"
        )
    # JSON has null for what is no number.
    return {
        key: [
            {name: math.nan if value is None else value for name, value in row.items()}
            for row in rows
        ]
        for key, rows in before["pictures"].items()
    }


def _write(output: Store, name: str, value: Mapping[str, Any]) -> None:
    output.write(name, json.dumps(_plain(value), indent=1, allow_nan=False).encode())


def _plain(value: Any) -> Any:
    """Nothing instead of what is no number, which JSON does not know."""
    if isinstance(value, Mapping):
        return {name: _plain(each) for name, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(each) for each in value]
    return None if isinstance(value, float) and math.isnan(value) else value


def _boxes(rows: Sequence[Mapping[str, Any]]) -> int:
    return len({(row["picture"], row["index"]) for row in rows})


def summarised(rows: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """By map its FIGURES and "seconds" as [mean, standard error], and "less CONTROL", the paired
    differences from a control, likewise.

    rows: as `jobs.measure.measure` gives them, each with its "picture". Standard errors take boxes
    of one picture as dependent (clusters; of one box a picture they are the usual ones).
    """
    by_map: dict[str, dict[tuple[str, int], Mapping[str, Any]]] = defaultdict(dict)
    for row in rows:
        by_map[row["map"]][row["picture"], row["index"]] = row
    found: dict[str, dict[str, Any]] = {}
    for name, own in by_map.items():
        places = list(own)
        clusters = [picture for picture, _ in places]
        figures: dict[str, Any] = {
            figure: _mean_and_error([own[place][figure] for place in places], clusters)
            for figure in (*FIGURES, "seconds")
        }
        for control in CONTROLS:
            if control in by_map and name not in CONTROLS:
                figures[f"less {control}"] = {
                    figure: _mean_and_error(
                        [own[place][figure] - by_map[control][place][figure] for place in places],
                        clusters,
                    )
                    for figure in PAIRED
                }
        found[name] = figures
    return found


def _mean_and_error(values: Sequence[float], clusters: Sequence[str]) -> tuple[float, float]:
    """The mean and its standard error (not a number where there is one cluster alone)."""
    array = np.array(values)
    mean = float(array.mean())
    sums: dict[str, float] = defaultdict(float)
    for value, cluster in zip(array - mean, clusters, strict=True):
        sums[cluster] += float(value)
    number = len(sums)
    if number < 2:
        return mean, math.nan
    spread = sum(each**2 for each in sums.values()) * number / (number - 1)
    return mean, math.sqrt(spread) / len(array)


def as_table(
    summary: Mapping[str, Mapping[str, Any]],
    settings: Mapping[str, Any],
    rows: Sequence[Mapping[str, Any]],
) -> str:
    """The summary as Markdown: two tables, and what the figures are."""
    pictures = len({row["picture"] for row in rows})
    how = settings["faithfulness"]
    blurred = np.mean([row["blurred"] for row in rows])
    lines = [
        f"{settings['detector']}, {counted(_boxes(rows), 'box', 'boxes')} scoring more than"
        f" {settings['score_threshold']:g} on {counted(pictures, 'picture')}; mean and standard"
        " error.",
        "",
        f"Deletion goes to the mean colour, insertion begins with a blur (Gaussian, {how['blur']:g}"
        f" of the longer side, where {blurred:.2f} of a detection is left); {how['steps']} points,"
        f" growth {how['growth']:g}. Areas are divided by their value on the whole picture; without"
        " a mark: D-RISE's similarity, score: IoU times the class's probability.",
        "",
        *_rows(
            ["map", *(each.replace("_", ", ") for each in SHOWN), "s a picture"],
            (
                [name, *(_shown(own[each]) for each in SHOWN), _shown(own["seconds"], False)]
                for name, own in summary.items()
            ),
        ),
    ]
    for control in (each for each in CONTROLS if each in summary):
        lines += [
            "",
            f"Less {control.removeprefix('control: ')}, box by box (deletion: negative is better;"
            " insertion: positive is better):",
            "",
            *_rows(
                ["map", *(each.replace("_", ", ") for each in PAIRED)],
                (
                    [name, *(_shown(own[f"less {control}"][each]) for each in PAIRED)]
                    for name, own in summary.items()
                    if name not in CONTROLS
                ),
            ),
        ]
    return "\n".join(lines) + "\n"


def _rows(header: Sequence[str], rows: Iterator[list[str]]) -> Iterator[str]:
    for cells in (header, ["---"] * len(header), *rows):
        yield f"| {' | '.join(cells)} |"


def _say(text: str) -> None:
    print(f"jobs: {text}", file=sys.stderr, flush=True)


def _shown(figure: tuple[float, float], with_error: bool = True) -> str:
    mean, error = figure
    if math.isnan(error) or not with_error:
        return f"{mean:.3f}"
    return f"{mean:.3f} ± {error:.3f}"
