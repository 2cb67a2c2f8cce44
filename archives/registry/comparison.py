"""What differs between two archives: weights, configuration, categories, code, golden sample."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from archives.registry.golden_differences import golden_differences
from archives.registry.tensor_differences import tensor_differences
from archives.verify import extract
from handlers.manifest import TORCHSCRIPT, Manifest

MODEL_CONFIG = "model-config.yaml"
FACTS: tuple[str, ...] = (
    "name",
    "version",
    "architecture",
    "weights",
    "network",
    "layout",
    "model_file",
)
FACTS += ("torch", "torchvision", "whybox", "format")


def compare(before: Path, after: Path, folder: Path) -> dict[str, Any]:
    """The differences of two .mar files, which are verified and unpacked into `folder`.

    digests: both. manifest, options, defaults, model_config: [before, after] of each that differs,
    null for none. categories: added, removed, and moved (to another label). weights: as
    `tensor_differences`, null for the same file, {"unread": "torchscript"} for what cannot be
    compared without being run. files: added, removed and
    changed, by name. golden: as `golden_differences`. Raises what `extract` does.
    """
    old_folder, new_folder = folder / "old", folder / "new"
    old, new = extract(before, old_folder), extract(after, new_folder)
    return {
        "digests": [old.digest, new.digest],
        "manifest": _pairs(
            {name: getattr(old, name) for name in FACTS},
            {name: getattr(new, name) for name in FACTS},
        ),
        "options": _pairs(old.options, new.options),
        "defaults": _pairs(old.defaults, new.defaults),
        "categories": _categories(old.categories, new.categories),
        "model_config": _pairs(_config(old_folder), _config(new_folder)),
        "weights": _weights(old_folder, old, new_folder, new),
        "files": _files(old, new),
        "golden": golden_differences(old_folder, new_folder, (old.categories, new.categories)),
    }


def _pairs(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, list[Any]]:
    names = [*old, *(name for name in new if name not in old)]
    return {
        name: [old.get(name), new.get(name)]
        for name in names
        if (name in old, old.get(name)) != (name in new, new.get(name))
    }


def _categories(old: tuple[str, ...], new: tuple[str, ...]) -> dict[str, Any]:
    moved = {
        name: [old.index(name), new.index(name)]
        for name in old
        if name in new and old.index(name) != new.index(name)
    }
    return {
        "added": [name for name in new if name not in old],
        "removed": [name for name in old if name not in new],
        "moved": moved,
    }


def _config(folder: Path) -> dict[str, Any]:
    """Its values by their path, as in "whybox.buckets"."""
    values = yaml.safe_load((folder / MODEL_CONFIG).read_text(encoding="utf-8"))
    return _flat(values) if isinstance(values, dict) else {}


def _flat(values: Mapping[Any, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            found |= _flat(value, f"{prefix}{key}.")
        else:
            found[f"{prefix}{key}"] = value
    return found


def _weights(
    old_folder: Path, old: Manifest, new_folder: Path, new: Manifest
) -> dict[str, Any] | None:
    same = old.files[old.weights] == new.files[new.weights]
    if same:
        return None
    if TORCHSCRIPT in (old.network, new.network):
        return {"unread": TORCHSCRIPT}
    return tensor_differences(old_folder / old.weights, new_folder / new.weights)


def _files(old: Manifest, new: Manifest) -> dict[str, list[str]]:
    return {
        "added": sorted(new.files.keys() - old.files.keys()),
        "removed": sorted(old.files.keys() - new.files.keys()),
        "changed": sorted(
            name
            for name in old.files.keys() & new.files.keys()
            if old.files[name] != new.files[name]
        ),
    }
