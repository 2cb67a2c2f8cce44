"""What a score was asked for."""

from __future__ import annotations

from dataclasses import dataclass

TRUTH_FORMATS = ("auto", "voc", "coco", "yolo")


@dataclass(frozen=True)
class ScoreOptions:
    """The command line of `jobs score`.

    place: a finished run, or a folder of saved boxes; a folder or an s3:// URI.
    truth: of a run: where its pictures' true objects are; None where they are saved.
    truth_format, categories: as for jobs.truth.reading.read_truth.
    iou: least overlaps, above 0, at most 1. score_threshold: of the recall and the precision that
        are told, 0 ... 1; average precision is of all boxes.
    pixel: what a side is longer than the difference of its edges, 0 or 1.
    coco: COCO's figures, too. output: where scores.json goes; None for the place itself.
    json: print that instead of tables.
    """

    place: str
    truth: str | None = None
    truth_format: str = "auto"
    categories: tuple[str, ...] = ()
    iou: tuple[float, ...] = (0.5,)
    score_threshold: float = 0.5
    pixel: int = 0
    coco: bool = False
    output: str | None = None
    json: bool = False
