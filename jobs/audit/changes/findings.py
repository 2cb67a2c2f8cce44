"""What a person should look at of what changed: sentences with their figures."""

from __future__ import annotations

from collections.abc import Iterator

from jobs.audit.changes.differences import (
    APPEARED,
    DISAPPEARED,
    MATCHED,
    TURNED,
    Change,
)
from jobs.audit.changes.tally import ChangedPicture
from jobs.audit.findings import Finding
from jobs.saved_run import Row

MOVED, SCORED, MAPPED = "box moved", "score changed", "map changed"
# From here on a matched detection is told: what a person sees at a glance.
LEAST_IOU, LEAST_SCORE, LEAST_CORRELATION = 0.9, 0.05, 0.9


def findings(picture: ChangedPicture) -> Iterator[Finding]:
    """One picture's. Severities are parts of `Change.size`, so that the kinds can be compared:
    what disappears weighs as much as its score, and nothing of a detection weighs more."""
    for each in picture.changes:
        yield from _findings(picture.key, each)


def _findings(key: str, change: Change) -> Iterator[Finding]:
    row = change.row
    index = None if change.after is None else int(change.after["index"])
    name = f"{row['category']} {row['score']:.2f}"
    if change.kind == APPEARED:
        yield Finding(key, index, APPEARED, change.size, f"{name} at {_box(row)} is new")
    elif change.kind == DISAPPEARED:
        says = f"{name} at {_box(row)}, box {row['index']} before, is gone"
        yield Finding(key, None, DISAPPEARED, change.size, says)
    elif change.kind == TURNED:
        assert change.before is not None
        before = f"{change.before['category']} {change.before['score']:.2f}"
        says = f"{before} at {_box(change.before)} became {name}"
        yield Finding(key, index, TURNED, change.size, says)
    elif change.kind == MATCHED:
        for flag, severity, says in _of_matched(change):
            yield Finding(key, index, flag, min(severity, change.sure), f"{name}: {says}")


def _of_matched(change: Change) -> Iterator[tuple[str, float, str]]:
    assert change.before is not None
    assert change.after is not None
    if change.iou < LEAST_IOU:
        says = f"its box moved from {_box(change.before)} to {_box(change.after)}"
        yield MOVED, change.sure * (1 - change.iou), f"{says}, IoU {change.iou:.2f}"
    if abs(change.score) >= LEAST_SCORE:
        scores = [f"{row['score']:.2f}" for row in (change.before, change.after)]
        yield SCORED, abs(change.score), f"its score was {scores[0]} and is {scores[1]}"
    correlation = change.correlation
    if correlation is not None and correlation < LEAST_CORRELATION:
        shifts = [each.map.peak_shift for each in change.layers if each.map.peak_shift]
        moved = f", its peak moved by {max(shifts):.2f} of the box's diagonal" if shifts else ""
        severity = change.sure * (1 - max(correlation, 0.0))
        yield MAPPED, severity, f"its map changed, correlation {correlation:.2f}{moved}"


def _box(row: Row) -> str:
    return ", ".join(f"{row[name]:.0f}" for name in ("x1", "y1", "x2", "y2"))
