"""What was asked: one frozen dataclass for each command, passed whole to the worker. Rooms of their
own have their commands' beside them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from jobs.page.options import ReportPageOptions

OVERLAYS = ("auto", "none", "all", "each")
ENGINES = ("local", "ray")
FORMATS = ("jpg", "png")
TRUTH_FORMATS = ("auto", "voc", "coco", "yolo")
# What handlers.explainer and handlers.schema have, which cannot be imported without torch.
BATCH_SIZE = 8
ABLATIONS = ("fixed", "tutorial")
OVER = ("picture", "network", "none")


def at_a_time(batch_size: int | None) -> dict[str, int]:
    """As a call's argument; none for None, which an older archive's handlers do not take."""
    return {} if batch_size is None else {"batch_size": batch_size}


@dataclass(frozen=True)
class JobOptions:
    """The command line of `jobs explain`.

    archive: a .mar file, its s3:// URI, or NAME@ALIAS or NAME@VERSION of a registry.
    registry: an s3:// URI or a folder; None for WHYBOX_REGISTRY.
    public_keys: files of keys, one of which has to vouch for the archive; none for any archive.
    inputs: folders, files or s3:// URIs, at least one.
    output: a folder or an s3:// URI.
    request: the fields of ExplainRequest that were given; the archive's defaults fill the rest.
    batch_size: pictures in one pass through the detector, at least 1, and masked pictures for
        D-RISE and D-CLOSE; None for BATCH_SIZE, and as many masked pictures as suit the device.
    shard_size: pictures in one shard, the unit of commit and of retry, at least 1.
    overlays: "none", "all" (one picture with all boxes), "each" (that, the boxes alone, and one
        picture per box), or "auto": "each" for at most 100 local pictures, else "none".
    engine: "local" (processes of this machine) or "ray" (actors of a Ray cluster).
    manifest: a file or s3:// URI that lists the pictures' keys (CSV, JSON Lines or Parquet), or an
        S3 Inventory's manifest.json; None: the inputs are listed.
    coco: write COCO results JSON, too.
    pictures: False to keep rows and maps alone: no contact sheet, and no overlays unless asked for.
    workers: worker processes, or Ray actors, at least 1; None: one per visible GPU, else one.
    shard: (index, count), 0 <= index < count: this run does one of `count` parts; None: all.
    dry_run: count, cut and guess the time, and write nothing.
    """

    archive: str
    inputs: tuple[str, ...]
    output: str
    request: Mapping[str, Any] = field(default_factory=dict)
    batch_size: int | None = None
    device: str = "cpu"
    precision: str = "fp32"
    shard_size: int = 256
    overlays: str = "auto"
    engine: str = "local"
    manifest: str | None = None
    coco: bool = False
    pictures: bool = True
    workers: int | None = None
    shard: tuple[int, int] | None = None
    dry_run: bool = False
    registry: str | None = None
    public_keys: tuple[str, ...] = ()


@dataclass(frozen=True)
class SweepOptions:
    """The command line of `jobs sweep`.

    archive, input: a file or its s3:// URI each. output: likewise, ending in .png, .jpg or .jpeg.
    public_keys: as for JobOptions.
    layers: names, or patterns of the shell's kind, at least one.
    methods: names, at least one.
    request: the other fields of ExplainRequest that were given.
    """

    archive: str
    input: str
    output: str
    layers: tuple[str, ...]
    methods: tuple[str, ...] = ("gradcam", "gradcam++")
    request: Mapping[str, Any] = field(default_factory=dict)
    device: str = "cpu"
    precision: str = "fp32"
    registry: str | None = None
    public_keys: tuple[str, ...] = ()


@dataclass(frozen=True)
class FeatureOptions:
    """The command line of `jobs features`.

    archive, public_keys, inputs, output: as for JobOptions.
    layers: "pyramid", modules' names or levels' names, at least one.
    channel_reduction, topk, arrangement: as for handlers.feature_maps.Reduction.
    over: what the maps are drawn over: "picture" (as it was loaded), "network" (as the network saw
        it, resized and padded), "none" (the maps alone).
    alpha: how much of a map's colours is mixed in, 0 ... 1.
    score_threshold: boxes scoring at least this are drawn on the picture, 0 ... 1; None for what
        suits the detector.
    format: of what is drawn.
    """

    archive: str
    inputs: tuple[str, ...]
    output: str
    layers: tuple[str, ...] = ("pyramid",)
    channel_reduction: str = "squeeze_mean"
    topk: int = 4
    arrangement: tuple[int, ...] = (2, 2)
    over: str = "picture"
    alpha: float = 0.5
    score_threshold: float | None = None
    format: str = "jpg"
    device: str = "cpu"
    precision: str = "fp32"
    registry: str | None = None
    public_keys: tuple[str, ...] = ()


@dataclass(frozen=True)
class ClassifyOptions:
    """The command line of `jobs classify`.

    archive, public_keys, inputs, output: as for JobOptions; the archive is a classifier's.
    layer: a module's name, None for the last convolutional stage. category: the class that is
        explained, None for each picture's best.
    """

    archive: str
    inputs: tuple[str, ...]
    output: str
    layer: str | None = None
    category: str | None = None
    device: str = "cpu"
    precision: str = "fp32"
    registry: str | None = None
    public_keys: tuple[str, ...] = ()


@dataclass(frozen=True)
class EvaluateOptions:
    """The command line of `jobs evaluate`.

    archive, public_keys, inputs, output: as for JobOptions. batch_size: changed pictures in one
        pass through the detector.
    controls: measure a smooth random field and a Gaussian at the box's middle, too.
    methods, layers: names; "a+b" is the fusion of layers a and b.
    maps: besides these; "default", or the fields of a request: "method=layercam layer=C3 fuse=1".
    target: what is explained, None for the archive's.
    truth: a folder, file or s3:// URI of annotations, whose objects boxes are matched with; None to
        hold maps against the boxes themselves. truth_format: one of TRUTH_FORMATS.
    detections: how many boxes are measured, or a few more; they score more than `least_score`.
    score_threshold: 0 ... 1, None for what suits: 0.1 with a truth, else 0.5.
    per_picture: at most so many of one picture, drawn at random by `seed`.
    steps, blur, growth: as for handlers.metrics.faithfulness.
    thresholds: what figures have to reach, "FIGURE>=NUMBER"; with any, audit.json is written.
    """

    archive: str
    inputs: tuple[str, ...]
    output: str
    controls: bool = True
    methods: tuple[str, ...] = ("odam", "layercam", "gradcam", "gradcam++")
    layers: tuple[str, ...] = ("emitting", "pyramid")
    maps: tuple[str, ...] = ()
    target: str | None = None
    truth: str | None = None
    truth_format: str = "auto"
    detections: int = 100
    score_threshold: float | None = None
    per_picture: int = 3
    steps: int = 41
    blur: float = 0.05
    growth: float = 1.0
    batch_size: int = 8
    seed: int = 0
    thresholds: tuple[str, ...] = ()
    device: str = "cpu"
    precision: str = "fp32"
    registry: str | None = None
    public_keys: tuple[str, ...] = ()

    @property
    def least_score(self) -> float:
        """What the boxes that are measured score more than."""
        if self.score_threshold is not None:
            return self.score_threshold
        return 0.5 if self.truth is None else 0.1


@dataclass(frozen=True)
class SanityOptions:
    """The command line of `jobs sanity`.

    archive, public_keys, inputs, output: as for JobOptions. methods, layers, maps, target: as for
    EvaluateOptions.
    detections: how many boxes are compared, or a few more; they score more than score_threshold.
    per_picture: at most so many of one picture, drawn at random by `seed`.
    repeats: how often each part is randomised anew.
    pictures: draw a sheet of maps over a picture.
    """

    archive: str
    inputs: tuple[str, ...]
    output: str
    methods: tuple[str, ...] = EvaluateOptions.methods
    layers: tuple[str, ...] = ("emitting",)
    maps: tuple[str, ...] = ()
    target: str | None = None
    detections: int = 20
    score_threshold: float = 0.5
    per_picture: int = 4
    repeats: int = 3
    pictures: bool = True
    seed: int = 0
    device: str = "cpu"
    precision: str = "fp32"
    registry: str | None = None
    public_keys: tuple[str, ...] = ()


@dataclass(frozen=True)
class PreviewOptions:
    """The command line of `jobs explain --preview-model`; target: None for the archive's."""

    archive: str
    target: str | None = None
    device: str = "cpu"
    precision: str = "fp32"
    registry: str | None = None
    public_keys: tuple[str, ...] = ()


@dataclass(frozen=True)
class StatusOptions:
    """The command line of `jobs status`; it needs no archive.

    output: as for JobOptions. json: print one JSON object instead of text.
    """

    output: str
    json: bool = False


@dataclass(frozen=True)
class ReportOptions:
    """The command line of `jobs report`; it needs no archive.

    output, coco: as for JobOptions. page: what the report shows.
    """

    output: str
    coco: bool = False
    page: ReportPageOptions = field(default_factory=ReportPageOptions)


class Options(Protocol):
    """What is handed to a process that runs the archive's code: a command's frozen dataclass.

    archive, registry, public_keys, device, precision: as for JobOptions.
    """

    @property
    def archive(self) -> str: ...

    @property
    def registry(self) -> str | None: ...

    @property
    def public_keys(self) -> tuple[str, ...]: ...

    @property
    def device(self) -> str: ...

    @property
    def precision(self) -> str: ...
