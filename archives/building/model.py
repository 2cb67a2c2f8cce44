"""What a build is made from: the model, its weights and the names of its categories, checked."""

from __future__ import annotations

import importlib.util
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from archives.building.description import SUFFIXES, Description, read_description
from archives.building.pretrained import read_pretrained
from archives.building.weights import (
    BACKGROUND,
    RANDOM,
    Weights,
    WeightsError,
    checked_names,
    random_tensors,
    read_categories,
    read_weights,
)
from handlers.detectors.registry import (
    DetectorError,
    architectures,
    architectures_in_words,
    detector_for,
    has_background,
)
from handlers.loading import ModelSource, load_model, make_model
from handlers.model_file import load_model_file

TORCHSCRIPT_FILE = "network.torchscript"
# Python imports it, TorchServe names it, and it lies beside the archive's own files.
MODEL_FILE = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,99}\.py")


@dataclass(frozen=True)
class BuildOptions:
    """What to build.

    detector: an architecture of `handlers.detectors.registry` (which `model_file` may add to), or a
        YAML file that describes a YOLO-like detector's output.
    weights: "random", a name of torchvision's weights enum (e.g. "COCO_V1"), a file, or for
        "transformers" a folder.
    name, version: the model's, as TorchServe serves it; the archive is `export_path/NAME.mar`.
    categories: a text file of one name a line; None to take the names that come with the weights.
    force: replace an archive that is there.
    options: keyword arguments for the architecture's builder, e.g. {"min_size": 320}.
    defaults: fields of ExplainRequest that a request may leave out.
    model_file: Python code that goes into the archive and runs before the model is built.
    buckets: whose objects requests to the endpoint may name instead of sending a picture.
    config: a model-config.yaml whose keys replace ours; `buckets` and `defaults` go before its own.
    golden_picture: the picture of the golden sample; None for one that is drawn.
    golden_sample: False leaves it out, which is quicker; such an archive passes `verify` only as
        far as that goes without loading.
    source_revision: the commit of the code that is packed; None to ask the environment, then git.
    """

    detector: str
    weights: str
    name: str
    version: str
    export_path: Path
    categories: Path | None = None
    force: bool = False
    options: Mapping[str, Any] = field(default_factory=dict)
    defaults: Mapping[str, Any] = field(default_factory=dict)
    model_file: Path | None = None
    buckets: tuple[str, ...] = ()
    config: Path | None = None
    golden_picture: Path | None = None
    golden_sample: bool = True
    source_revision: str | None = None


@dataclass(frozen=True)
class Model:
    """A model that fits together.

    tensors: its weights by name; none where it is `torchscript`. categories: names by label.
    """

    source: ModelSource
    categories: tuple[str, ...]
    tensors: Mapping[str, Tensor]
    torchscript: bytes = b""


def read_model(options: BuildOptions) -> Model:
    """The model that `options` name, loaded once to see that all fits.

    Raises WeightsError, UnsafeWeightsError, WeightsUnavailableError or DetectorError.
    """
    source = _source(options)
    if source.layout:
        return _described(options, source)
    # A folder is of transformers, whose detectors have none.
    in_folder = options.detector == "transformers" and Path(options.weights).is_dir()
    background = not in_folder and has_background(make_model(replace(source, num_classes=2)))
    categories = None
    if options.categories:
        categories = read_categories(options.categories, background)
    number = len(categories) if categories else None
    if in_folder:
        weights = read_pretrained(Path(options.weights))
    else:
        weights = read_weights(options.weights, options.detector, number, options.options)
    if categories is None:
        categories = _own_categories(weights, options, background)
    own = {**weights.options, **options.options}
    source = replace(source, num_classes=len(categories), options=own)
    _check(source, weights.tensors, categories)
    return Model(source, categories, weights.tensors)


