"""What was asked of `python -m jobs boxes`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

COMPONENTS = ("largest", "all")
CONNECTIVITY = (4, 8)
CLASSES = ("true", "predicted")
# The study's three, and a sweep.
THRESHOLDS = (0.01, 0.02, 0.06, *(round(0.05 * step, 2) for step in range(1, 20)))


@dataclass(frozen=True, kw_only=True)
class BoxStep:
    """How a map becomes boxes, and how these are held against the truth.

    thresholds: shares of a map's maximum, above 0 to 1, ascending; a pixel counts from there on.
    iou: least overlaps with a true box for a hit, above 0 to 1, ascending.
    smooth: blurs each map first by a Gaussian whose standard deviation is this share of the
        picture's longer side, 0 ... 1; 0 for none.
    occlusion_radius: what lies farther from a map's peak than this share of the picture's diagonal
        is hidden, 0 ... 1; None for nothing.
    components: "largest": the box of the largest connected component; "all": of each.
    connectivity: 8, pixels that share a corner are connected, or 4, an edge.
    controls: hold two maps that explain nothing against the truth, too, and a detector's boxes.
    seed: of the halves, where no splits are named, and of the sheet's pictures.
    """

    thresholds: tuple[float, ...] = tuple(sorted(THRESHOLDS))
    iou: tuple[float, ...] = (0.3, 0.4, 0.5)
    smooth: float = 0.0
    occlusion_radius: float | None = None
    components: str = "largest"
    connectivity: int = 8
    controls: bool = False
    seed: int = 0


@dataclass(frozen=True, kw_only=True)
class BoxesOptions(BoxStep):
    """The command line of `jobs boxes`.

    archive, public_keys, inputs, output, batch_size, registry: as for JobOptions.
    truth: where the annotations lie; None for the input, if that is a VOC folder. truth_format:
        "auto" or a form that jobs.truth.reading knows.
    categories: of the truth, those that are studied; none for all that the network knows.
    categories_map: a YAML file that says which of the network's classes stand for a category of
        the truth; None where both have the same names.
    classes: of a classifier, what is explained: "true", in each picture the categories that are
        in it, or "predicted", its best class.
    tune_split, score_split: lists in the VOC folder's ImageSets/Main: thresholds are chosen on the
        first and told on the second; None and None for random halves of all pictures.
    request: the fields of ExplainRequest that were given; the archive's defaults fill the rest.
    """

    archive: str
    inputs: tuple[str, ...]
    output: str
    truth: str | None = None
    truth_format: str = "auto"
    categories: tuple[str, ...] = ()
    categories_map: str | None = None
    classes: str = "true"
    tune_split: str | None = None
    score_split: str | None = None
    request: Mapping[str, Any] = field(default_factory=dict)
    batch_size: int | None = None
    device: str = "cpu"
    precision: str = "fp32"
    registry: str | None = None
    public_keys: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class AgainOptions(BoxStep):
    """The command line of `jobs boxes --again`; it needs no archive.

    again: an output of `jobs boxes`, whose maps are taken. output: where the boxes and figures go;
    None for the same place, where they replace those that are there.
    """

    again: str
    output: str | None = None
