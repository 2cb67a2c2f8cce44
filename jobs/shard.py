"""One shard: fetch, decode, explain, write, commit. A bad picture is a row, never the end."""

from __future__ import annotations

import json
import os
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from handlers.images import decode_picture
from handlers.metrics.pointing import energy_in_box, peak
from handlers.render import draw_boxes, encode_jpeg, overlay_all
from handlers.schema import RequestError
from jobs.errors import (
    DeniedObjectError,
    DeviceLostError,
    MissingObjectError,
    UsageError,
    one_line,
)
from jobs.names import array_name, encoded, file_name, printable
from jobs.store import CONNECTIONS, Entry, Store
from jobs.tables import DETECTIONS, FAILURES, npz_bytes, parquet_bytes

if TYPE_CHECKING:
    from torch import Tensor

    from handlers.explainer import Explainer
    from handlers.schema import ExplainRequest, Explanation

# Fetches (with decoding) and uploads at once: as many as the store has connections.
THREADS = CONNECTIONS
STATS = "stats.json"
# Pictures handed to the explainer at once, in batches: it can only batch those of one padded size.
BATCHES_AT_ONCE = 4


@dataclass(frozen=True)
class Task:
    """What a shard is done with and where it goes.

    overlays: "none", "all" or "each".
    """

    explainer: Explainer
    request: ExplainRequest
    source: Store
    output: Store
    batch_size: int
    overlays: str


@dataclass(frozen=True)
class Pools:
    """The threads of a job.

    transfer: fetch and upload, THREADS at once.
    drawing: measure and draw; that keeps a core busy, so no more at once than there are cores.
    """

    transfer: ThreadPoolExecutor
    drawing: ThreadPoolExecutor

    @classmethod
    def start(cls) -> Pools:
        return cls(ThreadPoolExecutor(THREADS, "transfer"), ThreadPoolExecutor(cores(), "drawing"))

    def shutdown(self) -> None:
        """Drops what has not begun, and waits for nothing."""
        for pool in (self.transfer, self.drawing):
            pool.shutdown(wait=False, cancel_futures=True)


def cores() -> int:
    """How many CPU cores this process may use."""
    if hasattr(os, "sched_getaffinity"):  # Linux
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@dataclass(frozen=True)
class Picture:
    """A decoded picture: uint8 RGB [3, H, W]."""

    key: str
    pixels: Tensor = field(repr=False)


@dataclass(frozen=True)
class Failure:
    """A picture that could not be done; stage: fetch, decode, explain or render."""

    key: str
    stage: str
    error: str
    message: str

    @classmethod
    def of(cls, key: str, stage: str, error: Exception) -> Failure:
        return cls(printable(key), stage, type(error).__name__, one_line(error))


@dataclass(frozen=True)
class Done:
    """A picture's rows for detections.parquet and its arrays for heatmaps.npz."""

    rows: list[dict[str, Any]]
    maps: dict[str, NDArray[np.float16]]


# A picture's outcome, and its files on their way out.
Finishing: TypeAlias = tuple[Done | Failure, list[Future[None]]]


def folder(number: int) -> str:
    """Where shard `number` lies below the output."""
    return f"shards/{number:05d}/"


def load_ahead(
    source: Store, entries: Iterable[Entry], pool: ThreadPoolExecutor, batch_size: int
) -> Iterator[Picture | Failure]:
    """The entries in their order, decoded; a few batches, not more, are fetched ahead."""
    ahead = max(THREADS, 2 * batch_size)
    waiting: deque[Future[Picture | Failure]] = deque()
    for entry in entries:
        waiting.append(pool.submit(_load, source, entry.key))
        if len(waiting) > ahead:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


def _load(source: Store, key: str) -> Picture | Failure:
    try:
        data = source.read(key)
    except (MissingObjectError, DeniedObjectError) as error:
        return Failure.of(key, "fetch", error)
    try:
        return Picture(key, decode_picture(data))
    except Exception as error:  # a decoder's bug, too, concerns this picture alone
        return Failure.of(key, "decode", error)


