"""Pictures in, explanations out: the one call that the endpoint and the jobs share.

explainer = Explainer.from_archive("model_store/demo.mar")
detections = explainer.detect(pictures)
explanations = explainer.explain(pictures, ExplainRequest(method="odam"))
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn

from handlers.archive import read_archive
from handlers.cam.registry import METHODS
from handlers.detectors.base import (
    AllParts,
    Detector,
    Found,
    Inputs,
    to_detections,
)
from handlers.detectors.registry import DetectorError, detector_for
from handlers.evidence.scene import Scene, Where
from handlers.images import PictureError
from handlers.layers import (
    BACKBONE,
    INPUT,
    PYRAMID,
    ROI,
    STAGES,
    LayerInfo,
    find_layer,
    find_stage,
    layer_names,
    preview,
    survey,
)
from handlers.loading import load_model
from handlers.manifest import ArchiveError, Manifest
from handlers.memory import Batches, Footprint, worthwhile
from handlers.method_check import check_method, refusal, without_layer
from handlers.network import Network, batch_of
from handlers.normalisation import exact_normalisation
from handlers.outcome import Chosen, Verdicts
from handlers.picture import Subject, explain_picture, reads_whole_picture
from handlers.precision import device_named, exact_float32
from handlers.schema import EMITTING, Detections, ExplainRequest, Explanation, RequestError
from handlers.tap import Layer, NoGradientError, NonFiniteError, check_weights, undisturbed
from handlers.targets.regions import keypoint_place
from handlers.targets.registry import CallableTarget, find_target, targets_for

__all__ = ["ExplainRequest", "Explainer", "Explanation"]

# Where neither the request nor the detector says.
BATCH_SIZE = 8
FALLBACKS = {"score_threshold": 0.5, "max_detections": 100}


class Explainer:
    """A detector that can say, for every box it draws, which pixels made it draw that box."""

    def __init__(
        self,
        detector: Detector,
        categories: Sequence[str],
        precision: str = "fp32",
        manifest: Manifest | None = None,
    ) -> None:
        """categories: names by label; the background first, if the detector has one.

        Raises RequestError for an unknown precision, DetectorError if the number of categories is
        not the detector's.
        """
        if len(categories) != detector.num_classes():
            background = "the background first" if detector.background else "without a background"
            raise DetectorError(
                f"got {len(categories)} categories for a detector of {detector.num_classes()};"
                f" name them all by label, {background}"
            )
        self.detector = detector
        self.categories = tuple(categories)
        self.precision = precision
        self.network = Network(detector, precision)
        self.manifest = manifest
        given = manifest.defaults if manifest else {}
        self.defaults = ExplainRequest.from_fields(
            given, ExplainRequest.from_fields(detector.defaults)
        )
        self._survey: list[LayerInfo] | None = None
        # Of a picture, and of one whose parts are hidden.
        self._footprint, self._masked = Footprint(), Footprint()

    @classmethod
    def from_archive(
        cls,
        path: str | Path,
        device: str = "cpu",
        precision: str = "fp32",
        run_code: bool = False,
    ) -> Explainer:
        """The detector of a .mar file, or of the folder that one was unpacked into.

        device: as torch.device takes it. precision: as for `handlers.network.Network`. Runs the
        code that is imported here, and warns if it is not the archive's.
        run_code: also run what the archive brings of its own, a model file or TorchScript: only for
        an archive whose source you trust.
        Raises ArchiveError for an archive that cannot be used, or brings code and may not run it;
        RequestError for a device that is not here or an unknown precision.
        """
        archive = read_archive(Path(path))
        manifest = archive.manifest
        own = manifest.own_code()
        if own and not run_code:
            raise ArchiveError(
                f"{path} brings code of its own, {own}, and running it is for you to allow: pass"
                " run_code=True if you trust its source"
            )
        try:
            model = load_model(archive.source, archive.weights, archive.torchscript)
            defaults = ExplainRequest.from_fields(manifest.defaults)
            explainer = cls.from_model(model, manifest.categories, device, precision, manifest)
        except (DetectorError, RequestError) as error:
            if isinstance(error, RequestError) and error.name in ("device", "precision"):
                raise
            raise ArchiveError(f"{path}: {error}") from error
        try:
            explainer.check(defaults)
        except RequestError as error:
            raise ArchiveError(f"{path}: its defaults: {error}") from error
        return explainer

    @classmethod
    def from_model(
        cls,
        model: nn.Module,
        categories: Sequence[str],
        device: str = "cpu",
        precision: str = "fp32",
        manifest: Manifest | None = None,
    ) -> Explainer:
        """Any detector that an adapter fits; it is moved to `device`, in float32.

        It always runs in eval mode, and is otherwise left as it is. categories: names by label; the
        background first, if the detector has one. Raises DetectorError if no adapter fits or the
        number of categories is not the detector's, NonFiniteError for weights that are not finite,
        RequestError for device or precision.
        """
        model = model.to(device_named(device), torch.float32)
        check_weights(model)
        return cls(detector_for(model), categories, precision, manifest)

    @property
    def methods(self) -> list[str]:
        """Names that `ExplainRequest.method` may have."""
        return METHODS.names()

    @property
    def targets(self) -> list[str]:
        """Names that `ExplainRequest.target` may have for this detector."""
        parts = self.detector.parts().values()
        return sorted({name for kind in parts for name in targets_for(kind.outputs)})

    @property
    def layers(self) -> list[str]:
        """Names that `ExplainRequest.layer` may have besides those of modules."""
        return layer_names(self.detector)

    @torch.inference_mode(False)
    def survey(self, picture: Tensor | None = None) -> list[LayerInfo]:
        """All modules of the detector, and what each gave for a picture (uint8 [3, H, W]); without
        one for a small blank square."""
        if picture is not None:
            with undisturbed(self.detector.model):
                return survey(self.detector, self.prepare(picture))
        if self._survey is None:
            self._survey = survey(self.detector, self.detector.sample())
        return self._survey

    def preview(self, target: str = "class", picture: Tensor | None = None) -> str:
        """The module tree as text, with the shapes of outputs for a picture (uint8 [3, H, W]; by
        itself a blank one of 640 x 480); a star marks what can be a request's layer for `target`.
        """
        self.check(ExplainRequest(target=target))
        picture = torch.zeros(3, 480, 640, dtype=torch.uint8) if picture is None else picture
        return preview(self.survey(picture), target)

    def check(self, request: ExplainRequest) -> None:
        """Raises RequestError, with the valid names, for a name this detector does not know."""
        if isinstance(request.target, str):
            found = find_target(request.target)
            name = request.target.partition(":")[0]
            if found is None or name not in self.targets:
                raise RequestError("target", request.target, ", ".join(self.targets))
            kind = self.detector.parts()[self._part_name(request.target)]
            if kind.keypoints and found[1]:
                keypoint_place(found[1], kind.keypoints)
        for name, got, allowed in (
            ("method", request.method, self.methods),
            ("category", request.category, [None, *self.categories[self.detector.first_label :]]),
        ):
            if got not in allowed:
                raise RequestError(name, got, ", ".join(str(each) for each in allowed if each))
        layers = self._places(request)
        check_method(self.detector, request, layers)
        for layer, where in zip(request.layers, layers, strict=True):
            pooled = self.detector.parts()[self._part_name(request.target)].pooled
            own = where.name == ROI or (pooled and where.head)
            together = request.sum_boxes or request.shared
            if own and (together or reads_whole_picture(request)):
                raise RequestError(
                    "layer",
                    layer,
                    f"{EMITTING}, {PYRAMID} or a module of the backbone: here each box has its own"
                    " map, and boxes together have none",
                )

    def _part_name(self, target: str | CallableTarget) -> str:
        """The part of the detector that has the outputs which a target reads."""
        parts = self.detector.parts()
        found = find_target(target) if isinstance(target, str) else None
        needs = found[0].needs if found else ("boxes", "scores")
        return next(name for name, kind in parts.items() if set(needs) <= set(kind.outputs))

    def _places(self, request: ExplainRequest) -> list[Where]:
        if without_layer(request.method) and request.layers == (EMITTING,):
            return [Where(INPUT)]
        return [self._where(layer, request.target) for layer in request.layers]

    def _where(self, layer: str, target: str | CallableTarget) -> Where:
        if layer == ROI and not self.detector.parts()[self._part_name(target)].pooled:
            raise RequestError("layer", layer, f"{EMITTING}, {PYRAMID}, or a module's name")
        if layer in STAGES:
            layer = find_stage(self.survey(), layer, self.detector.sample().tensors.shape[3])
        elif layer in self.layers:
            return Where(layer)
        name = target if isinstance(target, str) else None  # a function may read anything
        info = find_layer(self.detector, self.survey(), layer, name)
        module = self.detector.model.get_submodule(layer)
        return Where(layer, Layer(layer, module), head=info.part != BACKBONE)

    @torch.inference_mode(False)
    def detect(self, pictures: Sequence[Tensor], batch_size: int | None = None) -> list[Detections]:
        """Boxes, labels, scores and order of the stock model on each picture alone.

        pictures: uint8 RGB tensors [3, H, W] of any sizes. batch_size: so many run at a time, 8 by
        itself, of large ones on a processor less (`worthwhile`); fewer, with a warning if it was
        asked for, where that does not fit memory. Raises
        PictureError for a picture that the detector cannot take, RequestError for a batch_size
        below 1.
        """
        found: list[Detections | None] = [None] * len(pictures)
        names = self.detector.level_names()
        with undisturbed(self.detector.model):
            inputs = [self.prepare(picture) for picture in pictures]
            for place, each in self.found(inputs, batch_size):
                found[place] = to_detections(each.kept, names)
        return [each for each in found if each is not None]

    @torch.inference_mode(False)
    def explain(
        self,
        pictures: Sequence[Tensor],
        request: ExplainRequest | None = None,
        batch_size: int | None = None,
    ) -> list[list[Explanation]]:
        """For each picture the explanations of its boxes, best score first.

        pictures: uint8 RGB tensors [3, H, W] of any sizes. request: None for `defaults`, which may
        be smoother than a plain ExplainRequest: `dataclasses.replace(defaults, ...)` changes some.
        batch_size: as for `detect`, and as many masked pictures run at a time for D-RISE and
        D-CLOSE; by itself 4 of these, on CUDA 32.
        Only pictures of the same padded input size share a batch, so that no answer depends on a
        picture's neighbours. Raises RequestError for an unknown name, PictureError for a picture
        that the detector cannot take.
        """
        request = request or self.defaults
        self.check(request)
        layers = self._places(request)
        explained: list[list[Explanation]] = [[] for _ in pictures]
        with undisturbed(self.detector.model):
            inputs = [self.prepare(picture) for picture in pictures]
            for place, found in self.found(inputs, batch_size):
                explained[place] = self.explain_found(found, request, layers, batch_size)
        return explained

    def found(
        self, prepared: Sequence[Inputs], batch_size: int | None = None
    ) -> Iterator[tuple[int, Found]]:
        """Each place in `prepared` and its results with all candidates; they run in batches of one
        padded size. batch_size and errors as for `detect`; the model is to be `undisturbed`."""
        if batch_size is not None and batch_size < 1:
            raise RequestError("batch_size", batch_size, "an integer of at least 1")
        groups: dict[tuple[int, ...], list[int]] = {}
        for place, inputs in enumerate(prepared):
            groups.setdefault(tuple(inputs.tensors.shape), []).append(place)
        for shape, group in groups.items():
            several = [prepared[place] for place in group]
            asked = None if batch_size is None else "batch_size"
            device, pixels = several[0].tensors.device, shape[-2] * shape[-1]
            number = batch_size or worthwhile(device, BATCH_SIZE, pixels)
            batches = Batches(device, number, self._footprint, asked)
            found = batches.run(lambda batch: self.network.find(batch_of(batch)), several, pixels)
            yield from zip(group, found, strict=True)

    def prepare(self, picture: Tensor) -> Inputs:
        """The network's input for a picture, uint8 [3, H, W]. Raises PictureError for one that the
        detector cannot take."""
        if picture.dtype != torch.uint8 or picture.dim() != 3 or picture.shape[0] != 3:
            raise PictureError(
                "expected a uint8 RGB tensor [3, H, W], got"
                f" {str(picture.dtype).removeprefix('torch.')} {list(picture.shape)}"
            )
        with torch.no_grad():
            return self.detector.prepare(picture)

    def explain_found(
        self,
        found: Found,
        request: ExplainRequest,
        layers: Sequence[Where] | None = None,
        batch_size: int | None = None,
    ) -> list[Explanation]:
        """What `explain` gives for one picture of `found`; `check` is to have seen the request, and
        the model is to be `undisturbed`. layers: the request's, where they are found already.
        batch_size and errors as for `explain`."""
        layers = self._places(request) if layers is None else layers
        verdicts = Verdicts(found, self.detector.limits(), self.categories)
        chosen = self._chosen(verdicts, request)
        if not len(chosen):
            return []
        rows, places = chosen.entries, torch.arange(len(chosen))
        if reads_whole_picture(request) and not (request.box or request.candidates):
            rows, places = found.kept.entries, torch.tensor(chosen.index)
        names = list(self.detector.parts())  # a function of the outputs may read all of them
        if isinstance(request.target, str):
            names = [self._part_name(request.target)]
        parts = [self.detector.part(name, found, rows) for name in names]
        part = parts[0] if len(parts) == 1 else AllParts(parts)
        subject = Subject(chosen, part, places.to(rows.labels.device))
        scene = Scene(self.network, found, batch_size, self._masked)
        with exact_float32(), exact_normalisation(self.network.normalisations):
            try:
                return explain_picture(scene, subject, request, layers, self.categories)
            except NonFiniteError as error:
                self.network.name_non_finite(found.features.inputs, part)
                if isinstance(request.target, str):
                    raise
                raise RequestError("target", request.target_name, f"finite: {error}") from error
            except NoGradientError as error:
                raise refusal(request, str(error)) from error

    def _chosen(self, verdicts: Verdicts, request: ExplainRequest) -> Chosen:
        labels = list(range(self.detector.first_label, len(self.categories)))
        if request.category is not None:
            labels = self._labels(request.category)
        if request.box is not None:
            return verdicts.nearest(request.box, labels)
        if request.candidates:
            return verdicts.strongest(request.candidates, labels)
        kept = verdicts.found.kept.entries
        return verdicts.reported(self.choose(kept.labels, kept.scores, request))

    def choose(self, labels: Tensor, scores: Tensor, request: ExplainRequest) -> Tensor:
        """Which of a picture's detections a request is about: int64 places, best score first.

        labels: int64 [N]; scores: [N], descending.
        """
        request = self.resolved(request)
        assert request.score_threshold is not None  # it is resolved
        wanted = scores >= request.score_threshold
        if request.category is not None:
            named = torch.tensor(self._labels(request.category), device=labels.device)
            wanted &= torch.isin(labels, named)
        return torch.where(wanted)[0][: request.max_detections]

    def resolved(self, request: ExplainRequest) -> ExplainRequest:
        """With what suits the detector where the request leaves score_threshold or max_detections
        open."""
        own = {**FALLBACKS, **self.detector.defaults}
        return replace(
            request, **{name: own[name] for name in FALLBACKS if getattr(request, name) is None}
        )

    def _labels(self, category: str) -> list[int]:
        # A category's name may stand for several labels (COCO's unused ones are all "N/A").
        return [label for label, name in enumerate(self.categories) if name == category]