def _source(options: BuildOptions) -> ModelSource:
    code = None
    if options.model_file is not None:
        name = options.model_file.name
        if not MODEL_FILE.fullmatch(name) or _is_taken(options.model_file):
            raise DetectorError(
                f"model file: got {name}; expected letters, digits and '_' with .py, and a name"
                " that no installed module has, since it lies where Python looks for modules"
            )
        try:
            code = (name, options.model_file.read_bytes())
        except OSError as error:
            raise DetectorError(f"model file: {options.model_file}: {error.strerror}") from error
        load_model_file(*code)
    described = Description()
    architecture = options.detector
    if options.detector.endswith(SUFFIXES):
        described = read_description(Path(options.detector))
        architecture = str(described.layout["layout"])
    elif options.detector not in architectures():
        raise DetectorError(
            f"detector: got {options.detector!r}; expected one of {architectures_in_words()};"
            " a YAML file that describes a YOLO-like one; or one that --model-file registers"
        )
    return ModelSource(architecture, 1, options.options, described.layout, described.network, code)


def _is_taken(file: Path) -> bool:
    """Another module has the file's name, in whatever case: the archive's own, or one that is
    installed here."""
    stem = file.stem.casefold()
    if stem in {"explain_handler", "handlers", "jobs", "archives", "__init__", "__main__"}:
        return True
    if stem in {name.casefold() for name in sys.stdlib_module_names}:
        return True
    found = importlib.util.find_spec(file.stem)
    return found is not None and Path(found.origin or "").resolve() != file.resolve()


def _described(options: BuildOptions, source: ModelSource) -> Model:
    """A YOLO-like model: its categories come from a file, or from the weights' header."""
    categories = read_categories(options.categories, False) if options.categories else None
    if source.scripted:
        return _scripted(options, source, categories)
    if options.weights == RANDOM:
        number = len(categories) if categories else 1
        weights = Weights(random_tensors(lambda: make_model(replace(source, num_classes=number))))
    else:
        weights = read_weights(options.weights, source.architecture, None, {})
    if categories is None:
        categories = _own_categories(weights, options, False)
    source = replace(source, num_classes=len(categories))
    _check(source, weights.tensors, categories)
    return Model(source, categories, weights.tensors)


def _scripted(
    options: BuildOptions, source: ModelSource, categories: tuple[str, ...] | None
) -> Model:
    if categories is None:
        raise WeightsError("categories: TorchScript names none; give --categories FILE")
    try:
        data = Path(options.weights).read_bytes()
    except OSError as error:
        raise WeightsError(
            f"weights: {options.weights} cannot be read ({error.strerror}); with `network:"
            " torchscript` give the file that torch.jit.save wrote"
        ) from error
    source = replace(source, num_classes=len(categories))
    _check(source, {}, categories, data)
    return Model(source, categories, {}, data)


def _check(
    source: ModelSource,
    tensors: Mapping[str, Tensor],
    categories: tuple[str, ...],
    torchscript: bytes = b"",
) -> None:
    """Raises DetectorError unless the weights fit, and the layout fits what the network gives."""
    try:
        model = load_model(source, tensors, torchscript)
        if source.layout:
            _try(model)
    except DetectorError as error:
        background = " with the background" if categories[0] == BACKGROUND else ""
        raise DetectorError(
            f"{error} ({len(categories)} categories{background}: {categories[0]} ..."
            f" {categories[-1]})"
        ) from error


def _try(model: nn.Module) -> None:
    """Runs a model of other people's code on a blank picture."""
    try:
        detector_for(model)
    except DetectorError:
        raise
    except Exception as error:  # any code, so any error
        raise DetectorError(
            f"the network fails on a blank picture: {type(error).__name__}: {error}"
        ) from error


def _own_categories(weights: Weights, options: BuildOptions, background: bool) -> tuple[str, ...]:
    if weights.categories is None:
        names = " (without the background)" if background else ""
        raise WeightsError(
            f"categories: {options.weights} does not name any; give --categories FILE with one name"
            f" a line{names}"
        )
    return checked_names(list(weights.categories), options.weights, background)
