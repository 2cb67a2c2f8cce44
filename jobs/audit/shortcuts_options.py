"""The command line of `jobs shortcuts`."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class ShortcutsOptions:
    """archive, public_keys, inputs, output: as for JobOptions. batch_size: pictures in one pass
        through the detector.

    score_threshold: detections scoring more than this are asked, 0 ... 1.
    per_picture: at most so many of one picture, drawn at random by `seed`.
    pictures: at most so many are looked at, drawn at random by `seed`.
    method, layer: of the heatmaps beside the examples, drawn over the whole picture: a layer that
        sees beyond the box.
    examples: drawn of each category and place that is flagged.
    """

    archive: str
    inputs: tuple[str, ...]
    output: str
    score_threshold: float = 0.5
    per_picture: int = 10
    pictures: int = 200
    method: str = "layercam"
    layer: str = "C3"
    examples: int = 6
    batch_size: int = 8
    seed: int = 0
    device: str = "cpu"
    precision: str = "fp32"
    registry: str | None = None
    public_keys: tuple[str, ...] = ()
