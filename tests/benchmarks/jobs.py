"""What a bulk job costs: the real command on a bucket behind a slow line, beside the same batches
from memory; and how much memory it takes for a hundred times the pictures."""

from __future__ import annotations

import io
import json
import os
import re
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple

import psutil
import torch
from botocore.exceptions import ClientError
from PIL import Image
from torch import Tensor

from archives.building.build import BuildOptions, build
from handlers.explainer import Explainer
from handlers.images import decode_picture
from handlers.schema import ExplainRequest
from jobs.demo.scenes import HELD_OUT_SEEDS, SceneOptions, make_scene
from jobs.names import RECORD
from jobs.options import BATCH_SIZE
from jobs.worker.shard import BATCHES_AT_ONCE
from tests.benchmarks.bucket import NAME, SlowBucket, slow_bucket
from tests.benchmarks.busy import watched
from tests.benchmarks.harness import Goal, Row, Settings, SkippedError, Work, middle, spread
from tests.jobs.archive_stub import write_archive
from tests.jobs.peak_memory import Peaks, peaks_of, write_pictures


@dataclass(frozen=True)
class Case:
    """A detector, its weights, and how many pictures on a CPU and on a GPU; candidates: how many of
    each picture are explained, 0 for the boxes that are reported."""

    detector: str
    weights: str
    pictures: Mapping[str, int]
    candidates: int = 0


CASES = (
    Case(
        "fasterrcnn_regnet_small_fpn",
        "jobs/demo/weights.safetensors",
        {"cpu": 512, "cuda": 8192},
    ),
    # What is common in production; random weights report nothing.
    Case("fasterrcnn_resnet50_fpn", "random", {"cpu": 24, "cuda": 4096}, candidates=5),
)
LATENCY = 0.05  # seconds
# With this quality scenes of this size are 65 to 125 KB, 96 KB in the mean.
SIZE, QUALITY = (640, 480), 94
SCENES = 128  # different ones; a job gets each several times, under different keys
FEW, MANY = 1000, 100_000
SECONDS_BETWEEN_LOOKS = 0.1
WAITS = re.compile(r"(\d+) % for (pictures|writing)")
THROUGHPUT, BUSY = Goal(0.9, at_most=False), Goal(0.9, at_most=False)
MEMORY = Goal(1.2)


@dataclass(frozen=True)
class Run:
    """One run of the command.

    loading: seconds until run.json is there, when the archive is loaded and the input is listed.
    seconds: from then to the end of the process; began, ended: the same, of time.monotonic().
    explaining: seconds that its shards took, without the last one's commit and the contact sheet.
    boxes: how many were found. waits: what the detector waited for, in shares of its time.
    computing: CPU seconds of its processes from `began` to `ended`. store: of store and slow
    line, from the start.
    """

    loading: float
    began: float
    ended: float
    explaining: float
    boxes: int
    waits: Mapping[str, float]
    computing: float
    store: float

    @property
    def seconds(self) -> float:
        return self.ended - self.began


class Memory(NamedTuple):
    """One run of the batches from memory: seconds, and CPU seconds."""

    seconds: float
    computing: float


def _scenes(number: int) -> list[bytes]:
    files = []
    for seed in HELD_OUT_SEEDS[:number]:
        buffer = io.BytesIO()
        scene = make_scene(seed, SceneOptions(size=SIZE))
        Image.fromarray(scene.picture).save(buffer, "JPEG", quality=QUALITY)
        files.append(buffer.getvalue())
    return files


