"""The golden sample of an archive: a picture, what is asked of it, and what has to come out."""

from __future__ import annotations

import json
import zipfile
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy
from numpy.typing import NDArray

from archives.plain_json import read_json
from archives.refusals import NoGoldenSampleError

FOLDER = "golden"
PICTURE, EXPECTED, HEATMAPS = (
    f"{FOLDER}/{name}" for name in ("picture.png", "expected.json", "heatmaps.safetensors")
)
MOST_BYTES = 256 * 1024**2
# Of what is the same: pixels, of scores, and of a map's maximum.
BOX_TOLERANCE, SCORE_TOLERANCE, MAP_TOLERANCE = 0.05, 1e-4, 1e-3


@dataclass(frozen=True)
class Answer:
    """What was explained, in numbers.

    boxes: float64 [N, 4], x1, y1, x2, y2 in picture pixels. labels: int64 [N]. scores: float64 [N].
    heatmaps: N float32 arrays [h, w], as in `handlers.schema.Explanation`.
    """

    boxes: NDArray[np.float64]
    labels: NDArray[np.int64]
    scores: NDArray[np.float64]
    heatmaps: tuple[NDArray[np.float32], ...] = field(repr=False)


@dataclass(frozen=True)
class Golden:
    """picture: a PNG's bytes. request: fields of ExplainRequest, all that can be asked over HTTP.
    expected: what the archive gave for them when it was built."""

    picture: bytes = field(repr=False)
    request: Mapping[str, Any]
    expected: Answer


def read_golden(path: Path) -> Golden:
    """The golden sample of a .mar file, or of the folder that one was unpacked into.

    Digests are for `archives.verify` to check. Raises NoGoldenSampleError, an ArchiveError, where
    there is none or it is malformed.
    """
    if path.is_dir():
        return _read(path, lambda name: (path / name).read_bytes())
    try:
        with zipfile.ZipFile(path) as opened:
            return _read(path, lambda name: _member(opened, name))
    except (
        OSError, EOFError, RuntimeError, UnicodeDecodeError, zipfile.BadZipFile, zlib.error
    ) as error:  # fmt: skip
        raise NoGoldenSampleError(f"{path} cannot be read: {error}") from error


def _member(opened: zipfile.ZipFile, name: str) -> bytes:
    with opened.open(name) as file:
        return file.read(MOST_BYTES)


def _read(path: Path, read: Callable[[str], bytes]) -> Golden:
    try:
        picture, described, heatmaps = (read(name) for name in (PICTURE, EXPECTED, HEATMAPS))
    except (KeyError, OSError) as error:
        raise NoGoldenSampleError(
            f"{path} has no golden sample ({FOLDER}/); build it again with this version of Whybox"
        ) from error
    try:
        maps = safetensors.numpy.load(heatmaps)
        values = read_json(described)
        several = [maps.pop(str(place)) for place in range(len(values["explanations"]))]
        if maps or not picture or not isinstance(values["request"], dict):
            raise ValueError(f"maps of no box: {sorted(maps)}")
        return Golden(picture, values["request"], answer_of(values["explanations"], several))
    except (
        safetensors.SafetensorError, ValueError, KeyError, TypeError, AttributeError
    ) as error:  # fmt: skip
        raise NoGoldenSampleError(
            f"{path}: its golden sample is malformed ({type(error).__name__}: {error}); build it"
            " again"
        ) from error


def answer_of(
    explanations: Sequence[Mapping[str, Any]], heatmaps: Sequence[NDArray[Any]]
) -> Answer:
    """From `box`, `label` and `score` of each explanation, and its map. Raises ValueError,
    KeyError or TypeError for what is none."""
    if not all(isinstance(each, Mapping) for each in explanations):
        raise ValueError("explanations should be a list of tables")
    boxes = np.array([each["box"] for each in explanations], np.float64).reshape(-1, 4)
    try:
        labels = np.array([each["label"] for each in explanations], np.int64)
    except OverflowError as error:
        raise ValueError(f"a label is no label: {error}") from error
    scores = np.array([each["score"] for each in explanations], np.float64)
    if not len(boxes) == len(labels) == len(scores) == len(heatmaps):
        raise ValueError("each explanation should have a box, a label, a score and a map")
    for place, each in enumerate(heatmaps):
        if not isinstance(each, np.ndarray):
            raise ValueError(f"map {place} should be an array, got {type(each).__name__}")
        if each.dtype != np.float32 or each.ndim != 2 or not each.size:
            raise ValueError(f"map {place} should be float32 [h, w], got {each.dtype} {each.shape}")
    if not all(np.isfinite(each).all() for each in (boxes, scores, *heatmaps)):
        raise ValueError("boxes, scores and maps should be finite")
    return Answer(boxes, labels, scores, tuple(heatmaps))


