"""An archive's model-config.yaml: how TorchServe batches and times it, and what is Whybox's."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from archives.errors import UsageError
from handlers.endpoint.settings import OWN_BLOCK
from handlers.fields import Choice, Kind, Whole

MODEL_CONFIG = "model-config.yaml"
# TorchServe reads these keys; times are seconds but for maxBatchDelay, which is milliseconds and
# which a lone request waits in full.
TEXT = """\
minWorkers: 1
maxWorkers: 1
batchSize: 8
# A lone request waits so many milliseconds for company; those that come while others are worked on
# have it already.
maxBatchDelay: 1
# Four batches: who comes later gets 503 at once, rather than an answer too late to be of use.
jobQueueSize: 32
responseTimeout: 120
startupTimeout: 120
"""
KEYS: Mapping[str, Kind] = {
    "minWorkers": Whole(1, 1000),
    "maxWorkers": Whole(1, 1000),
    "batchSize": Whole(1, 1000),
    "maxBatchDelay": Whole(0, 600_000),
    "jobQueueSize": Whole(1, 1_000_000),
    "responseTimeout": Whole(1, 3600),
    "startupTimeout": Whole(1, 3600),
    "maxRetryTimeoutInSec": Whole(1, 86_400),
    "deviceType": Choice(("cpu", "gpu")),
}
OWN_KEYS = ("buckets", "defaults")


@dataclass(frozen=True)
class ModelConfig:
    """values: TorchServe's keys that are to be other than ours. buckets, defaults: as in
    `archives.building.model.BuildOptions`; in the file they stand under `whybox`."""

    values: Mapping[str, int | str] = field(default_factory=dict)
    buckets: tuple[str, ...] = ()
    defaults: Mapping[str, Any] = field(default_factory=dict)

    def text(self) -> str:
        """The archive's file."""
        text = TEXT
        for key, value in self.values.items():
            line = f"{key}: {value}\n"
            text, found = re.subn(rf"(?m)^{key}: .*\n", line, text)
            text += "" if found else line
        own = {"buckets": list(self.buckets), "defaults": dict(self.defaults)}
        own = {key: value for key, value in own.items() if value}
        return text + (yaml.safe_dump({OWN_BLOCK: own}) if own else "")


def read_model_config(path: Path) -> ModelConfig:
    """A model-config.yaml of the user's. Raises UsageError, which names the key, for one that is
    not known, there twice, or of another type."""
    try:
        text = path.read_text(encoding="utf-8")
        node, values = yaml.compose(text, yaml.SafeLoader), yaml.safe_load(text)
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"config: {path} cannot be read: {error}") from error
    except (yaml.YAMLError, RecursionError) as error:
        raise UsageError(f"config: {path} is not YAML: {error}") from error
    if not isinstance(node, yaml.MappingNode) or not isinstance(values, dict):
        raise UsageError(f"config: {path} should be a table with keys of {', '.join(KEYS)}")
    names = [key.value for key, _ in node.value]
    for name in names:
        if names.count(name) > 1:
            raise UsageError(f"config: {path}: {name} is there twice; leave one")
    own = values.pop(OWN_BLOCK, {})
    for name, value in values.items():
        _check(path, name, value)
    _check_workers(path, values)
    if not isinstance(own, dict):
        raise UsageError(f"config: {path}: {OWN_BLOCK} should be a table of {', '.join(OWN_KEYS)}")
    for name in own:
        if name not in OWN_KEYS:
            raise _unknown(path, f"{OWN_BLOCK}.{name}", OWN_KEYS)
    buckets, defaults = own.get("buckets") or [], own.get("defaults") or {}
    if not isinstance(buckets, list) or not all(isinstance(each, str) for each in buckets):
        raise UsageError(f"config: {path}: {OWN_BLOCK}.buckets should be a list of buckets' names")
    if not isinstance(defaults, dict) or not all(isinstance(each, str) for each in defaults):
        raise UsageError(f"config: {path}: {OWN_BLOCK}.defaults should be a table of fields")
    return ModelConfig(values, tuple(buckets), defaults)


def _check(path: Path, name: object, value: object) -> None:
    if not isinstance(name, str) or name not in KEYS:
        raise _unknown(path, name, [*KEYS, OWN_BLOCK])
    if not KEYS[name].holds(value):
        raise UsageError(f"config: {path}: {name}: got {value!r}; expected {KEYS[name].allowed}")


def _check_workers(path: Path, values: Mapping[str, Any]) -> None:
    least, most = ((yaml.safe_load(TEXT) | values)[key] for key in ("minWorkers", "maxWorkers"))
    if least > most:
        raise UsageError(
            f"config: {path}: maxWorkers: got {most}; expected at least minWorkers, {least}"
        )


def _unknown(path: Path, name: object, known: Sequence[str]) -> UsageError:
    return UsageError(f"config: {path}: unknown key {name!r}; expected {', '.join(known)}")
