"""The archive's own description, `whybox.json`: what it holds and which code can read it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, ClassVar

MANIFEST_NAME = "whybox.json"
FORMAT_VERSION = 5
# Fields that came with a later format, and with which: an older archive keeps its digest.
SINCE = {"source_revision": 4}
# What `network` says where the weights are TorchScript.
TORCHSCRIPT = "torchscript"
# Tables and lists in each other; code that walks deeper ones could end in a RecursionError.
DEEPEST = 64


class ArchiveError(ValueError):
    """An archive that cannot be used; the message says what is wrong and what to do.

    problem: the kind of what is wrong, in a word for programs.
    """

    problem: ClassVar[str] = "unusable"


class NewerFormatError(ArchiveError):
    """An archive that a later Whybox built."""

    problem = "newer-format"


@dataclass(frozen=True)
class Manifest:
    """What `whybox.json` says.

    architecture: a name of `handlers.detectors.registry`, e.g. "fasterrcnn_resnet50_fpn"; of a
        YOLO-like detector its layout's, e.g. "yolov8".
    categories: names by label; label 0 is the background, if the detector has one.
    files: sha256 (hex) of every other file in the archive, by its path with forward slashes.
    options: keyword arguments for the architecture's builder, e.g. {"min_size": 320}.
    defaults: fields of ExplainRequest that a request leaves out.
    layout, network: of a YOLO-like detector, as in `handlers.loading.ModelSource`.
    model_file: the archive's file of Python code that the model needs, "" for none.
    source_revision: the commit of the code in it, with "-dirty" if that was changed; "" for
        unknown.
    """

    name: str
    version: str
    architecture: str
    categories: tuple[str, ...]
    files: Mapping[str, str] = field(repr=False)
    weights: str = "weights.safetensors"
    options: Mapping[str, Any] = field(default_factory=dict)
    defaults: Mapping[str, Any] = field(default_factory=dict)
    layout: Mapping[str, Any] = field(default_factory=dict)
    network: str | Mapping[str, Any] = ""
    model_file: str = ""
    torch: str = ""
    torchvision: str = ""
    whybox: str = ""
    source_revision: str = ""
    format: int = FORMAT_VERSION

    @property
    def digest(self) -> str:
        """sha256 (hex) over all of this, the files' digests included: the archive's identity,
        wherever it is unpacked."""
        return hashlib.sha256(self.to_json()).hexdigest()

    def own_code(self) -> str:
        """What the archive brings besides Whybox's own code that runs when it is loaded, as text;
        "" for nothing."""
        several = [f"the model file {self.model_file}"] if self.model_file else []
        if self.network == TORCHSCRIPT:
            several.append(f"the TorchScript {self.weights}")
        return " and ".join(several)

    def to_json(self) -> bytes:
        """UTF-8 JSON with sorted keys and a final newline; the same manifest, the same bytes."""
        values = {
            name: value for name, value in asdict(self).items() if SINCE.get(name, 0) <= self.format
        }
        return json.dumps(values, indent=1, sort_keys=True).encode() + b"\n"

    @classmethod
    def from_json(cls, data: bytes) -> Manifest:
        """Raises ArchiveError if `data` is no manifest, or one of a newer format."""
        try:
            values = json.loads(data)
            # What could not be told again: numbers that are not finite.
            json.dumps(values, allow_nan=False)
        except (ValueError, RecursionError) as error:
            raise ArchiveError(f"{MANIFEST_NAME} is not JSON ({error}); build again") from error
        if _depth(values) > DEEPEST:
            raise ArchiveError(f"{MANIFEST_NAME} is nested too deep; build the archive again")
        number = values.get("format") if isinstance(values, dict) else None
        if not isinstance(number, int) or isinstance(number, bool) or number < 1:
            raise ArchiveError(f"{MANIFEST_NAME} has no format number; build the archive again")
        if values["format"] > FORMAT_VERSION:
            raise NewerFormatError(
                f"the archive has format {values['format']}, this Whybox reads up to"
                f" {FORMAT_VERSION}; update Whybox or build the archive with this version"
            )
        known = {each.name for each in fields(cls)}
        missing = {"name", "version", "architecture", "categories", "files"} - values.keys()
        if missing or values.keys() - known:
            raise ArchiveError(
                f"{MANIFEST_NAME}: missing {sorted(missing)}, unknown"
                f" {sorted(values.keys() - known)}; build the archive again"
            )
        categories = values["categories"]
        texts = [values[name] for name in ("name", "version", "architecture")]
        texts += [
            values.get(name, getattr(cls, name))
            for name in ("weights", "model_file", "torch", "torchvision", "source_revision")
        ]
        if (
            not isinstance(categories, list)
            or not isinstance(values["files"], dict)
            or not all(isinstance(text, str) for text in texts)
            or not all(
                isinstance(values.get(name, {}), dict) for name in ("layout", "options", "defaults")
            )
            or not isinstance(values.get("network", ""), (str, dict))
        ):
            raise ArchiveError(
                f"{MANIFEST_NAME} has values of wrong types: categories is no list, files no table"
                " or a name no text; build the archive again"
            )
        values["categories"] = tuple(str(name) for name in categories)
        return cls(**values)


def _depth(values: Any) -> int:
    """How deep tables and lists of JSON stand in each other; 0 for a single value."""
    level, depth = [values], 0
    while level := [each for each in level if isinstance(each, (dict, list))]:
        depth += 1
        level = [
            inner for each in level for inner in (each.values() if isinstance(each, dict) else each)
        ]
    return depth
