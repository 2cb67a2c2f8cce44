"""The short YAML that says how a YOLO-like detector's output is laid out."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from handlers.detectors.layouts import Layout
from handlers.detectors.registry import DetectorError
from handlers.manifest import TORCHSCRIPT

SUFFIXES = (".yaml", ".yml")


@dataclass(frozen=True)
class Description:
    """layout, network: as in `handlers.loading.ModelSource`."""

    layout: Mapping[str, Any] = field(default_factory=dict)
    network: str | Mapping[str, Any] = ""


def read_description(path: Path) -> Description:
    """The description in a YAML file, checked as far as that goes without the network.

    Raises DetectorError for a file that is not there, no YAML, or describes no layout.
    """
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
        json.dumps(values)  # the archive's manifest is to hold it
    except (OSError, UnicodeDecodeError) as error:
        raise DetectorError(f"detector: {path} cannot be read: {error}") from error
    except (yaml.YAMLError, RecursionError) as error:
        raise DetectorError(f"detector: {path} is not YAML: {error}") from error
    except (TypeError, ValueError) as error:
        raise DetectorError(f"detector: {path} holds what JSON cannot: {error}") from error
    if (
        not isinstance(values, dict)
        or not isinstance(values.get("layout"), str)
        or not all(isinstance(name, str) for name in values)
    ):
        raise DetectorError(
            f"detector: {path} should be a table with `layout`, `head` and, where they differ from"
            " the layout's own, its other fields"
        )
    network = values.pop("network", {}) or {}
    if network != TORCHSCRIPT and not isinstance(network, dict):
        raise DetectorError(
            f"network: got {network!r}; expected {TORCHSCRIPT}, or a table of class and arguments"
        )
    try:
        Layout.named(**values)
    except DetectorError as error:
        raise DetectorError(f"{path}: {error}") from error
    return Description(values, network)