def golden_files(
    picture: bytes,
    request: Mapping[str, Any],
    explanations: Sequence[Mapping[str, Any]],
    heatmaps: Sequence[NDArray[np.float32]],
) -> dict[str, bytes]:
    """The files of a golden sample by name; the same sample, the same bytes."""
    described = {"request": dict(request), "explanations": list(explanations)}
    maps = {str(place): np.ascontiguousarray(each) for place, each in enumerate(heatmaps)}
    return {
        PICTURE: picture,
        EXPECTED: json.dumps(described, indent=1, sort_keys=True).encode() + b"\n",
        HEATMAPS: safetensors.numpy.save(maps),
    }


def differences(expected: Answer, found: Answer) -> list[str]:
    """What differs beyond the tolerances, a line each; nothing if they are the same.

    Boxes agree to 0.05 pixels, scores to 1e-4, maps to 1e-3 of their maximum. A box is compared
    with that of its label and position, wherever it stands: near ties may swap.
    """
    lost, left = [], list(range(len(found.labels)))
    lines: list[str] = []
    for place in range(len(expected.labels)):
        near = [other for other in left if _apart(expected, place, found, other) <= BOX_TOLERANCE]
        if not near:
            lost.append(place)
            continue
        # Several layers explain the same box: theirs is the map that is most alike.
        other = min(near, key=lambda other: _map_error(expected, place, found, other))
        left.remove(other)
        lines += _compared(expected, place, found, other)
    for place in lost:
        apart = {other: _apart(expected, place, found, other) for other in left}
        other = min(apart, key=lambda other: apart[other], default=-1)
        if other < 0 or np.isinf(apart[other]):
            lines.append(f"not found: {_told(expected, place)}")
            continue
        left.remove(other)
        lines.append(
            f"{_told(expected, place)}: found {apart[other]:.3g} px away, at"
            f" {_corners(found, other)}; {BOX_TOLERANCE} are allowed"
        )
    return lines + [f"not expected: {_told(found, other)}" for other in left]


def _apart(one: Answer, place: int, other: Answer, there: int) -> float:
    """The largest distance of two boxes' edges, in pixels; infinite between labels."""
    if one.labels[place] != other.labels[there]:
        return float("inf")
    return float(np.abs(one.boxes[place] - other.boxes[there]).max())


def _map_error(expected: Answer, place: int, found: Answer, there: int) -> float:
    """The largest difference of two maps, as a share of the expected one's maximum; infinite
    between grids of other sizes."""
    wanted, got = expected.heatmaps[place], found.heatmaps[there]
    if wanted.shape != got.shape:
        return float("inf")
    error, most = float(np.abs(wanted - got).max()), float(np.abs(wanted).max())
    return error / most if most else float("inf") * error if error else 0.0


def _compared(expected: Answer, place: int, found: Answer, there: int) -> list[str]:
    name, lines = _told(expected, place), []
    score, got = expected.scores[place], found.scores[there]
    if not abs(score - got) <= SCORE_TOLERANCE:
        lines.append(f"{name}: score {got:.6f} instead of {score:.6f}")
    error = _map_error(expected, place, found, there)
    if not error <= MAP_TOLERANCE:
        one, other = expected.heatmaps[place].shape, found.heatmaps[there].shape
        what = f"differs by {error:.2g} of its maximum; {MAP_TOLERANCE} are allowed"
        if one != other:
            what = f"has {other[0]} x {other[1]} cells instead of {one[0]} x {one[1]}"
        lines.append(f"{name}: its heatmap {what}")
    return lines


def _told(answer: Answer, place: int) -> str:
    return f"box {_corners(answer, place)} of label {answer.labels[place]}"


def _corners(answer: Answer, place: int) -> str:
    return "[" + ", ".join(f"{edge:.2f}" for edge in answer.boxes[place]) + "]"