def run_shard(
    number: int,
    entries: Sequence[Entry],
    pictures: Iterator[Picture | Failure],
    task: Task,
    pools: Pools,
    tell: Callable[[int, int], None],
) -> dict[str, Any]:
    """Explains one shard, commits it, and returns what stats.json holds.

    pictures: as `load_ahead` gives them; exactly one for each entry is taken.
    tell: called now and then with how many more pictures are done, and how many of them failed.
    """
    started = time.monotonic()
    outcomes: list[Done | Failure] = []
    finishing: deque[Future[Finishing]] = deque()

    def collect(left: int) -> None:
        new = []
        for _ in range(len(finishing) - left):
            outcome, uploads = finishing.popleft().result()
            for upload in uploads:
                upload.result()
            new.append(outcome)
        outcomes.extend(new)
        tell(len(new), sum(isinstance(each, Failure) for each in new))

    window_size = BATCHES_AT_ONCE * task.batch_size
    for start in range(0, len(entries), window_size):
        window = [next(pictures) for _ in entries[start : start + window_size]]
        for result in _explain(window, task):
            finishing.append(pools.drawing.submit(_finish, number, result, task, pools))
        collect(left=len(window))  # all but this window, which is finished beside the next
    collect(left=0)
    return _commit(number, entries, outcomes, time.monotonic() - started, task.output)


def _explain(
    window: Sequence[Picture | Failure], task: Task
) -> list[tuple[Picture, list[Explanation]] | Failure]:
    """The window's outcomes in its order; if a picture breaks its batch, all are done singly."""
    pictures = [each for each in window if isinstance(each, Picture)]
    try:
        found = _call(pictures, task)
        results = iter([*zip(pictures, found, strict=True)])
    except Exception as error:  # whose fault it is shows below, one by one
        check_whose(error)
        return [each if isinstance(each, Failure) else _explain_one(each, task) for each in window]
    return [each if isinstance(each, Failure) else next(results) for each in window]


def _explain_one(picture: Picture, task: Task) -> tuple[Picture, list[Explanation]] | Failure:
    try:
        return picture, _call([picture], task)[0]
    except Exception as error:  # anything a detector raises for a picture is that picture's row
        check_whose(error)
        return Failure.of(picture.key, "explain", error)


def check_whose(error: Exception) -> None:
    """Raises what is no picture's fault.

    A lost GPU, and a request that cannot be served, would fail every picture that follows, and
    commit all of them as failures.
    """
    if isinstance(error, RequestError):
        raise UsageError(one_line(error)) from error
    if type(error).__name__ == "AcceleratorError":  # torch's; an OutOfMemoryError is another
        raise DeviceLostError(f"the device failed: {one_line(error)}") from error


def _call(pictures: Sequence[Picture], task: Task) -> list[list[Explanation]]:
    if not pictures:
        return []
    pixels = [picture.pixels for picture in pictures]
    return task.explainer.explain(pixels, task.request, batch_size=task.batch_size)


def _finish(
    number: int, result: tuple[Picture, list[Explanation]] | Failure, task: Task, pools: Pools
) -> Finishing:
    """Measures and draws what belongs to one picture, beside the detector, and starts to upload."""
    if isinstance(result, Failure):
        return result, []
    picture, explanations = result
    try:
        several = on_several_layers(each.layer for each in explanations)
        named = {
            array_name(picture.key, each.index, each.layer if several else None): each
            for each in explanations
        }
        done = Done(
            [_row(picture, each) for each in explanations],
            {name: _stored(each) for name, each in named.items()},
        )
        files = _draw(picture, explanations, task.overlays) | _raw(picture, named)
    except Exception as error:
        return Failure.of(picture.key, "render", error), []
    return done, [
        pools.transfer.submit(task.output.write, folder(number) + name, data)
        for name, data in files.items()
    ]


def on_several_layers(layers: Iterable[str]) -> bool:
    """Whether the layers of a picture's explanations, or of a table's rows, are several."""
    return len(set(layers)) > 1


