"""A finished run, read back: its record, its rows and its maps, a shard at a time."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache, partial
from itertools import groupby
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from archives.errors import ConflictError, UsageError, shortened
from archives.stores.opening import open_store
from archives.stores.store import Store
from jobs import record
from jobs.inputs.plan import Plan
from jobs.names import RECORD, array_name, on_several_layers, printable
from jobs.tables import read_npz, read_rows
from jobs.worker.commit import all_stats, read_table

if TYPE_CHECKING:
    from handlers.schema import Explanation

Row = Mapping[str, Any]

NUMBER = int | float
# What readers of a finished run's record take for granted in it.
FIELDS: Mapping[str, Mapping[str, Any]] = {
    "archive": {"name": str, "version": str, "digest": str},
    "options": {"precision": str, "shard_size": int},
    "execution": {"device": str},
    "input": {"uris": list, "root": str, "fingerprint": str},
    "counts": {"pictures": int, "detections": int, "failures": int},
    "times": {
        **{"started": str, "finished": str, "seconds": NUMBER},
        "pictures_per_second": NUMBER | None,
    },
}


@dataclass(frozen=True)
class SavedPicture:
    """What a run found in one picture.

    name: the key as tables have it (printable). key: the key in the store, as it is. rows: of
    detections.parquet, in its order; none where nothing was detected. explanation: of one of them,
    with its map read when asked for. size, tag: as the listing has them (see Entry). shard: whose
    tables they are.
    """

    name: str
    key: str
    rows: tuple[Row, ...]
    explanation: Callable[[Row], Explanation]
    size: int = -1
    tag: str = ""
    shard: int = 0


class SavedRun:
    """What `python -m jobs explain` left in an output.

    record: run.json. output: where it lies. plan: the run's pictures by shard.
    """

    def __init__(self, output: Store, found: Mapping[str, Any]) -> None:
        self.output = output
        self.record = found
        self.plan = Plan(output, found["options"]["shard_size"], found["counts"]["pictures"])

    @classmethod
    def open(cls, place: str) -> SavedRun:
        """Raises UsageError where there is no run, or one that is not done; ConflictError for a
        run.json that is none, or is cut off."""
        output = open_store(place)
        found = record.read_record(output)
        if found is None:
            raise UsageError(
                f"there is no run at {shortened(output.uri)}: it holds no {RECORD}; expected what"
                " `python -m jobs explain` was given as --output"
            )
        if found.get("status") != record.DONE:
            raise UsageError(
                f"the run at {shortened(output.uri)} is not done: run the same `python -m jobs"
                " explain` again"
            )
        _check(found, f"{shortened(output.uri)}/{RECORD}")
        return cls(output, found)

    def source(self) -> Store:
        """Where its pictures lie."""
        return open_store(self.record["input"]["root"])

    def pictures(self, shards: Iterable[int] | None = None) -> Iterator[SavedPicture]:
        """Every picture that did not fail, in the order of the listing; few are held at once.

        shards: of these alone.
        """
        return saved_pictures(self.output, self.plan, shards)

    def failures(self) -> Iterator[Row]:
        """The rows of failures.parquet, in the order of the listing."""
        for _, stats in all_stats(self.output, range(self.plan.shards)):
            if stats is not None and stats["failures"]:
                yield from read_rows(read_table(self.output, stats, "failures.parquet"))


def _check(found: Mapping[str, Any], place: str) -> None:
    for section, kinds in FIELDS.items():
        values: Any = found.get(section)
        for name, kind in kinds.items():
            has = isinstance(values, dict) and name in values and isinstance(values[name], kind)
            least = 1 if name == "shard_size" else 0
            if not has or (kind is int and values[name] < least):
                raise ConflictError(
                    f"{place} is not as a finished run leaves it: {section}.{name} is missing or"
                    " makes no sense; do that run again, into another output"
                )


def printable_names(run: SavedRun, shard: int, stats: dict[str, Any]) -> list[str]:
    """The keys of a shard's pictures that did not fail, as tables have them, in their order."""
    failed = _failed(run.output, stats)
    names = (printable(entry.key) for entry in run.plan.entries(shard))
    return [name for name in names if name not in failed]


def _failed(output: Store, stats: dict[str, Any]) -> set[str]:
    if not stats["failures"]:
        return set()
    return {row["key"] for row in read_rows(read_table(output, stats, "failures.parquet"))}


def saved_pictures(
    output: Store, plan: Plan, shards: Iterable[int] | None = None
) -> Iterator[SavedPicture]:
    """Every picture of the shards that are done and that did not fail, in the listing's order.

    shards: some of them; by itself all.
    """
    for number, stats in all_stats(output, range(plan.shards) if shards is None else shards):
        if stats is None:
            continue
        rows: list[dict[str, Any]] = []
        if stats["detections"]:
            rows = read_rows(read_table(output, stats, "detections.parquet"))
        failed = _failed(output, stats)
        maps = cache(partial(_maps, output, stats))
        by_name = {name: tuple(own) for name, own in groupby(rows, key=lambda row: str(row["key"]))}
        several = on_several_layers(row["layer"] for row in rows)
        for entry in plan.entries(number):
            name = printable(entry.key)
            if name not in failed:
                explain = partial(_explanation, entry.key, several, maps)
                rows_of = by_name.get(name, ())
                yield SavedPicture(name, entry.key, rows_of, explain, entry.size, entry.tag, number)


def _maps(output: Store, stats: dict[str, Any]) -> Mapping[str, NDArray[Any]]:
    """A shard's: read once, and only if one of them is asked for."""
    return read_npz(read_table(output, stats, "heatmaps.npz"))


def _explanation(
    key: str, several: bool, maps: Callable[[], Mapping[str, NDArray[Any]]], row: Row
) -> Explanation:
    return explanation_of(
        row, maps()[array_name(key, row["index"], row["layer"] if several else None)]
    )


def explanation_of(row: Row, stored: NDArray[Any]) -> Explanation:
    """The explanation that a row and its array of heatmaps.npz are of."""
    import torch  # not before: rows alone need neither of these

    from handlers.images import Geometry
    from handlers.schema import Explanation

    return Explanation(
        index=row["index"],
        box=(row["x1"], row["y1"], row["x2"], row["y2"]),
        label=row["label"],
        category=row["category"],
        score=row["score"],
        outcome=row["outcome"],
        suppressed_by=row["suppressed_by"],
        together=tuple(row["together"]),
        # Older tables have no such column.
        boxes=tuple((x1, y1, x2, y2) for x1, y1, x2, y2 in row.get("boxes", ())),
        method=row["method"],
        target=row["target"],
        layer=row["layer"],
        level=row["level"],
        heatmap=torch.from_numpy(stored).float() * row["map_max"],
        geometry=Geometry.from_dict(json.loads(row["geometry"])),
    )
