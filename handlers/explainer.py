"""Pictures in, explanations out: the one call that the endpoint and the jobs share.

explainer = Explainer.from_archive("model_store/demo.mar")
detections = explainer.detect(pictures)
explanations = explainer.explain(pictures, ExplainRequest(method="odam"))
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from handlers.archive import read_archive
from handlers.cam.gradient import MapGradient
from handlers.cam.registry import METHODS, Method
from handlers.detectors.base import Detector, Features, Inputs, Kept, Raw, Regions, to_detections
from handlers.detectors.registry import DetectorError, build_model, detector_for, load_weights
from handlers.images import PictureError
from handlers.manifest import ArchiveError, Manifest
from handlers.schema import Detections, ExplainRequest, Explanation, RequestError

__all__ = ["ExplainRequest", "Explainer", "Explanation"]

LAYERS = ("emitting", "roi")
PRECISIONS = ("fp32", "bf16")


@dataclass(frozen=True)
class _Scored:
    """Pictures of one padded size, detected: the four verbs' results side by side."""

    features: Features
    candidates: list[Tensor]
    raw: list[Raw]
    kept: list[Kept]


class Explainer:
    """A detector that can say, for every box it draws, which pixels made it draw that box."""

    def __init__(
        self,
        detector: Detector,
        categories: Sequence[str],
        precision: str = "fp32",
        manifest: Manifest | None = None,
    ) -> None:
        """categories: names by label, the background first.

        Raises RequestError for an unknown precision, DetectorError if the number of categories is
        not the detector's.
        """
        if precision not in PRECISIONS:
            raise RequestError("precision", precision, ", ".join(PRECISIONS))
        if len(categories) != detector.num_classes():
            raise DetectorError(
                f"got {len(categories)} categories for a detector of {detector.num_classes()}, the"
                " background included; name them all by label, the background first"
            )
        self.detector = detector
        self.categories = tuple(categories)
        self.precision = precision
        self.manifest = manifest
        self.defaults = ExplainRequest.from_fields(manifest.defaults if manifest else {})

    @classmethod
    def from_archive(
        cls, path: str | Path, device: str = "cpu", precision: str = "fp32"
    ) -> Explainer:
        """The detector of a .mar file, or of the folder that one was unpacked into.

        device: as torch.device takes it. precision: "fp32" is exact; "bf16" runs the backbone in
        bfloat16. Runs the code that is imported here, and warns if it is not the archive's.
        Raises ArchiveError for an archive that cannot be used, RequestError for a device that is
        not here or an unknown precision.
        """
        archive = read_archive(Path(path))
        manifest = archive.manifest
        try:
            model = build_model(manifest.architecture, len(manifest.categories), manifest.options)
            load_weights(model, archive.weights)
            defaults = ExplainRequest.from_fields(manifest.defaults)
        except ValueError as error:
            raise ArchiveError(f"{path}: {error}") from error
        explainer = cls.from_model(model, manifest.categories, device, precision, manifest)
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
        """Any detector that an adapter fits; it is moved to `device`, in float32 and eval mode.

        categories: names by label, the background first. Raises DetectorError if no adapter fits
        or the number of categories is not the detector's, RequestError for device or precision.
        """
        model = model.to(_device(device), torch.float32).eval()
        return cls(detector_for(model), categories, precision, manifest)

    @property
    def methods(self) -> list[str]:
        """Names that `ExplainRequest.method` may have."""
        return METHODS.names()

    @property
    def targets(self) -> list[str]:
        """Names that `ExplainRequest.target` may have for this detector."""
        return self.detector.targets()

    @property
    def layers(self) -> list[str]:
        """Names that `ExplainRequest.layer` may have."""
        return list(LAYERS)

    def check(self, request: ExplainRequest) -> None:
        """Raises RequestError, with the valid names, for a name this detector does not know."""
        for name, got, allowed in (
            ("method", request.method, self.methods),
            ("target", request.target, self.targets),
            ("layer", request.layer or LAYERS[0], self.layers),
            ("category", request.category, [None, *self.categories[1:]]),
        ):
            if got not in allowed:
                raise RequestError(name, got, ", ".join(str(each) for each in allowed if each))

    @torch.inference_mode(False)
    def detect(self, pictures: Sequence[Tensor], batch_size: int = 8) -> list[Detections]:
        """Boxes, labels, scores and order of the stock model on each picture alone.

        pictures: uint8 RGB tensors [3, H, W] of any sizes. Raises PictureError for a picture that
        the detector cannot take, RequestError for a batch_size below 1.
        """
        found: list[Detections | None] = [None] * len(pictures)
        names = self.detector.level_names()
        for places, scored in self._batches(pictures, batch_size):
            for place, kept in zip(places, scored.kept, strict=True):
                found[place] = to_detections(kept, names)
        return [each for each in found if each is not None]

    @torch.inference_mode(False)
    def explain(
        self,
        pictures: Sequence[Tensor],
        request: ExplainRequest | None = None,
        batch_size: int = 8,
    ) -> list[list[Explanation]]:
        """For each picture the explanations of its boxes, best score first.

        pictures: uint8 RGB tensors [3, H, W] of any sizes. Only pictures of the same padded input
        size share a batch, so that no answer depends on a picture's neighbours. Raises RequestError
        for an unknown name, PictureError for a picture that the detector cannot take.
        """
        request = request or self.defaults
        self.check(request)
        explained: list[list[Explanation]] = [[] for _ in pictures]
        for places, scored in self._batches(pictures, batch_size):
            for row, place in enumerate(places):
                explained[place] = self._explain_one(scored, row, request)
        return explained

    def _batches(
        self, pictures: Sequence[Tensor], batch_size: int
    ) -> Iterator[tuple[list[int], _Scored]]:
        """Places in `pictures` and their results, a batch of one padded size at a time."""
        if batch_size < 1:
            raise RequestError("batch_size", batch_size, "an integer of at least 1")
        prepared = [self._prepare(picture) for picture in pictures]
        groups: dict[tuple[int, ...], list[int]] = {}
        for place, inputs in enumerate(prepared):
            groups.setdefault(tuple(inputs.tensors.shape), []).append(place)
        for group in groups.values():
            for start in range(0, len(group), batch_size):
                places = group[start : start + batch_size]
                yield places, self._run([prepared[place] for place in places])

    def _prepare(self, picture: Tensor) -> Inputs:
        if picture.dtype != torch.uint8 or picture.dim() != 3 or picture.shape[0] != 3:
            raise PictureError(
                "expected a uint8 RGB tensor [3, H, W], got"
                f" {str(picture.dtype).removeprefix('torch.')} {list(picture.shape)}"
            )
        with torch.no_grad():
            return self.detector.prepare(picture)

    @torch.no_grad()
    def _run(self, batch: list[Inputs]) -> _Scored:
        inputs = Inputs(
            tensors=torch.cat([each.tensors for each in batch]),
            sizes=[size for each in batch for size in each.sizes],
            geometries=[geometry for each in batch for geometry in each.geometries],
        )
        device = inputs.tensors.device.type
        with _exact_convolutions():
            with torch.autocast(device, torch.bfloat16, enabled=self.precision == "bf16"):
                features = self.detector.features(inputs)
            maps = {name: each.float() for name, each in features.maps.items()}
            features = replace(features, maps=maps)
            candidates = self.detector.propose(features)
            raw = self.detector.score(features, candidates)
            kept = self.detector.select(features, candidates, raw)
        return _Scored(features, candidates, raw, kept)

    def _explain_one(self, scored: _Scored, row: int, request: ExplainRequest) -> list[Explanation]:
        kept, inputs = scored.kept[row], scored.features.inputs
        chosen = self.choose(kept, request)
        if not len(chosen):
            return []
        candidate, labels, levels = kept.candidate[chosen], kept.labels[chosen], kept.level[chosen]
        frames = scored.candidates[row][candidate]
        pooled = scored.raw[row].pooled[candidate]
        gradients = self._gradients(pooled, frames, inputs.sizes[row], labels, request.target)
        method = METHODS.get(request.method)
        assert method is not None  # check() has seen it
        explanations: dict[int, Explanation] = {}
        for level in levels.unique().tolist():
            own = torch.where(levels == level)[0]
            regions = self.detector.regions(scored.features, row, frames[own], level, pooled[own])
            maps = self._maps(method, regions, [each[own] for each in gradients], request)
            crops = iter(regions.crops)
            for place, heatmap in zip(own.tolist(), maps.cpu(), strict=True):
                geometry = regions.geometry if request.layer != "roi" else next(crops)
                index = int(chosen[place])
                x1, y1, x2, y2 = kept.boxes[index].tolist()
                label = int(kept.labels[index])
                explanations[place] = Explanation(
                    index=index,
                    box=(x1, y1, x2, y2),
                    label=label,
                    category=self.categories[label],
                    score=float(kept.scores[index]),
                    method=request.method,
                    target=request.target,
                    layer=request.layer or LAYERS[0],
                    level=regions.level,
                    heatmap=heatmap,
                    geometry=geometry,
                )
        return [explanations[place] for place in range(len(chosen))]

    def choose(self, found: Kept | Detections, request: ExplainRequest) -> Tensor:
        """Which of a picture's detections a request is about: int64 places, best score first."""
        wanted = found.scores >= request.score_threshold
        if request.category is not None:
            # A category's name may stand for several labels (COCO's unused ones are all "N/A").
            named = [i for i, name in enumerate(self.categories) if name == request.category]
            wanted &= torch.isin(found.labels, torch.tensor(named, device=found.labels.device))
        return torch.where(wanted)[0][: request.max_detections]

    def _gradients(
        self, pooled: Tensor, frames: Tensor, size: tuple[int, int], labels: Tensor, target: str
    ) -> list[Tensor]:
        """d target_n / d pooled_n [N, C, p, q], one for each scalar that the target is made of.

        A candidate's outputs depend on its own pooled features alone, so the gradient of the sum
        over candidates is all their gradients at once.
        """
        with _exact_convolutions(), torch.enable_grad():
            leaf = pooled.detach().requires_grad_()
            raw = self.detector.head(leaf, frames, size)
            scalars = self.detector.target(target, raw, labels)
            return [
                torch.autograd.grad(scalar.sum(), leaf, retain_graph=number < len(scalars))[0]
                for number, scalar in enumerate(scalars, start=1)
            ]

    @torch.no_grad()
    def _maps(
        self,
        method: Method,
        regions: Regions,
        gradients: list[Tensor],
        request: ExplainRequest,
    ) -> Tensor:
        """Non-negative maps [N, h, w]; of several scalars the elementwise maximum."""
        maps = None
        for gradient in gradients:
            parts = _map_gradients(regions, gradient, request.layer)
            each = torch.cat([method(part) for part in parts])
            maps = each if maps is None else torch.maximum(maps, each)
        assert maps is not None
        return maps.clamp(min=0)


