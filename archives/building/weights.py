"""Reading weights and category names for a build, without running anything from the file."""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
import torchvision
from torch import Tensor, nn

from archives.errors import CommandError, UsageError
from handlers.detectors.registry import FROZEN_BATCH_NORM_EPS, build_model

WEIGHTS = "weights.safetensors"
BACKGROUND = "__background__"
RANDOM = "random"
# How what torch.save writes begins: a zip, or in old files a pickle.
TORCH_SAVED = (b"PK\x03\x04", b"\x80")
SUFFIXES = (".safetensors", ".pth", ".pt")
# Wrappers that training scripts put around a state dict.
WRAPPERS = ("model", "state_dict")
# torchvision sets the eps of batch normalisation to zero for the COCO_V1 of these alone.
WITHOUT_EPS = (
    "fasterrcnn_resnet50_fpn",
    "keypointrcnn_resnet50_fpn",
    "maskrcnn_resnet50_fpn",
    "retinanet_resnet50_fpn",
)
NAMED_WEIGHTS = re.compile(r"[A-Z][A-Z0-9_]*")


class WeightsError(UsageError):
    """Weights or categories that cannot be used; the message says what to do."""


class UnsafeWeightsError(WeightsError):
    """A pickle that asks for more than tensors: reading it could run code."""

    exit_code = 5


class WeightsUnavailableError(CommandError):
    """Official weights that could not be fetched now; worth a retry."""

    exit_code = 75


@dataclass(frozen=True)
class Weights:
    """tensors: by name, on the CPU, floating types as in the source.

    categories: names by label as the source itself gives them, or None; `checked_names` adds the
        background that a detector may have.
    options: what the architecture's builder must be told for these weights to fit.
    """

    tensors: Mapping[str, Tensor]
    categories: tuple[str, ...] | None = None
    options: Mapping[str, Any] = field(default_factory=dict)


def read_weights(
    source: str, architecture: str, num_classes: int | None, options: Mapping[str, Any]
) -> Weights:
    """The weights that `source` names: "random", one of torchvision's enum, or a file.

    num_classes (background included) and options matter for random weights alone, which are the
    same in every build. Raises WeightsError for what cannot be used, UnsafeWeightsError for a
    pickle that needs more than weights_only, WeightsUnavailableError if a download failed.
    """
    if source == RANDOM:
        return _random_weights(architecture, num_classes, options)
    path = Path(source)
    if not path.exists() and NAMED_WEIGHTS.fullmatch(source):
        return _official_weights(source, architecture)
    if not path.is_file():
        raise WeightsError(
            f"weights: there is no file {source}; give {RANDOM}, COCO_V1 or a file"
            f" ({', '.join(SUFFIXES)})"
        )
    if path.suffix not in SUFFIXES:
        raise WeightsError(f"weights: {source} should end in one of {', '.join(SUFFIXES)}")
    read = _safetensors(path) if path.suffix == ".safetensors" else _pickled(path)
    official = [each for each in _torchvision_weights(architecture) or () if path.name in each.url]
    # A file that was fetched by hand is as good as one that torchvision fetches.
    name = official[0].name if official else None
    if name and read.categories is None:
        read = replace(read, categories=tuple(official[0].meta["categories"]))
    return replace(read, options=_builder_options(read.tensors, architecture, name))


def _builder_options(
    tensors: Mapping[str, Tensor], architecture: str, official: str | None
) -> dict[str, Any]:
    """What the builder must be told: a classifier, as which official weights' its pictures are
    prepared; a detector, whether its BatchNorm2d is frozen, since weights trained from a pretrained
    backbone come without its batch counters."""
    if architecture in torchvision.models.list_models(module=torchvision.models):
        return {"preset": official} if official else {}
    if not any(name.endswith(".running_mean") for name in tensors) or any(
        name.endswith(".num_batches_tracked") for name in tensors
    ):
        return {}
    oldest = official == "COCO_V1" and architecture in WITHOUT_EPS
    return {FROZEN_BATCH_NORM_EPS: 0.0 if oldest else 1e-5}


def read_categories(path: Path, background: bool = True) -> tuple[str, ...]:
    """Names by label from a text file of one name a line (UTF-8, blank lines ignored).

    background: the detector has one; it is added as label 0 unless the file begins with it. Raises
    WeightsError for a file that cannot be read, names nothing, or names something twice.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise WeightsError(f"categories: {path} cannot be read as UTF-8 text: {error}") from error
    names = [line.strip() for line in lines if line.strip()]
    return checked_names(names, str(path), background)


def checked_names(names: list[str], source: str, background: bool) -> tuple[str, ...]:
    """Names by label, the background first if there is one."""
    if background and names[:1] != [BACKGROUND]:
        names = [BACKGROUND, *names]
    if not background and names[:1] == [BACKGROUND]:
        raise WeightsError(
            f"categories: {source} begins with {BACKGROUND}, and this detector has no background;"
            " leave that line out"
        )
    if len(names) < 1 + background:
        raise WeightsError(f"categories: {source} names none; expected one name a line")
    # torchvision's own list has "N/A" for each label that COCO never used.
    repeated = sorted({name for name in names if name != "N/A" and names.count(name) > 1})
    if repeated:
        raise WeightsError(f"categories: {source} names {', '.join(repeated)} more than once")
    return tuple(names)


def _random_weights(
    architecture: str, num_classes: int | None, options: Mapping[str, Any]
) -> Weights:
    categories = None
    if num_classes is None:
        categories = _torchvision_categories(architecture)
        if categories is None:
            raise WeightsError(
                f"categories: {architecture} has none of its own; give --categories FILE"
            )
    number = num_classes or len(categories or ())
    return Weights(random_tensors(lambda: build_model(architecture, number, options)), categories)


def random_tensors(make: Callable[[], nn.Module]) -> dict[str, Tensor]:
    """The weights of a new model, the same each time."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return dict(make().state_dict())


