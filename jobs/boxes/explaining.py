"""Which maps of a picture are made into boxes: a classifier's classes, or a detector's boxes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch

from handlers.detectors.classifier import ClassifierDetector
from handlers.picture import reads_whole_picture
from handlers.schema import ExplainRequest, Explanation, RequestError
from handlers.tap import undisturbed
from jobs.boxes.categories import category_of
from jobs.options import BATCH_SIZE, at_a_time
from jobs.truth.objects import Objects

if TYPE_CHECKING:
    from torch import Tensor

    from handlers.explainer import Explainer


@dataclass(frozen=True)
class NamedMap:
    """One map. category: the truth's name for what it explains. explanation: of a classifier its
    box is what the network saw, and its index the class's rank."""

    category: str
    explanation: Explanation


@dataclass(frozen=True)
class Wanted:
    """What is explained.

    request: resolved and checked, of one layer. labels: the network's, by the truth's categories.
    classes, batch_size: as BoxesOptions.
    """

    request: ExplainRequest
    labels: Mapping[str, Sequence[int]]
    classes: str
    batch_size: int | None

    @property
    def at_once(self) -> int:
        """Pictures in one pass of the detector."""
        return self.batch_size or BATCH_SIZE


def is_classifier(explainer: Explainer) -> bool:
    """Whether it has no boxes of its own."""
    return isinstance(explainer.detector, ClassifierDetector)


def checked(explainer: Explainer, request: ExplainRequest) -> ExplainRequest:
    """The request with what suits the detector. Raises RequestError for what it does not know, and
    for what gives not one map for each box."""
    if len(request.layers) > 1:
        raise RequestError("layer", request.layer, "one name")
    explainer.check(request)
    if reads_whole_picture(request):
        raise RequestError("target", request.target_name, "one that each box has its own of")
    return explainer.resolved(request)


def named_maps(
    explainer: Explainer, wanted: Wanted, pictures: Sequence[Tensor], truth: Sequence[Objects]
) -> list[list[NamedMap]]:
    """For each picture (uint8 [3, H, W]) its maps.

    Of a detector one of each box that `wanted.request` is about and whose label stands for a
    category. Of a classifier with classes "true" one of each category in the picture (which has an
    object of it that counts): that of the surest of its classes; with "predicted" one of the best
    class, if that stands for a category. Raises PictureError.
    """
    if is_classifier(explainer):
        return _of_classes(explainer, wanted, pictures, truth)
    categories = category_of(wanted.labels)
    return [
        [NamedMap(categories[each.label], each) for each in found if each.label in categories]
        for found in explainer.explain(pictures, wanted.request, **at_a_time(wanted.batch_size))
    ]


@torch.inference_mode(False)
def _of_classes(
    explainer: Explainer, wanted: Wanted, pictures: Sequence[Tensor], truth: Sequence[Objects]
) -> list[list[NamedMap]]:
    maps: list[list[NamedMap]] = [[] for _ in pictures]
    with undisturbed(explainer.detector.model):
        prepared = [explainer.prepare(picture) for picture in pictures]
        # One pass serves all categories of a picture.
        for place, found in explainer.found(prepared, **at_a_time(wanted.batch_size)):
            ranked = found.kept.entries.labels.tolist()
            for category, label in _classes(wanted, ranked, truth[place]):
                name = explainer.categories[label]
                # Two classes may have one name: ImageNet has two cranes.
                request = replace(
                    wanted.request,
                    category=name,
                    score_threshold=0.0,
                    max_detections=explainer.categories.count(name),
                )
                several = explainer.explain_found(found, request)
                maps[place] += [NamedMap(category, each) for each in several if each.label == label]
    return maps


def _classes(wanted: Wanted, ranked: Sequence[int], objects: Objects) -> list[tuple[str, int]]:
    """Categories, and of each the label that is explained. ranked: all labels, best first."""
    if wanted.classes == "predicted":
        best = ranked[0]
        return [(name, best) for name, own in wanted.labels.items() if best in own]
    counted = [
        name
        for name, difficult, crowd in zip(
            objects.categories, objects.difficult, objects.crowd, strict=True
        )
        if not (difficult or crowd)
    ]
    return [
        (name, next(label for label in ranked if label in own))
        for name, own in wanted.labels.items()
        if name in counted
    ]
