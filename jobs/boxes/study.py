"""`python -m jobs boxes`: maps are made once and kept; boxes and figures are made of what is kept,
also later, and without the network."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from archives.errors import (
    ConflictError,
    DeniedObjectError,
    MissingObjectError,
    UsageError,
    shortened,
)
from archives.stores.opening import open_store
from archives.stores.store import Store
from handlers.images import PictureError, decode_picture
from handlers.render import encode_jpeg
from jobs.boxes import saved_maps
from jobs.boxes.figures import (
    ALL,
    SCORE,
    TUNE,
    Chosen,
    Figure,
    accuracies,
    chosen_thresholds,
    figures,
    means,
)
from jobs.boxes.map_boxes import boxes_of_map, chosen
from jobs.boxes.options import AgainOptions, BoxesOptions, BoxStep
from jobs.boxes.saved_maps import MappedPicture, SavedMaps
from jobs.boxes.scored import MAP, Held, held_against_truth
from jobs.boxes.sheet import PICTURES, Shown, draw_sheet
from jobs.boxes.voc_folder import halves
from jobs.boxes.writing import PAGE, RECORD, Results, write_results
from jobs.errors import DONE, DONE_WITH_FAILURES
from jobs.names import CONTACT_SHEET
from jobs.notes import say
from jobs.progress import counted
from jobs.scoring.matching import overlaps

if TYPE_CHECKING:
    from handlers.explainer import Explainer

Sets = dict[str, NDArray[np.bool_]]
# The sheet shows the boxes at the threshold that is best at this IoU, or the nearest that there is.
SHEET_IOU = 0.5


def boxes(options: BoxesOptions | AgainOptions, explainer: Explainer | None = None) -> int:
    """Makes the maps, or takes those that are there, and makes boxes and figures of them; prints
    the page; returns 0, or 3 if some pictures failed.

    The output gets PAGE, RECORD, `boxes/*.parquet` and a sheet of pictures; what was there of
    another box step is replaced. explainer: for BoxesOptions. Raises as `make_maps` does;
    UsageError where there is nothing to score; ConflictError where the output has other maps.
    """
    if isinstance(options, AgainOptions):
        maps = SavedMaps.open(options.again)
        output = open_store(options.output or options.again)
        if output.uri != maps.output.uri and saved_maps.read_record(output) is not None:
            raise ConflictError(
                f"{shortened(output.uri)} has maps of its own; give another --output"
            )
    else:
        from jobs.boxes.making import make_maps

        assert explainer is not None  # there is an archive
        maps = make_maps(options, explainer)
        output = maps.output
    step = BoxStep(**{each.name: getattr(options, each.name) for each in fields(BoxStep)})
    _score(maps, output, step)
    failures = maps.failures()
    for each in failures:
        say(f"{each['key']}: {each['message']}")
    without = maps.without_truth()
    if without:
        say(f"nobody annotated {counted(without, 'picture')}; left out")
    return DONE_WITH_FAILURES if failures else DONE


def _score(maps: SavedMaps, output: Store, step: BoxStep) -> None:
    settings = maps.record["settings"]
    held = held_against_truth(
        maps.pictures(), list(settings["categories"]), step, not settings["classifier"]
    )
    if not held.positives.sum():
        raise UsageError(
            f"nothing to score: of {counted(len(held.keys), 'picture')} none has an object of"
            f" {', '.join(held.categories)}"
        )
    sets, main = _sets(held, settings, step.seed)
    found = figures(held, sets, step.iou)
    tuned = chosen_thresholds(found, held.kinds, step.iou)
    results = Results(
        held=held,
        step=step,
        figures=found,
        chosen=tuned,
        accuracies=accuracies(held, sets),
        sets={name: int(own.sum()) for name, own in sets.items()},
        main=main,
        what=_what(settings),
        cut=None if settings["classifier"] else settings["request"]["score_threshold"],
    )
    page = write_results(output, results, settings)
    threshold = _shown_threshold(found, tuned, main, step)
    drawn = _draw(maps, held, sets[main], step, threshold)
    if drawn is not None:
        output.write(CONTACT_SHEET, drawn)
    print(page)
    print(f"{output.uri}/{PAGE}, {RECORD}{'' if drawn is None else f', {CONTACT_SHEET}'}")


def _sets(held: Held, settings: Mapping[str, Any], seed: int) -> tuple[Sets, str]:
    """Which pictures are in which set, and the set that the long table is of."""
    sets: Sets = {ALL: np.ones(len(held.keys), dtype=np.bool_)}
    if settings["tune_split"] is not None:
        named = np.array(held.splits, dtype=object)
        return {**sets, TUNE: named == TUNE, SCORE: named == SCORE}, SCORE
    if settings["score_split"] is None:
        first = halves(len(held.keys), seed)
        sets |= {TUNE: first, SCORE: ~first}
    return sets, ALL


def _what(settings: Mapping[str, Any]) -> str:
    request = settings["request"]
    layer = request["layer"] or "the emitting layer"
    of = "its boxes"
    if settings["classifier"]:
        what = {"true": "the classes that are truly there", "predicted": "its best class"}
        of = what[settings["classes"]]
    return f"{settings['detector']}, {request['method']} on {layer}, of {of}."


def _shown_threshold(found: list[Figure], tuned: list[Chosen], main: str, step: BoxStep) -> float:
    """The one that was chosen on the other pictures, or else the best of these."""
    iou = min(step.iou, key=lambda each: abs(each - SHEET_IOU))
    for each in tuned:
        if (each.map, each.iou) == (MAP, iou) and each.threshold is not None:
            return each.threshold
    best = max(means(found, MAP, main, iou), key=lambda each: each.ap_11)
    assert best.threshold is not None  # it is a map's
    return best.threshold


def _draw(
    maps: SavedMaps, held: Held, own: NDArray[np.bool_], step: BoxStep, threshold: float
) -> bytes | None:
    """The sheet as JPEG; None where none of the pictures has a map, or all have gone."""
    mapped = np.unique(held.kinds[MAP].picture)
    random = np.random.default_rng(step.seed)
    picked = random.permutation(mapped[own[mapped]])[:PICTURES]
    keys = {held.keys[place] for place in picked}
    source = open_store(maps.record["input"])
    place = step.thresholds.index(threshold)
    shown = []
    for each in maps.pictures():
        if each.key in keys:
            one = _shown(source, each, step, place)
            shown += [one] if one else []
    return encode_jpeg(draw_sheet(shown, threshold)) if shown else None


def _shown(source: Store, picture: MappedPicture, step: BoxStep, place: int) -> Shown | None:
    try:
        pixels = decode_picture(source.read(picture.key))
    except (MissingObjectError, DeniedObjectError, PictureError):
        return None  # it was there when it was explained
    surest = max(picture.maps, key=lambda each: each.explanation.score)
    made = chosen(boxes_of_map(surest.explanation.on_picture().numpy(), step), step.components)
    own = made.boxes[made.threshold == place]
    names = np.array(picture.objects.categories, dtype=object)
    truth = picture.objects.boxes[names == surest.category]
    best = float(overlaps(own, truth).max()) if len(own) and len(truth) else 0.0
    return Shown(pixels, surest.category, surest.explanation, truth, own, best)
