"""Reading a model folder of the transformers library, as its `save_pretrained` writes one.

Only plain data is read: JSON and safetensors. Nothing is fetched, and no code of the folder runs.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from archives.building.weights import Weights, WeightsError
from handlers.detectors.detr import PREPROCESSOR
from handlers.detectors.detr_models import configuration, library, own_config
from handlers.detectors.detr_pictures import SETTINGS
from handlers.detectors.registry import DetectorError, detector_for

CONFIG = "config.json"
PREPROCESSOR_CONFIG = "preprocessor_config.json"
SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt")


def read_pretrained(folder: Path) -> Weights:
    """The weights of an object detection model in `folder`: config.json, model.safetensors or its
    shards with model.safetensors.index.json, and preprocessor_config.json if it is there.

    The names and shapes are those of the library that is installed, which knows the older names of
    its models' tensors. categories: config.json's id2label. options: what the architecture
    "transformers" is built with. Raises WeightsError for a folder that cannot be used,
    DetectorError where the library is missing.
    """
    transformers = library()
    values = _json(folder / CONFIG)
    try:
        config = own_config(values)
        read = configuration(transformers, config)
    except ValueError as error:
        raise WeightsError(f"weights: {folder / CONFIG}: {error}") from error
    settings = {}
    if (folder / PREPROCESSOR_CONFIG).is_file():
        given = _json(folder / PREPROCESSOR_CONFIG)
        settings = {name: given[name] for name in sorted(SETTINGS & set(given))}
    model = _filled(transformers, read, _tensors(folder), folder)
    tensors = dict(model.state_dict())
    setattr(model, PREPROCESSOR, settings)
    try:
        detector_for(model.float())
    except DetectorError as error:
        raise WeightsError(f"weights: {folder}: {error}") from error
    options = {"config": config, "preprocessor": settings}
    return Weights(tensors, _categories(read.id2label, folder), options)


def _json(file: Path) -> dict[str, Any]:
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise WeightsError(f"weights: {file} cannot be read as JSON: {error}") from error
    if not isinstance(values, dict):
        raise WeightsError(f"weights: {file} holds no JSON object")
    return values


def _tensors(folder: Path) -> dict[str, Tensor]:
    if (folder / INDEX).is_file():
        files = _json(folder / INDEX).get("weight_map")
        if not isinstance(files, Mapping) or not files:
            raise WeightsError(f"weights: {folder / INDEX} has no weight_map")
        names = sorted({str(name) for name in files.values()})
        elsewhere = [name for name in names if Path(name).name != name]
        if elsewhere:
            raise WeightsError(f"weights: {folder / INDEX} names {elsewhere[0]}, no file beside it")
    elif (folder / SINGLE).is_file():
        names = [SINGLE]
    else:
        pickles = sorted(file.name for kind in PICKLES for file in folder.glob(kind))
        found = f"there are only {', '.join(pickles)}, and" if pickles else "there is"
        raise WeightsError(
            f"weights: {folder}: expected {SINGLE} or {INDEX}; {found} no safetensors. Save the"
            " model again with its save_pretrained, which writes them"
        )
    tensors: dict[str, Tensor] = {}
    for name in names:
        try:
            tensors.update(safetensors.torch.load_file(folder / name))
        except (safetensors.SafetensorError, OSError) as error:
            raise WeightsError(
                f"weights: {folder / name} is missing, truncated or no safetensors file: {error}"
            ) from error
    return tensors


def _filled(transformers: Any, config: Any, tensors: dict[str, Tensor], folder: Path) -> Any:
    """The model with these tensors, by the library's own loading code."""
    kinds = {each.dtype for each in tensors.values() if each.is_floating_point()}
    try:
        kind = transformers.MODEL_FOR_OBJECT_DETECTION_MAPPING[type(config)]
        model, report = kind.from_pretrained(
            None,  # nothing is read from anywhere
            config=config,
            state_dict=tensors,
            dtype=kinds.pop() if len(kinds) == 1 else torch.float32,
            output_loading_info=True,
        )
    except ImportError as error:  # a backbone of another library, e.g. timm
        raise WeightsError(f"weights: {folder}: {error}") from error
    except (RuntimeError, ValueError, TypeError) as error:
        raise WeightsError(f"weights: {folder} does not fit its {CONFIG}: {error}") from error
    missing = sorted(report["missing_keys"])
    if missing:
        others = sorted(report["unexpected_keys"])
        raise WeightsError(
            f"weights: {folder} does not fit its {CONFIG}: missing {', '.join(missing[:4])}"
            + (f"; not understood {', '.join(others[:4])}" if others else "")
        )
    return model.eval()


def _categories(labels: Mapping[int, str], folder: Path) -> tuple[str, ...]:
    numbers = sorted(labels)
    if not numbers or numbers != list(range(len(numbers))):
        raise WeightsError(
            f"categories: id2label of {folder / CONFIG} names the labels {numbers[:3]} ...;"
            " expected 0, 1, 2 and so on"
        )
    return tuple(str(labels[number]) for number in numbers)
