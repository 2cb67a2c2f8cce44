"""Pictures' keys as names: of files, of a table's cells, of arrays."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from urllib.parse import quote

# What a job writes at the top of its output.
RECORD = "run.json"
CONTACT_SHEET = "contact-sheet.jpg"
REPORT = "report/"
PAGE = f"{REPORT}index.html"
# What its audits draw there.
SHORTCUTS = "shortcuts/"
SANITY_SHEET = "sanity.jpg"
COCO_RESULTS = "coco/results.json"
COCO_IMAGES = "coco/images.json"
# File systems allow 255 bytes; the longest ending, ".00000.jpg" or ".boxes.jpg", takes ten.
LONGEST = 240
DIGEST_LENGTH = 16


def encoded(key: str) -> str:
    """The key percent-encoded, slashes too: reversible by urllib.parse.unquote."""
    return quote(key, safe="", errors="surrogateescape")


def file_name(key: str) -> str:
    """`encoded`, but at most LONGEST bytes: what is longer is cut and gets a digest of the key."""
    name = encoded(key)
    if len(name) <= LONGEST:
        return name
    digest = hashlib.sha256(key.encode(errors="surrogateescape")).hexdigest()[:DIGEST_LENGTH]
    return f"{name[: LONGEST - DIGEST_LENGTH - 1]}-{digest}"


def printable(key: str) -> str:
    r"""The key as text for tables and messages; bytes that are not UTF-8 show as \xNN."""
    return key.encode(errors="surrogateescape").decode(errors="backslashreplace")


def array_name(key: str, index: int, layer: str | None = None) -> str:
    """The name in heatmaps.npz of the detection `index` of picture `key`; with the layer where
    each box has a map on several."""
    name = f"{encoded(key)}#{index}"
    return name if layer is None else f"{name}#{layer}"


def on_several_layers(layers: Iterable[str]) -> bool:
    """Whether the layers of a picture's explanations, or of a table's rows, are several."""
    return len(set(layers)) > 1