def _torchvision_weights(architecture: str) -> Any:
    """torchvision's enum of official weights, or None for an architecture that is not its own."""
    models = torchvision.models
    if architecture not in (
        *models.list_models(module=models.detection),
        *models.list_models(module=models),
    ):
        return None
    return torchvision.models.get_model_weights(architecture)


def _torchvision_categories(architecture: str) -> tuple[str, ...] | None:
    official = _torchvision_weights(architecture)
    return tuple(next(iter(official)).meta["categories"]) if official else None


def _official_weights(name: str, architecture: str) -> Weights:
    official = _torchvision_weights(architecture)
    names = [each.name for each in official] if official else []
    if name not in names:
        allowed = ", ".join([RANDOM, *names, "a file"])
        raise WeightsError(f"weights: {architecture} has no {name}; expected {allowed}")
    chosen = official[name]
    try:
        tensors = chosen.get_state_dict(
            check_hash=True, progress=True, map_location="cpu", weights_only=True
        )
    except OSError as error:
        raise WeightsUnavailableError(
            f"weights: {chosen.url} could not be fetched ({error}); try again with internet access,"
            " or fetch it elsewhere and give it as a file"
        ) from error
    except RuntimeError as error:  # What torch.hub raises for a wrong hash.
        raise WeightsUnavailableError(f"weights: {chosen.url} came damaged ({error})") from error
    checked = _tensors(tensors, name)
    return Weights(
        checked,
        tuple(chosen.meta["categories"]),
        _builder_options(checked, architecture, name),
    )


def _safetensors(path: Path) -> Weights:
    try:
        with safetensors.safe_open(path, framework="pt") as opened:
            metadata = opened.metadata() or {}
        tensors = safetensors.torch.load_file(path)
    except (safetensors.SafetensorError, OSError) as error:
        raise WeightsError(
            f"weights: {path} is truncated or no safetensors file: {error}"
        ) from error
    categories = None
    if "categories" in metadata:
        categories = _header_categories(metadata["categories"], path)
    return Weights(_tensors(tensors, str(path)), categories)


def _header_categories(text: str, path: Path) -> tuple[str, ...]:
    try:
        names = json.loads(text)
    except ValueError as error:
        raise WeightsError(f"categories: the header of {path} holds no JSON list") from error
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise WeightsError(f"categories: the header of {path} holds no list of names")
    return tuple(names)


def _pickled(path: Path) -> Weights:
    with path.open("rb") as file:
        if not file.read(4).startswith(TORCH_SAVED):
            raise WeightsError(f"weights: {path} is truncated or was not written by torch.save")
    try:
        with warnings.catch_warnings():
            # torch remarks on old pickle protocols and TorchScript; the errors below say more.
            warnings.simplefilter("ignore")
            loaded = torch.load(path, weights_only=True, map_location="cpu")
    except Exception as error:  # On damaged files torch's unpickler raises nearly every type.
        if "weights_only" in str(error):
            needs = re.search(r"GLOBAL:? ([\w.]+)", str(error))
            raise UnsafeWeightsError(
                f"weights: {path} is refused: its pickle holds more than tensors"
                f" ({needs[1] if needs else 'not weights_only'}), and reading that can run code."
                " Save the state_dict alone, as .safetensors if possible"
            ) from error
        raise WeightsError(
            f"weights: {path} is truncated or was not written by torch.save"
            f" ({type(error).__name__}: {str(error).splitlines()[:1]})"
        ) from error
    for wrapper in WRAPPERS:
        if isinstance(loaded, dict) and isinstance(loaded.get(wrapper), dict):
            loaded = loaded[wrapper]
    return Weights(_tensors(loaded, str(path)))


def _tensors(loaded: object, source: str) -> dict[str, Tensor]:
    if not isinstance(loaded, dict) or not loaded:
        raise WeightsError(f"weights: {source} holds a {type(loaded).__name__}, no state_dict")
    for name, tensor in loaded.items():
        if not isinstance(name, str) or not isinstance(tensor, Tensor):
            raise WeightsError(
                f"weights: {source} is no state_dict: {name!r} is a {type(tensor).__name__};"
                f" expected tensors by name, bare or under one of {', '.join(WRAPPERS)}"
            )
        if tensor.layout != torch.strided or tensor.is_quantized:
            raise WeightsError(f"weights: {source}: {name} is sparse or quantised; store it dense")
    return {_current_name(name): tensor for name, tensor in loaded.items()}


def _current_name(name: str) -> str:
    """torchvision's first DenseNets had "denselayer1.norm.1." where it is "norm1." now."""
    return re.sub(r"(denselayer\d+\.(?:norm|relu|conv))\.([12]\.)", r"\1\2", name)