def _command(
    case: Case, archive: Path, bucket: SlowBucket, settings: Settings
) -> Callable[[], Run]:
    """Runs the job, to another output each time."""
    numbers = count()

    def run() -> Run:
        output = f"out-{next(numbers)}"
        places = ["--input", f"{bucket.uri}/in", "--output", f"{bucket.uri}/{output}"]
        command = [sys.executable, "-m", "jobs", "explain", "--archive", str(archive), *places]
        command += ["--candidates", str(case.candidates)] * bool(case.candidates)
        store, started, before = bucket.cpu_seconds(), time.monotonic(), _computed_by_ended()
        with subprocess.Popen(
            [*command, "--device", settings.device],
            env={**os.environ, **bucket.environment},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        ) as process:
            try:
                while process.poll() is None and not _is_there(bucket, f"{output}/{RECORD}"):
                    time.sleep(SECONDS_BETWEEN_LOOKS)
                began, loading = time.monotonic(), _computed(process.pid)
                _, said = process.communicate()
            finally:
                process.terminate()  # where this one was told to end
        ended = time.monotonic()
        if process.returncode:
            raise RuntimeError(f"the job ended with {process.returncode}: {said}")
        body = bucket.client.get_object(Bucket=NAME, Key=f"{output}/{RECORD}")["Body"]
        record: dict[str, Any] = json.loads(body.read())
        return Run(
            loading=began - started,
            began=began,
            ended=ended,
            explaining=record["times"]["seconds"],
            boxes=record["counts"]["detections"],
            waits=_waits(said),
            computing=_computed_by_ended() - before - loading,
            store=bucket.cpu_seconds() - store,
        )

    return run


def _computed(pid: int) -> float:
    """CPU seconds of a process and its children so far."""
    process = psutil.Process(pid)
    times = [each.cpu_times() for each in (process, *process.children(recursive=True))]
    return float(sum(each.user + each.system for each in times))


def _computed_by_ended() -> float:
    """CPU seconds of all processes that this one has started and seen end, and of theirs."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def _is_there(bucket: SlowBucket, key: str) -> bool:
    try:
        bucket.client.head_object(Bucket=NAME, Key=key)
    except ClientError:
        return False
    return True


def _waits(said: str) -> dict[str, float]:
    """The mean of what the lines of progress said, which come after equal times."""
    lines = [line for line in said.splitlines() if " done" in line]
    sums = dict.fromkeys(("pictures", "writing"), 0.0)
    for percent, what in WAITS.findall("\n".join(lines)):
        sums[what] += float(percent) / 100
    return {what: each / len(lines) for what, each in sums.items()} if lines else {}


def _from_memory(
    explainer: Explainer, request: ExplainRequest, pictures: Sequence[Tensor]
) -> tuple[Memory, int]:
    """With the job's windows and batches; and how many boxes there were."""
    batch = BATCH_SIZE
    window = BATCHES_AT_ONCE * batch
    boxes = 0
    started, computed = time.monotonic(), time.process_time()
    for start in range(0, len(pictures), window):
        explained = explainer.explain(pictures[start : start + window], request, batch)
        boxes += sum(len(each) for each in explained)
    return Memory(time.monotonic() - started, time.process_time() - computed), boxes


def _throughput(case: Case, settings: Settings, folder: Path) -> Iterator[Row]:
    kind = settings.device.partition(":")[0]
    number = 16 if settings.tiny else case.pictures[kind]
    files = _scenes(min(number, SCENES))
    size = sum(map(len, files)) / len(files)
    archive = build(
        BuildOptions(
            detector=case.detector,
            weights=case.weights,
            name=case.detector,
            version="1.0",
            export_path=folder,
        )
    )
    explainer = Explainer.from_archive(archive, settings.device)
    request = replace(explainer.defaults, candidates=case.candidates)
    decoded = [decode_picture(data) for data in files]
    pictures = [decoded[place % len(files)] for place in range(number)]
    runs: list[Run] = []
    memory: list[Memory] = []
    with ExitStack() as stack:
        bucket = stack.enter_context(slow_bucket(LATENCY))
        for place in range(number):
            data = files[place % len(files)]
            bucket.client.put_object(Bucket=NAME, Key=f"in/{place:06d}.jpg", Body=data)
        busy = stack.enter_context(watched(settings.device)) if kind == "cuda" else None
        command = _command(case, archive, bucket, settings)

        def from_memory() -> int:
            one, boxes = _from_memory(explainer, request, pictures)
            memory.append(one)
            return boxes

        def from_bucket() -> int:
            runs.append(command())
            return runs[-1].boxes

        from_memory()  # the first run is slower
        memory.clear()
        same = True
        for each in range(settings.rounds):
            sides = (from_memory, from_bucket)
            same &= len({side() for side in (sides[::-1] if each % 2 else sides)}) == 1
        shares = [] if busy is None else [busy.share(run.began, run.ended) for run in runs]
    told = f"{number:,} pictures of {size / 1000:.0f} KB, {LATENCY * 1000:.0f} ms more"
    yield from _rows(f"{case.detector}: {told}", runs, memory, number, same)
    if shares:
        yield Row(case.detector, "the GPU's busy share", *_told(shares), goal=BUSY)


