"""The transformers library's object detection models as an architecture: built from plain data."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from handlers.detectors.detr import MODELS, PREPROCESSOR, SCORE_THRESHOLD
from handlers.detectors.registry import ADAPTERS, ARCHITECTURES, DetectorError


def library(name: str = "transformers") -> Any:
    """The transformers library, or one of its modules. Raises DetectorError where it is missing."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise DetectorError(
            f"detection transformers need the transformers library ({error}): pip install"
            " 'whybox[transformers]'"
        ) from error


@ARCHITECTURES.register("transformers")
def transformers_model(
    num_classes: int,
    config: Mapping[str, Any],
    preprocessor: Mapping[str, Any] | None = None,
    score_threshold: float = 0.05,
) -> nn.Module:
    """One of the library's object detection models with random weights; downloads nothing.

    config: as in config.json, `model_type` included. preprocessor: as in preprocessor_config.json,
    None for the family's. score_threshold: what scores no more is not reported at all.
    Raises DetectorError where the library is missing or has no such model, ValueError for a config
    of another number of labels or one that would be fetched.
    """
    transformers = library()
    values = own_config(config)
    labels = values.get("id2label")
    if labels is not None and len(labels) != num_classes:
        raise ValueError(f"its id2label names {len(labels)} labels for {num_classes} categories")
    if labels is None:
        values["num_labels"] = num_classes
    read = configuration(transformers, values)
    try:
        model: nn.Module = transformers.AutoModelForObjectDetection.from_config(
            read, dtype=torch.float32
        )
    except ImportError as error:  # a backbone of another library, e.g. timm
        raise DetectorError(f"{values['model_type']} cannot be built: {error}") from error
    setattr(model, PREPROCESSOR, dict(preprocessor or {}))
    setattr(model, SCORE_THRESHOLD, score_threshold)
    return model


def configuration(transformers: Any, values: Mapping[str, Any]) -> Any:
    """The library's configuration of `own_config`'s values. Raises ValueError for wrong ones."""
    try:
        return transformers.AutoConfig.for_model(**values)
    except Exception as error:  # the library's checks raise types of their own
        raise ValueError(f"its config is refused: {error}") from error


def own_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """A copy of config.json's content that asks for nothing from elsewhere.

    Raises ValueError for a model type that no adapter here fits, and for a backbone that is named
    rather than described.
    """
    values = dict(config)
    known = sorted(name.split(".")[2] for name in ADAPTERS.names() if name.startswith(MODELS))
    if values.get("model_type") not in known:
        raise ValueError(
            f"its config's model_type is {values.get('model_type')!r}; expected one of"
            f" {', '.join(known)}"
        )
    for name in ("auto_map", "quantization_config", "_name_or_path", "_commit_hash"):
        values.pop(name, None)
    timm = values.get("use_timm_backbone", True)
    if values.get("backbone") and not values.get("backbone_config") and not timm:
        raise ValueError(
            f"its backbone {values['backbone']!r} would be fetched; describe it in backbone_config"
        )
    if "use_pretrained_backbone" in values:
        values["use_pretrained_backbone"] = False
    return values
