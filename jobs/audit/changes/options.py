"""What `jobs compare` is asked."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class CompareOptions:
    """The command line of `jobs compare`; it needs no archive.

    before, after: outputs of finished runs of `jobs explain`. output: a folder or an s3:// URI.
    alpha: the chance, above 0 to 1, of calling anything changed where nothing is.
    iou: from which overlap on two boxes are one detection, above 0 to 1.
    top: how many of the pictures that changed most are listed, at least 1.
    json: print the summary as one JSON object instead of text.
    """

    before: str
    after: str
    output: str
    alpha: float = 0.05
    iou: float = 0.5
    top: int = 50
    json: bool = False
