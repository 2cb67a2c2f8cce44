"""From what an archive holds to the detector's model."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from handlers.detectors.layouts import Layout
from handlers.detectors.registry import DetectorError, build_model, load_weights
from handlers.detectors.yolo import YOLOLike
from handlers.manifest import TORCHSCRIPT
from handlers.model_file import load_model_file, network_of


@dataclass(frozen=True)
class ModelSource:
    """What a model is made of.

    architecture: a name of `handlers.detectors.registry`, or of a layout where `layout` is given.
    num_classes: the background included, where the detector has one.
    options: keyword arguments for the architecture's builder.
    layout: fields of `Layout`, with the layout's name as "layout"; empty for what needs none.
    network: of a layout: "torchscript", or a table of "class" and "arguments" in the model file.
    model_file: name and source of Python code to be run first, None for none.
    """

    architecture: str
    num_classes: int
    options: Mapping[str, Any] = field(default_factory=dict)
    layout: Mapping[str, Any] = field(default_factory=dict)
    network: str | Mapping[str, Any] = ""
    model_file: tuple[str, bytes] | None = None

    @property
    def scripted(self) -> bool:
        """Its network is TorchScript."""
        return self.network == TORCHSCRIPT


def make_model(source: ModelSource, torchscript: bytes = b"") -> nn.Module:
    """The model in eval mode, with random weights unless it is TorchScript.

    Runs the model file. Raises DetectorError for what does not fit together.
    """
    module = load_model_file(*source.model_file) if source.model_file else None
    if not source.layout:
        return build_model(source.architecture, source.num_classes, source.options)
    layout = Layout.named(**{"layout": "", **source.layout})
    if source.scripted:
        return YOLOLike(_scripted(torchscript), layout, source.num_classes).eval()
    if module is None:
        raise DetectorError(
            "network: there is no model file that defines it; give one, or `network: torchscript`"
        )
    values = source.network if isinstance(source.network, Mapping) else {}
    unknown = values.keys() - {"class", "arguments"}
    if unknown:
        raise DetectorError(f"network: unknown {sorted(unknown)}; expected class and arguments")
    network = network_of(module, str(values.get("class", "")), values.get("arguments") or {})
    return YOLOLike(network, layout, source.num_classes).eval()


def load_model(
    source: ModelSource, weights: Mapping[str, Tensor], torchscript: bytes = b""
) -> nn.Module:
    """`make_model`, and its weights."""
    model = make_model(source, torchscript)
    if not source.scripted:
        load_weights(model, weights)
    return model


def _scripted(data: bytes) -> nn.Module:
    try:
        network: nn.Module = torch.jit.load(io.BytesIO(data), map_location="cpu")
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[0]
        raise DetectorError(f"network: not TorchScript, or damaged: {reason}") from error
    return network.eval()