def _row(picture: Picture, explanation: Explanation) -> dict[str, Any]:
    x1, y1, x2, y2 = explanation.box
    peak_x, peak_y = peak(explanation)
    heatmap = np.asarray(explanation.heatmap)
    return {
        "key": printable(picture.key),
        "index": explanation.index,
        "width": int(picture.pixels.shape[2]),
        "height": int(picture.pixels.shape[1]),
        "x1": x1,
        "y1": y1,
        "x2": x2,
        "y2": y2,
        "label": explanation.label,
        "category": explanation.category,
        "score": explanation.score,
        "method": explanation.method,
        "target": explanation.target,
        "layer": explanation.layer,
        "level": explanation.level,
        "outcome": explanation.outcome,
        "suppressed_by": explanation.suppressed_by,
        "together": list(explanation.together),
        "map_height": heatmap.shape[0],
        "map_width": heatmap.shape[1],
        "map_max": float(heatmap.max()),
        "geometry": json.dumps(explanation.geometry.to_dict(), sort_keys=True),
        "energy_in_box": energy_in_box(explanation),
        "peak_x": peak_x,
        "peak_y": peak_y,
    }


def _stored(explanation: Explanation) -> NDArray[np.float16]:
    """The heatmap divided by its maximum (all zero stays zero): raw gradients are subnormal."""
    heatmap = np.asarray(explanation.heatmap, dtype=np.float32)
    largest = heatmap.max()
    scaled = heatmap / largest if largest > 0 else np.zeros_like(heatmap)
    return scaled.astype(np.float16)


def _draw(picture: Picture, explanations: Sequence[Explanation], overlays: str) -> dict[str, bytes]:
    """JPEG files by name, as `overlays` asks for them."""
    if overlays == "none":
        return {}
    name = f"overlays/{file_name(picture.key)}"
    images = {f"{name}.jpg": overlay_all(picture.pixels, explanations)}
    if overlays == "each":
        images[f"{name}.boxes.jpg"] = draw_boxes(picture.pixels, explanations)
        for index in {each.index: None for each in explanations}:
            own = [each for each in explanations if each.index == index]
            images[f"{name}.{index:03d}.jpg"] = overlay_all(picture.pixels, own)
    return {name: encode_jpeg(image) for name, image in images.items()}


def _raw(picture: Picture, named: Mapping[str, Explanation]) -> dict[str, bytes]:
    """One .npz file by its name, of the activations and gradients that were kept, if any."""
    arrays = {
        f"{name}/{kind}": np.asarray(tensor, dtype=np.float32)
        for name, each in named.items()
        for kind, tensor in (("activation", each.activation), ("gradient", each.gradient))
        if tensor is not None
    }
    return {f"raw/{file_name(picture.key)}.npz": npz_bytes(arrays)} if arrays else {}


def _commit(
    number: int,
    entries: Sequence[Entry],
    outcomes: Sequence[Done | Failure],
    seconds: float,
    output: Store,
) -> dict[str, Any]:
    """Writes the tables, then stats.json, whose existence means that the shard is done."""
    done = [each for each in outcomes if isinstance(each, Done)]
    failures = [each for each in outcomes if isinstance(each, Failure)]
    rows = [row for each in done for row in each.rows]
    maps = {name: array for each in done for name, array in each.maps.items()}
    boxes = {(row["key"], row["index"]): row["category"] for row in rows}
    where = folder(number)
    output.write(where + "heatmaps.npz", npz_bytes(maps))
    output.write(where + "detections.parquet", parquet_bytes(rows, DETECTIONS))
    output.write(
        where + "failures.parquet", parquet_bytes([asdict(each) for each in failures], FAILURES)
    )
    stats = {
        "shard": number,
        "pictures": len(entries),
        "pictures_with_detections": sum(bool(each.rows) for each in done),
        "detections": len(boxes),
        "failures": len(failures),
        "categories": dict(Counter(boxes.values()).most_common()),
        "seconds": round(seconds, 3),
        "shortened_names": {
            file_name(entry.key): printable(entry.key)
            for entry in entries
            if file_name(entry.key) != encoded(entry.key)
        },
    }
    output.write(where + STATS, json.dumps(stats, indent=1).encode() + b"\n")
    return stats


def read_stats(output: Store, number: int) -> dict[str, Any] | None:
    """A shard's stats.json, or None: it is not done."""
    try:
        stats: dict[str, Any] = json.loads(output.read(folder(number) + STATS))
    except MissingObjectError:
        return None
    return stats
