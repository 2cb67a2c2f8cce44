"""What the tests of jobs share: places, pictures, and a quick explainer."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor

from archives.stores.opening import open_store
from handlers.explainer import Explainer
from handlers.images import Geometry, PictureError
from handlers.schema import ExplainRequest, Explanation
from jobs.contact_sheet import write_contact_sheet
from jobs.inputs.plan import Plan
from jobs.lease import guard
from jobs.options import JobOptions
from jobs.run import run
from jobs.tables import read_rows
from jobs.work_order import ArchiveFacts, WorkOrder
from jobs.worker.messages import Event, Ready, Sampled, ShardOrder
from jobs.worker.messages import Job as JobMessage
from jobs.worker.pictures import Pools
from jobs.worker.shard import Task, explain_shards
from tests.conftest import put

CURSED_WIDTH = 13


@pytest.fixture(autouse=True)
def _nothing_set(monkeypatch: pytest.MonkeyPatch) -> None:
    """No settings of whoever runs the tests."""
    for name in [*os.environ]:
        if name.startswith(("WHYBOX_", "JOB_COMPLETION_", "AWS_BATCH_")) and name != "WHYBOX_DATA":
            monkeypatch.delenv(name)


def picture_bytes(width: int = 12, height: int = 10, grey: int = 128) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (width, height), (grey, grey, grey)).save(buffer, "PNG")
    return buffer.getvalue()


GREYS = {f"{number}.png": picture_bytes(grey=10 * number) for number in range(8)}


class QuickExplainer(Explainer):
    """Finds two boxes in every picture, with maps that depend on its brightness and the layer.

    A picture of CURSED_WIDTH raises; a black one has no boxes. Counts the pictures it explained.
    """

    def __init__(self) -> None:
        self.categories = ("__background__", "cat", "dog")
        self.manifest = None
        self.defaults = ExplainRequest()
        self.explained = 0

    def check(self, request: ExplainRequest) -> None:
        pass

    def explain(
        self,
        pictures: Sequence[Tensor],
        request: ExplainRequest | None = None,
        batch_size: int | None = None,
    ) -> list[list[Explanation]]:
        if any(picture.shape[2] == CURSED_WIDTH for picture in pictures):
            raise PictureError("a cursed picture")
        self.explained += len(pictures)
        return [self._explain(picture, request or self.defaults) for picture in pictures]

    def _explain(self, picture: Tensor, request: ExplainRequest) -> list[Explanation]:
        _, height, width = picture.shape
        level = float(picture.float().mean())
        ramp = torch.arange(6, dtype=torch.float32).reshape(2, 3)
        return [
            Explanation(
                index=2 * place,
                box=(1.0, 2.0, width / 2, height / 2),
                label=place + 1,
                category=self.categories[place + 1],
                score=0.75 - place / 4,
                method=request.method,
                target=request.target_name,
                layer=layer,
                level="0",
                heatmap=ramp.roll(number, 1) * level * 1e-9,
                geometry=Geometry(width, height, width, height, 1.0, 1.0),
                activation=ramp[None] + number if request.save_raw else None,
                gradient=ramp[None] - place if request.save_raw else None,
            )
            for place in range(2 if level else 0)
            for number, layer in enumerate(request.layers)
        ]


@dataclass
class ThisProcess:
    """An engine that does shards in this process."""

    explainer: Explainer
    asked: ExplainRequest
    batch_size: int | None
    workers: int = 1
    told: list[Event] = field(default_factory=list)

    def ready(self) -> Ready:
        return Ready(json.loads(json.dumps(asdict(self.asked))))

    def events(self, job: JobMessage, orders: Iterator[ShardOrder]) -> Iterator[Event]:
        output = open_store(job.output)
        may_write = guard(output, job.lease, job.token)
        places = (open_store(job.source), output, self.batch_size, job.overlays)
        task = Task(self.explainer, self.asked, *places, self.told.append, may_write)
        pools = Pools.start()
        try:
            explain_shards(orders, Plan(output, job.shard_size, job.pictures), task, pools)
        finally:
            pools.shutdown()
        yield from self.told

    def try_out(self, job: JobMessage) -> Sampled:
        return Sampled(len(job.trial), 2.0)

    def end(self) -> None:
        pass

    def draw_sheet(self, job: JobMessage) -> bool:
        output = open_store(job.output)
        plan = Plan(output, job.shard_size, job.pictures)
        return write_contact_sheet(open_store(job.source), output, plan)


@dataclass
class Job:
    """A job on `source` that can be run in this process, again and again."""

    source: str
    output: str
    explainer: QuickExplainer
    options: dict[str, Any]
    digest: str = "ab" * 32

    def run(self, **options: Any) -> int:
        chosen: dict[str, Any] = {"shard_size": 3, "batch_size": 2, **self.options, **options}
        fields = {"score_threshold": 0.5, "max_detections": 100, **chosen.pop("request", {})}
        request = ExplainRequest(**fields)
        job = JobOptions("demo.mar", (self.source,), self.output, **chosen)
        order = WorkOrder(job, ArchiveFacts("demo", "1.0", self.digest), Path("unused"))
        return run(order, ThisProcess(self.explainer, request, job.batch_size, job.workers or 1))


MakeJob = Callable[..., Job]


@pytest.fixture
def make_job(tmp_path: Path) -> MakeJob:
    def make(source: str, output: str | None = None, **options: Any) -> Job:
        return Job(source, output or str(tmp_path / "out"), QuickExplainer(), options)

    return make


@pytest.fixture
def source(tmp_path: Path) -> str:
    """Eight grey pictures in a folder."""
    put(str(tmp_path / "in"), GREYS)
    return str(tmp_path / "in")


def record(output: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(open_store(output).read("run.json"))
    return found


def rows(output: str, table: str = "detections.parquet") -> list[dict[str, Any]]:
    """Of all shards, in their order."""
    store = open_store(output)
    keys = sorted(each.key for each in store.entries() if each.key.endswith(table))
    return [row for key in keys for row in read_rows(store.read(key))]


def contents(output: str) -> dict[str, bytes]:
    """All files but those with times in them."""
    store = open_store(output)
    return {
        each.key: store.read(each.key) for each in store.entries() if not each.key.endswith(".json")
    }


def sheet_size(output: str) -> tuple[int, int]:
    return Image.open(io.BytesIO(contents(output)["contact-sheet.jpg"])).size
