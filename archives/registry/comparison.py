"""What differs between two archives: weights, configuration, categories, code, golden sample."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from archives.errors import one_line
from archives.registry.golden_differences import golden_differences
from archives.registry.tensor_differences import tensor_differences
from archives.verify import extract
from handlers.manifest import TORCHSCRIPT, ArchiveError, Manifest

MODEL_CONFIG = "model-config.yaml"
MOST_CONFIG = 256 * 1024  # bytes; YAML is slow to read
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
    changed, by name. golden: as `golden_differences`. All of it is plain JSON. Raises what
    `extract` does, and ArchiveError for a model-config.yaml or golden sample that is malformed.
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
        "model_config": _pairs(_config(before, old_folder), _config(after, new_folder)),
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


class _Loader(yaml.SafeLoader):
    """Without aliases, by which a few lines become gigabytes when they are written out."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("expected no aliases (*name)")
        return super().compose_node(parent, index)


def _config(archive: Path, folder: Path) -> dict[str, Any]:
    """Its values by their path, as in "whybox.buckets"; those that JSON does not know as text."""
    try:
        data = (folder / MODEL_CONFIG).read_bytes()
        if len(data) > MOST_CONFIG:
            raise ValueError(f"it has {len(data)} bytes; at most {MOST_CONFIG} are read")
        values = yaml.load(data.decode(), Loader=_Loader)
        flat = _flat(values) if isinstance(values, dict) else {}
        found: dict[str, Any] = json.loads(json.dumps(flat, default=str, allow_nan=False))
    except Exception as error:  # PyYAML reads "!!bool x" into a KeyError, and others into others
        raise ArchiveError(
            f"{archive}: its {MODEL_CONFIG} is malformed ({type(error).__name__}:"
            f" {one_line(error, 200)}); build it again"
        ) from error
    return found


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
