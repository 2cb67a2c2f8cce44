"""Detectors by name: how to build an architecture, and which adapter gives it the four verbs."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any

import torchvision
from torch import Tensor, nn
from torchvision.ops.misc import FrozenBatchNorm2d

from handlers.detectors.base import Detector
from handlers.registry import Registry


class DetectorError(ValueError):
    """An architecture, weights or a model that cannot be used; the message says what to do."""


FROZEN_BATCH_NORM_EPS = "frozen_batch_norm_eps"

# Adapters by the class of model that they fit, as "module.Class".
ADAPTERS: Registry[type[Any]] = Registry("adapter", "handlers.detectors")
# Builders of our own, by architecture; torchvision's are found in torchvision.
ARCHITECTURES: Registry[Callable[..., nn.Module]] = Registry("architecture", "handlers.detectors")


def class_path(kind: type) -> str:
    """The name under which adapters of a model class are registered."""
    return f"{kind.__module__}.{kind.__qualname__}"


def detector_for(model: nn.Module) -> Detector:
    """The four verbs for `model`, by the nearest of its base classes that has an adapter.

    Raises DetectorError for a model that no adapter fits.
    """
    detector: Detector = _adapter_of(model)(model)
    return detector


def _adapter_of(model: nn.Module) -> type[Any]:
    for kind in type(model).__mro__:
        adapter = ADAPTERS.get(class_path(kind))
        if adapter is not None:
            return adapter
    raise DetectorError(
        f"no adapter for a {class_path(type(model))}; there are adapters for"
        f" {', '.join(ADAPTERS.names())}. README, 'Add a detector', shows how to write one"
    )


def has_background(model: nn.Module) -> bool:
    """Whether label 0 of the detector's categories is the background. Raises DetectorError as
    `detector_for`."""
    return bool(_adapter_of(model).background)


def architectures() -> list[str]:
    """Names of all architectures that `build_model` builds and an adapter fits, sorted."""
    theirs = torchvision.models.list_models(module=torchvision.models.detection)
    return sorted({*theirs, *ARCHITECTURES.names()})


def architectures_in_words() -> str:
    """`architectures` for an error message, which the many classifiers would fill."""
    classifiers = torchvision.models.list_models(module=torchvision.models)
    names = [name for name in architectures() if name not in classifiers]
    return f"{', '.join(names)}, or one of torchvision's convolutional classifiers, as resnet50"


def build_model(
    architecture: str, num_classes: int, options: Mapping[str, Any] | None = None
) -> nn.Module:
    """The architecture with random weights, in eval mode; downloads nothing.

    num_classes counts the background; options are keyword arguments of the builder, e.g. min_size,
    and frozen_batch_norm_eps: torchvision's own trained weights belong to FrozenBatchNorm2d with
    this eps, which its builders use only while they download.
    Raises DetectorError for an unknown architecture or options that its builder refuses.
    """
    if architecture not in architectures():
        raise DetectorError(
            f"unknown detector {architecture!r}; expected one of {architectures_in_words()}"
        )
    keywords = dict(options or {})
    eps = keywords.pop(FROZEN_BATCH_NORM_EPS, None)
    own = ARCHITECTURES.get(architecture)
    try:
        if own is not None:
            model = own(num_classes=num_classes, **keywords)
        else:
            builder = torchvision.models.get_model_builder(architecture)
            model = builder(
                weights=None, weights_backbone=None, num_classes=num_classes, **keywords
            )
    except (TypeError, ValueError) as error:
        raise DetectorError(f"{architecture} cannot be built: {error}") from error
    if eps is not None:
        _freeze_batch_norm(model, float(eps))
    return model.eval()


def _freeze_batch_norm(model: nn.Module, eps: float) -> None:
    for parent in list(model.modules()):
        for name, child in parent.named_children():
            if isinstance(child, nn.BatchNorm2d):
                setattr(parent, name, FrozenBatchNorm2d(child.num_features, eps))


def load_weights(model: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Copies `weights` (any floating type) into `model`.

    Raises DetectorError, naming the first tensors that differ, unless every name and shape fits
    (the older names of RetinaNet's head are understood, as its own loading code does). `model` may
    have taken what fits by then.
    """
    own = model.state_dict()
    differences = [
        f"{name} is {list(weights[name].shape)}, expected {list(own[name].shape)}"
        for name in own
        if name in weights and weights[name].shape != own[name].shape
    ]
    if not differences:
        given = OrderedDict(weights)
        # The model's own version number, which MNASNet asks for.
        versions = getattr(model.state_dict(), "_metadata", {})
        given._metadata = {"": versions.get("", {})}  # type: ignore[attr-defined]
        loaded = model.load_state_dict(given, strict=False)
        differences += [f"missing {name}" for name in loaded.missing_keys]
        differences += [f"unexpected {name}" for name in loaded.unexpected_keys]
    if differences:
        shown = "; ".join(differences[:4])
        more = f"; and {len(differences) - 4} more" if len(differences) > 4 else ""
        raise DetectorError(
            f"the weights do not fit the architecture: {shown}{more}."
            " Check --detector and the number of categories"
        )
