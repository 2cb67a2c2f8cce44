"""torchvision's image classifiers: a detector of one candidate, the whole network input.

The network is cut at the output of its last convolutional stage, which is the feature map; what
follows, pooling and the classifier, is the head.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torchvision import models

from handlers.detectors.base import (
    Candidates,
    Cells,
    Entries,
    Features,
    Found,
    Inputs,
    Kept,
    Limits,
    Part,
    PartKind,
    Raw,
)
from handlers.detectors.registry import ADAPTERS, ARCHITECTURES, class_path
from handlers.detectors.stage import last_stage
from handlers.images import MAX_PIXELS, Geometry, PictureError
from handlers.tap import undisturbed
from handlers.targets.registry import Outputs

FAMILIES: tuple[type[nn.Module], ...] = (
    *(models.AlexNet, models.ConvNeXt, models.DenseNet, models.EfficientNet, models.GoogLeNet),
    *(models.Inception3, models.MNASNet, models.MobileNetV2, models.MobileNetV3, models.RegNet),
    *(models.ResNet, models.ShuffleNetV2, models.SqueezeNet, models.VGG),
)
# These have no convolutional stage whose output could be explained.
TRANSFORMERS = ("maxvit_", "swin_", "vit_")
# The architectures that `build_classifier` builds.
CLASSIFIERS = tuple(
    name for name in models.list_models(module=models) if not name.startswith(TRANSFORMERS)
)
# Their official weights expect pictures scaled as in TensorFlow, which `transform_input` does.
RESCALED = ("googlenet", "inception_v3")
RESIZES = ("crop", "stretch")


class ClassifierDetector:
    """The four verbs of a classifier: one candidate, whose box is what the network saw of the
    picture. All categories are reported, best score first.

    `model.transform` prepares pictures: torchvision's own preset, as
    `ResNet50_Weights.DEFAULT.transforms()` gives it. A model without one gets the usual: the
    shorter side becomes 256 pixels and the middle 224 are cropped (Inception3: 342 and 299).
    """

    background = False
    first_label = 0
    defaults: Mapping[str, Any] = {"method": "gradcam", "score_threshold": 0.0, "max_detections": 1}
    no_backbone_gradient = ""
    no_gradient: Mapping[str, str] = {
        "boxes": "a classifier draws no box (it is all that the network saw); explain the class"
    }

    def __init__(self, model: Any) -> None:
        """Raises DetectorError for a network without a convolutional stage, or whose transform
        gives pictures that are too small for it."""
        # The submodules are typed as Module | Tensor; `Any` keeps their real interfaces.
        self.model = model
        self.transform = _transform_of(model)
        with torch.no_grad(), undisturbed(model):
            self.stage = last_stage(model, self.sample().tensors)
            logits = self.stage.tail(self._map(self.sample().tensors))
        self.number = int(logits.shape[1])

    def sample(self) -> Inputs:
        """Inputs of the one size that this network takes."""
        side = int(self.transform.crop_size[0])
        device = next(self.model.parameters()).device
        frame = Geometry(side, side, float(side), float(side), 1.0, 1.0)
        return Inputs(torch.zeros(1, 3, side, side, device=device), [(side, side)], [frame])

    def prepare(self, picture: Tensor) -> Inputs:
        height, width = picture.shape[-2:]
        resized_height, resized_width = _resized(height, width, self.transform.resize_size)
        if resized_height * resized_width > MAX_PIXELS:
            raise PictureError(
                f"a picture of {width} x {height} pixels is too narrow for this classifier: with"
                f" its shorter side resized to {min(resized_height, resized_width)} pixels the"
                f" longer has {max(resized_height, resized_width)}; build the archive with resize"
                " stretch, or crop the picture"
            )
        device = next(self.model.parameters()).device
        tensors = self.transform(picture.to(device))[None]
        rows, columns = tensors.shape[-2:]
        geometry = Geometry(
            picture_width=width,
            picture_height=height,
            frame_width=float(columns),
            frame_height=float(rows),
            scale_x=resized_width / width,
            scale_y=resized_height / height,
            offset_x=_crop_offset(resized_width, columns),
            offset_y=_crop_offset(resized_height, rows),
        )
        x1, y1, x2, y2 = geometry.boxes_on_picture(
            torch.tensor([[0.0, 0.0, columns, rows]], dtype=torch.float64)
        )[0].tolist()
        # What was cropped off had no part in the scores.
        geometry = replace(geometry, window=(x1, y1, x2, y2))
        return Inputs(tensors, [(rows, columns)], [geometry], late_clip=True)

    def features(self, inputs: Inputs) -> Features:
        return Features(inputs, {self.stage.layer.name: self._map(inputs.tensors)})

    def _map(self, tensors: Tensor) -> Tensor:
        """What the last convolutional stage gives; what follows it does not run."""
        caught: list[Tensor] = []

        def catch(module: nn.Module, arguments: object, output: Tensor) -> None:
            caught.append(output)
            raise _ReachedError

        handle = self.stage.layer.module.register_forward_hook(catch)
        try:
            with contextlib.suppress(_ReachedError):
                self.model(tensors)
        finally:
            handle.remove()
        return caught[0]

    def propose(self, features: Features) -> list[Candidates]:
        number, _, height, width = features.inputs.tensors.shape
        box = features.inputs.tensors.new_tensor([[0.0, 0.0, width, height]])
        first = torch.zeros(1, dtype=torch.int64, device=box.device)
        return [Candidates(box, first, first, first)] * number

    def score(self, features: Features, candidates: list[Candidates]) -> list[Raw]:
        logits = self.stage.tail(features.maps[self.stage.layer.name])
        return [
            Raw(each[None], each[None].softmax(1), own.boxes[:, None])
            for each, own in zip(logits, candidates, strict=True)
        ]

    def select(
        self, features: Features, candidates: list[Candidates], raw: list[Raw]
    ) -> list[Kept]:
        kept = []
        for picture, each in enumerate(raw):
            scores, labels = each.scores[0].sort(descending=True, stable=True)
            first = torch.zeros_like(labels)
            entries = Entries(each.boxes_of(first, labels), labels, scores, first)
            boxes = features.inputs.on_picture(entries.boxes, picture)
            survivors = torch.arange(len(labels), device=labels.device)
            kept.append(Kept(boxes, entries, first, entries, survivors))
        return kept

    def limits(self) -> Limits:
        # Below zero, so that a category of probability 0 is reported, too.
        return Limits(score=-1.0, iou=1.0, detections=self.number)

    def num_classes(self) -> int:
        return self.number

    def level_names(self) -> list[str]:
        return [self.stage.layer.name]

    def parts(self) -> Mapping[str, PartKind]:
        return {"head": PartKind(("logits", "scores", "boxes"), pooled=False)}

    def on_grid(self, frame: Geometry, height: int, width: int) -> Geometry:
        """By the strides and paddings on the way; what they do not tell divides it evenly."""
        across, down = self.stage.cells.get(width), self.stage.cells.get(height)
        if across is None or down is None:
            return frame
        return replace(
            frame,
            frame_width=float(across.stride * width),
            frame_height=float(down.stride * height),
            offset_x=frame.offset_x + across.shift,
            offset_y=frame.offset_y + down.shift,
        )

    def part(self, name: str, found: Found, chosen: Entries) -> Part:
        labels, origin = chosen.labels, torch.zeros_like(chosen.labels)

        def convolve(maps: Tensor, level: int) -> Mapping[str, Tensor]:
            return {"logits": self.stage.tail(maps)}

        def read(
            heads: Mapping[str, Tensor], places: Tensor, where: tuple[Tensor, Tensor, Tensor]
        ) -> Outputs:
            logits = heads["logits"][where[0]]
            own = labels[places]
            scores = logits.softmax(1).gather(1, own[:, None])[:, 0]
            return Outputs(labels=own, logits=logits, scores=scores, boxes=chosen.boxes[places])

        return Cells(
            level=origin,
            row=origin,
            column=origin,
            convolve=convolve,
            read=read,
            reach=lambda level: None,
            convolutions=lambda level: [],
        )


class _ReachedError(Exception):
    """The network has computed its feature map."""


def _transform_of(model: nn.Module) -> Any:
    own = getattr(model, "transform", None)
    if own is not None and hasattr(own, "crop_size") and hasattr(own, "resize_size"):
        return own
    if isinstance(model, models.Inception3):
        return models.Inception_V3_Weights.DEFAULT.transforms()
    return models.VGG16_Weights.DEFAULT.transforms()


def _resized(height: int, width: int, size: list[int]) -> tuple[int, int]:
    """The size [height, width], or [shorter side], to which torchvision resizes."""
    if len(size) == 2:
        return size[0], size[1]
    short, long = min(height, width), max(height, width)
    longer = int(size[0] * long / short)
    return (size[0], longer) if height <= width else (longer, size[0])


def _crop_offset(resized: int, crop: int) -> float:
    """Where torchvision's center_crop puts a resized side's first pixel on the network input."""
    if resized < crop:  # padded
        return float((crop - resized) // 2)
    return -float(round((resized - crop) / 2))


def build_classifier(
    architecture: str,
    num_classes: int,
    preset: str | None = None,
    size: int | None = None,
    resize: str = "crop",
    **options: Any,
) -> nn.Module:
    """torchvision's classifier with random weights; downloads nothing.

    preset: the official weights (e.g. "IMAGENET1K_V1") as whose pictures are prepared; the newest
    unless it is named. size: pixels a side of the network input, instead of the preset's. resize:
    "crop" takes the middle of the picture, in the preset's proportion; "stretch" all of it.
    options: keyword arguments of torchvision's builder.
    Raises ValueError or TypeError for values that it cannot have.
    """
    official = models.get_model_weights(architecture)
    names = [each.name for each in official]
    if preset is not None and preset not in names:
        raise ValueError(f"preset {preset!r}; expected one of {', '.join(names)}")
    if resize not in RESIZES:
        raise ValueError(f"resize {resize!r}; expected one of {', '.join(RESIZES)}")
    if size is not None and not (isinstance(size, int) and 1 <= size <= 4096):
        raise ValueError(f"size {size!r}; expected a whole number of pixels, 1 to 4096")
    if architecture in RESCALED:
        # The default initialisation takes half a minute.
        options = {"init_weights": False, "transform_input": preset is not None} | options
    builder = models.get_model_builder(architecture)
    model: nn.Module = builder(weights=None, num_classes=num_classes, **options)
    transform = (official[preset] if preset else official.DEFAULT).transforms()
    if size is not None:
        larger = round(size * transform.resize_size[0] / transform.crop_size[0])
        transform.crop_size, transform.resize_size = [size], [larger]
    if resize == "stretch":
        transform.resize_size = [*transform.crop_size, *transform.crop_size]
    model.transform = transform
    return model


def _register() -> None:
    for family in FAMILIES:
        ADAPTERS.register(class_path(family))(ClassifierDetector)
    for name in CLASSIFIERS:
        builder: Callable[..., nn.Module] = partial(build_classifier, name)
        ARCHITECTURES.register(name)(builder)


_register()