def _told(values: Sequence[float]) -> tuple[float, tuple[float, float]]:
    return middle(values), spread(values)


def _rows(
    case: str, runs: Sequence[Run], memory: Sequence[Memory], number: int, same: bool
) -> Iterator[Row]:
    pairs = list(zip(runs, memory, strict=True))
    yield Row(
        case,
        "of the pictures a second of the same batches from memory",
        *_told([one.seconds / run.seconds for run, one in pairs]),
        ours=middle([run.seconds for run in runs]),
        other=middle([one.seconds for one in memory]),
        goal=THROUGHPUT,
        same="as many boxes" if same else "maps DIFFER: other numbers of boxes",
        note="A run is timed from its run.json, when the archive is loaded and the input listed, to"
        " the end of the command; batches from memory are decoded beforehand.",
        figures={
            "pictures a second": number / middle([run.seconds for run in runs]),
            "seconds before": middle([run.loading for run in runs]),
        },
    )
    yield Row(
        case,
        "the same, of its shards' own time: without the last commit and the contact sheet",
        *_told([one.seconds / run.explaining for run, one in pairs]),
        ours=middle([run.explaining for run in runs]),
        other=middle([one.seconds for one in memory]),
    )
    yield Row(
        case,
        "of the job's CPU seconds those of the batches from memory",
        *_told([one.computing / run.computing for run, one in pairs]),
        note="CPU seconds depend less on what else a machine does than times; the store's own are"
        " not in the job's.",
        figures={
            "CPU seconds of the job": middle([run.computing for run in runs]),
            "CPU seconds of the batches from memory": middle([one.computing for one in memory]),
            "CPU seconds of the store and the line": middle([run.store for run in runs]),
        },
    )
    yield Row(
        case,
        "share of its time that the detector waits, as the lines of progress tell",
        *_told([sum(run.waits.values()) for run in runs]),
        figures={
            f"for {what}": middle([run.waits.get(what, 0.0) for run in runs])
            for what in ("pictures", "writing")
        },
    )


def _memory(settings: Settings, folder: Path) -> Iterator[Row]:
    if not Path("/proc/self/status").exists():
        raise SkippedError("the peak of a process's memory is read from Linux's /proc")
    archive = write_archive(folder / "stub.mar")
    found: dict[int, Peaks] = {}
    few, many = (FEW // 20, MANY // 200) if settings.tiny else (FEW, MANY)
    for number in (few, many):
        source = write_pictures(folder / f"in-{number}", number)
        found[number] = peaks_of(archive, source, folder / f"out-{number}")
    for which in ("command", "worker"):
        less, more = (float(getattr(found[number], which)) for number in (few, many))
        yield Row(
            case=f"a detector stub: the {which}'s memory, {many:,} pictures over {few:,}",
            measure="times the peak",
            value=more / less,
            spread=(more / less, more / less),
            goal=MEMORY,
            figures={
                f"MiB, {few:,} pictures": less,
                f"MiB, {many:,} pictures": more,
                f"pictures a second, {many:,}": many / found[many].seconds,
            },
        )


def _run(settings: Settings) -> Iterator[Row]:
    with tempfile.TemporaryDirectory() as folder:
        for case in CASES:
            yield from _throughput(case, settings, Path(folder))
        yield from _memory(settings, Path(folder))
    if not settings.device.startswith("cuda"):
        there = "DEVICE=cuda was not asked for" if torch.cuda.is_available() else "there is none"
        raise SkippedError(f"the GPU's busy share: not run on a GPU, {there}")


WORK = Work("What a bulk job costs beside its detector: time, memory", _run)