@contextmanager
def _exact_convolutions() -> Iterator[None]:
    """float32 means float32: by default cuDNN rounds convolutions to TF32's ten bits."""
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32 = before


def _device(name: str) -> torch.device:
    """The device of that name; raises RequestError unless it is cpu or a GPU that is here."""
    here = ["cpu"]
    if torch.cuda.is_available():
        here += ["cuda", *(f"cuda:{index}" for index in range(torch.cuda.device_count()))]
    if name not in here:
        raise RequestError("device", name, f"{', '.join(here)} (what torch has on this machine)")
    return torch.device(name)


def _map_gradients(regions: Regions, gradient: Tensor, layer: str | None) -> Iterator[MapGradient]:
    """The gradients on the emitting map, all boxes at once; or, for the layer "roi", each box's on
    its own pooled features (how Mask R-CNN users draw Grad-CAM: the pooled map is the map)."""
    if layer != "roi":
        yield MapGradient(
            regions.activation, regions.pooled, gradient, regions.rows, regions.columns
        )
        return
    rows, columns = (torch.eye(side).to(gradient)[None] for side in gradient.shape[-2:])
    for own in range(len(gradient)):
        one = slice(own, own + 1)
        yield MapGradient(regions.pooled[own], regions.pooled[one], gradient[one], rows, columns)
