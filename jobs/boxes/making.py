"""The maps of a study, made with the network and kept a chunk of pictures at a time."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from itertools import islice
from typing import TYPE_CHECKING, Any

from archives.errors import UsageError, shortened
from archives.stores.opening import open_store
from archives.stores.store import Entry, Store
from handlers.schema import ExplainRequest
from jobs.boxes import saved_maps, voc_folder
from jobs.boxes.categories import read_map, same_names
from jobs.boxes.explaining import NamedMap, Wanted, checked, is_classifier, named_maps
from jobs.boxes.figures import SCORE, TUNE
from jobs.boxes.options import BoxesOptions
from jobs.boxes.saved_maps import CHUNK, Explained, SavedMaps
from jobs.inputs.listing import Listing, list_input
from jobs.names import printable
from jobs.notes import say
from jobs.progress import SECONDS_BETWEEN_LINES, counted
from jobs.truth.objects import Objects, Truth
from jobs.truth.reading import read_truth
from jobs.worker.outcome import Done, outcome
from jobs.worker.pictures import Failure, Picture, Pools, load_ahead, unwatched
from jobs.worker.shard import check_whose

if TYPE_CHECKING:
    from handlers.explainer import Explainer


def make_maps(options: BoxesOptions, explainer: Explainer) -> SavedMaps:
    """The maps that `options` ask for; those that an earlier run kept are not made again.

    Raises RequestError for names that the detector does not know, UsageError for categories, splits
    or a truth that are not there, and if there are no pictures; ConflictError if the output holds
    maps of others.
    """
    folder = voc_folder.pictures_of(options.inputs[0]) if len(options.inputs) == 1 else None
    if options.truth is None and folder is None:
        raise UsageError(
            f"{shortened(' '.join(options.inputs))} is no VOC folder (with JPEGImages/ and"
            " Annotations/); say with --truth where the annotations lie"
        )
    split_of = _splits(options)
    with list_input((folder,) if folder else options.inputs, options.output) as listing:
        place = options.truth or options.inputs[0]
        truth = read_truth(place, options.truth_format, pictures=listing.store, masks=False)
        wanted = _wanted(options, explainer, truth)
        entries = [each for each in listing.entries() if split_of(each.key) != ""]
        if not entries:
            raise UsageError(
                f"none of {counted(listing.count, 'picture')} is in the lists"
                f" {options.tune_split} and {options.score_split}"
            )
        settings = _settings(options, explainer, wanted, listing, entries)
        output = open_store(options.output)
        record = saved_maps.begin(output, settings, listing.store.uri, len(entries))
        if not record["done"]:
            maker = _Maker(explainer, wanted, truth, listing.store, output, split_of)
            maker.make(entries)
            saved_maps.finish(output, record)
    return SavedMaps.open(options.output)


def _wanted(options: BoxesOptions, explainer: Explainer, truth: Truth) -> Wanted:
    if options.classes != BoxesOptions.classes and not is_classifier(explainer):
        raise UsageError(
            f"--classes {options.classes} is for classifiers; {shortened(options.archive)} is a"
            f" {type(explainer.detector.model).__name__}, whose own boxes are explained"
        )
    request = ExplainRequest.from_fields(options.request, explainer.defaults)
    names, known = explainer.categories, truth.categories
    if options.categories_map:
        labels = read_map(options.categories_map, names, known, options.categories)
    else:
        first = explainer.detector.first_label
        labels = same_names(names, known, options.categories, first)
        left = [name for name in known if name not in labels]
        if left and not options.categories:
            say(f"the network has no class of these names, which are left out: {', '.join(left)}")
    return Wanted(checked(explainer, request), labels, options.classes, options.batch_size)


def _splits(options: BoxesOptions) -> Callable[[str], str | None]:
    """The split that a picture, by its key, is in; None where there are none to choose on; "" for a
    picture that is left out."""
    if options.score_split is None:
        return lambda key: None
    place = options.inputs[0]
    score = voc_folder.read_split(place, options.score_split)
    if options.tune_split is None:
        return lambda key: None if voc_folder.stem(key) in score else ""
    tune = voc_folder.read_split(place, options.tune_split)
    both = sorted(tune & score)
    if both:
        raise UsageError(
            f"{counted(len(both), 'picture')}, such as {shortened(both[0])}, are in"
            f" {options.tune_split} and in {options.score_split}; thresholds are chosen on pictures"
            " that are not scored"
        )
    names = {**dict.fromkeys(tune, TUNE), **dict.fromkeys(score, SCORE)}
    return lambda key: names.get(voc_folder.stem(key), "")


def _settings(
    options: BoxesOptions,
    explainer: Explainer,
    wanted: Wanted,
    listing: Listing,
    entries: Sequence[Entry],
) -> dict[str, Any]:
    """What the maps depend on."""
    keys = hashlib.sha256()
    for each in entries:
        keys.update(f"{each.key}\0".encode(errors="surrogateescape"))
    classifier = is_classifier(explainer)
    return {
        "archive": explainer.manifest.digest if explainer.manifest else "",
        "detector": type(explainer.detector.model).__name__,
        "classifier": classifier,
        "classes": wanted.classes if classifier else None,
        "categories": {name: list(labels) for name, labels in wanted.labels.items()},
        "request": asdict(wanted.request),
        "precision": options.precision,
        "input": listing.fingerprint,
        "pictures": keys.hexdigest(),
        "truth": [options.truth or options.inputs[0], options.truth_format],
        "tune_split": options.tune_split,
        "score_split": options.score_split,
    }


class _Maker:
    """Chunk by chunk."""

    def __init__(
        self,
        explainer: Explainer,
        wanted: Wanted,
        truth: Truth,
        source: Store,
        output: Store,
        split_of: Callable[[str], str | None],
    ) -> None:
        self.explainer, self.wanted, self.truth = explainer, wanted, truth
        self.source, self.output, self.split_of = source, output, split_of

    def make(self, entries: Sequence[Entry]) -> None:
        """Commits every chunk that is not there."""
        pools = Pools.start()
        said = time.monotonic()
        try:
            for number, start in enumerate(range(0, len(entries), CHUNK)):
                if not saved_maps.is_done(self.output, number):
                    self._chunk(number, entries[start : start + CHUNK], pools)
                if time.monotonic() - said >= SECONDS_BETWEEN_LINES:
                    said = time.monotonic()
                    done = min(start + CHUNK, len(entries))
                    say(f"{done} of {counted(len(entries), 'picture')} explained")
        finally:
            pools.shutdown()

    def _chunk(self, number: int, entries: Sequence[Entry], pools: Pools) -> None:
        objects: dict[str, Objects] = {}
        failures: list[Failure] = []
        for entry in entries:
            try:
                found = self.truth.objects(printable(entry.key))
            except UsageError as error:  # annotations that are none
                failures.append(Failure.of(entry.key, "truth", error))
                continue
            if found is not None:
                objects[entry.key] = found
        # Where nothing is to be explained the picture itself is not needed.
        known = [entry for entry in entries if entry.key in objects]
        needed = [entry for entry in known if self._has_maps(objects[entry.key])]
        done = {entry.key: Done([], {}) for entry in known}
        names: dict[str, tuple[str, ...]] = {entry.key: () for entry in known}
        loaded = load_ahead(self.source, needed, pools.transfer, self.wanted.at_once)
        for each in self._explained(loaded, objects):
            if isinstance(each, Failure):
                failures.append(each)
                continue
            picture, maps = each
            own, _ = outcome(picture, [one.explanation for one in maps], "none", unwatched)
            if isinstance(own, Failure):
                failures.append(own)
                continue
            done[picture.key] = own
            names[picture.key] = tuple(one.category for one in maps)
        failed = {each.key for each in failures}
        kept = [
            Explained(key, self.split_of(key), objects[key], done[key], names[key])
            for key in done
            if printable(key) not in failed
        ]
        without = len(entries) - len(known) - sum(each.stage == "truth" for each in failures)
        saved_maps.commit(self.output, number, kept, failures, without)

    def _has_maps(self, objects: Objects) -> bool:
        if not is_classifier(self.explainer) or self.wanted.classes == "predicted":
            return True
        counts = ~(objects.difficult | objects.crowd)
        return any(
            count and name in self.wanted.labels
            for name, count in zip(objects.categories, counts, strict=True)
        )

    def _explained(
        self, loaded: Iterator[Picture | Failure], objects: Mapping[str, Objects]
    ) -> Iterator[tuple[Picture, list[NamedMap]] | Failure]:
        while batch := list(islice(loaded, self.wanted.at_once)):
            pictures = [each for each in batch if isinstance(each, Picture)]
            yield from (each for each in batch if isinstance(each, Failure))
            try:
                yield from self._of(pictures, objects)
            except Exception as error:  # what a network raises for a picture is that picture's
                check_whose(error)
                for each in pictures:  # whose it is shows one by one
                    yield self._alone(each, objects)

    def _alone(
        self, picture: Picture, objects: Mapping[str, Objects]
    ) -> tuple[Picture, list[NamedMap]] | Failure:
        try:
            return self._of([picture], objects)[0]
        except Exception as error:  # as above
            check_whose(error)
            return Failure.of(picture.key, "explain", error)

    def _of(
        self, pictures: Sequence[Picture], objects: Mapping[str, Objects]
    ) -> list[tuple[Picture, list[NamedMap]]]:
        found = named_maps(
            self.explainer,
            self.wanted,
            [each.pixels for each in pictures],
            [objects[each.key] for each in pictures],
        )
        return list(zip(pictures, found, strict=True))
