from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import ExifTags, Image
from torch import Tensor

from archives.errors import StoreDownError, StoreRefusedError, UsageError
from archives.stores.folder import FolderStore
from archives.stores.opening import open_store
from archives.stores.store import Entry
from handlers.schema import ExplainRequest, Explanation, RequestError
from jobs.errors import DeviceLostError, Interrupted
from jobs.options import BATCH_SIZE
from jobs.tables import read_rows
from jobs.worker import outcome, pictures
from jobs.worker.pictures import Failure, Picture, load_ahead
from tests.conftest import put
from tests.jobs.conftest import CURSED_WIDTH, Job, QuickExplainer, picture_bytes, record


def failures(output: str, number: int = 0) -> list[dict[str, str]]:
    return read_rows(open_store(output).read(f"shards/{number:05d}/failures.parquet"))


def orientation(number: int) -> Image.Exif:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = number
    return exif


def explained_keys(output: str, number: int = 0) -> list[str]:
    rows = read_rows(open_store(output).read(f"shards/{number:05d}/detections.parquet"))
    return [row["key"] for row in rows]


def test_each_bad_picture_is_a_row_and_its_neighbours_are_done(
    tmp_path: Path, make_job: Callable[..., Job]
) -> None:
    good = picture_bytes()
    source = str(tmp_path / "in")
    put(
        source,
        {
            "a.png": good,
            "b.png": b"",
            "c.jpg": b"no picture",
            "d.png": good[:-30],
            "e.png": picture_bytes(width=CURSED_WIDTH),
            "g.png": good,
        },
    )
    os.symlink("nowhere", tmp_path / "in" / "f.png")
    job = make_job(source, shard_size=100, batch_size=8)
    assert job.run() == 3
    assert explained_keys(job.output) == ["a.png", "a.png", "g.png", "g.png"]
    found = failures(job.output)
    assert [(row["key"], row["stage"], row["error"]) for row in found] == [
        ("b.png", "decode", "PictureError"),
        ("c.jpg", "decode", "PictureError"),
        ("d.png", "decode", "PictureError"),
        ("e.png", "explain", "PictureError"),
        ("f.png", "fetch", "MissingObjectError"),
    ]
    assert found[3]["message"] == "a cursed picture"


def test_a_picture_that_cannot_be_drawn_is_a_row_without_detections(
    tmp_path: Path, make_job: Callable[..., Job], monkeypatch: pytest.MonkeyPatch
) -> None:
    def overlay_all(picture: Tensor, explanations: Sequence[Explanation]) -> None:
        if picture.shape[2] == 20:
            raise ZeroDivisionError("no ink\nleft")

    monkeypatch.setattr(outcome, "overlay_all", overlay_all)
    monkeypatch.setattr(outcome, "encode_jpeg", lambda image: b"")
    source = str(tmp_path / "in")
    put(source, {"a.png": picture_bytes(), "b.png": picture_bytes(width=20)})
    job = make_job(source, overlays="all")
    assert job.run() == 3
    assert explained_keys(job.output) == ["a.png", "a.png"]
    assert failures(job.output) == [
        {"key": "b.png", "stage": "render", "error": "ZeroDivisionError", "message": "no ink left"}
    ]


def test_drawing_has_threads_of_its_own_no_more_than_cores(
    tmp_path: Path, make_job: Callable[..., Job], monkeypatch: pytest.MonkeyPatch
) -> None:
    drawing: set[str] = set()

    def encode_jpeg(_: object) -> bytes:
        drawing.add(threading.current_thread().name)
        return b""

    monkeypatch.setattr(pictures, "cores", lambda: 2)
    monkeypatch.setattr(outcome, "encode_jpeg", encode_jpeg)
    put(str(tmp_path / "in"), {f"{number}.png": picture_bytes() for number in range(9)})
    assert make_job(str(tmp_path / "in"), overlays="each").run() == 0
    assert drawing <= {"drawing_0", "drawing_1"}
    assert len([*(tmp_path / "out").glob("shards/*/overlays/*")]) == 9 * 4


def test_a_file_that_cannot_be_uploaded_ends_the_job(
    tmp_path: Path, make_job: Callable[..., Job]
) -> None:
    put(str(tmp_path / "in"), {"a.png": picture_bytes()})
    put(str(tmp_path / "out"), {"shards/00000/overlays": b"in the way"})
    with pytest.raises(StoreRefusedError, match="cannot be written"):
        make_job(str(tmp_path / "in")).run()
    assert not (tmp_path / "out/shards/00000/stats.json").exists()


KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "grey.png": ("L", {}),
    "cmyk.jpg": ("CMYK", {}),
    "deep.png": ("I;16", {}),
    "palette.gif": ("L", {}),
    "alpha.png": ("RGBA", {}),
    **{f"turned{number}.jpg": ("RGB", {"exif": orientation(number)}) for number in (3, 5, 6, 8)},
}


def test_every_kind_of_picture_is_done_at_its_size(
    tmp_path: Path, make_job: Callable[..., Job]
) -> None:
    source = tmp_path / "in"
    put(str(source), {"one.png": picture_bytes(1, 1)})
    colours = {"I;16": 30000, "L": 128}
    for name, (mode, options) in KINDS.items():
        colour = colours.get(mode, (90,) * len(mode))
        Image.new(mode, (20, 10), colour).save(source / name, **options)
    job = make_job(str(source), shard_size=100)
    assert job.run() == 0
    rows = read_rows(open_store(job.output).read("shards/00000/detections.parquet"))
    across = ("turned5.jpg", "turned6.jpg", "turned8.jpg")
    assert {row["key"]: (row["width"], row["height"]) for row in rows} == {
        "one.png": (1, 1),
        **{name: (10, 20) if name in across else (20, 10) for name in KINDS},
    }


class NotingExplainer(QuickExplainer):
    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[int, int | None]] = []

    def explain(
        self,
        pictures: Sequence[Tensor],
        request: ExplainRequest | None = None,
        batch_size: int | None = None,
    ) -> list[list[Explanation]]:
        self.calls.append((len(pictures), batch_size))
        return super().explain(pictures, request, batch_size)


@pytest.mark.parametrize(("batch_size", "window"), [(None, 4 * BATCH_SIZE), (9, 36)])
def test_a_batch_that_nobody_asked_for_is_left_to_the_explainer(
    batch_size: int | None, window: int, tmp_path: Path, make_job: Callable[..., Job]
) -> None:
    picture = picture_bytes()
    put(str(tmp_path / "in"), {f"{number:02}.png": picture for number in range(40)})
    job = make_job(str(tmp_path / "in"), shard_size=100, batch_size=batch_size)
    job.explainer = explainer = NotingExplainer()
    assert job.run() == 0
    assert explainer.calls == [(window, batch_size), (40 - window, batch_size)]
    assert record(job.output)["execution"]["batch_size"] == (batch_size or BATCH_SIZE)


class OldExplanation:
    """One that tells no boxes."""

    def __init__(self, explanation: Explanation) -> None:
        self._explanation = explanation

    def __getattr__(self, name: str) -> Any:
        if name == "boxes":
            raise AttributeError(name)
        return getattr(self._explanation, name)


class OldExplainer(QuickExplainer):
    """As an archive's own handlers of an earlier format: no batch size may be None."""

    def explain(  # type: ignore[override]
        self, pictures: Sequence[Tensor], request: ExplainRequest | None = None, batch_size: int = 8
    ) -> Any:
        assert batch_size >= 1
        found = super().explain(pictures, request, batch_size)
        return [[OldExplanation(each) for each in own] for own in found]


def test_an_older_archive_explains_as_it_did(tmp_path: Path, make_job: Callable[..., Job]) -> None:
    put(str(tmp_path / "in"), {"a.png": picture_bytes()})
    job = make_job(str(tmp_path / "in"))
    job.explainer = OldExplainer()
    assert job.run() == 0
    assert not failures(job.output)


class BreakingExplainer(QuickExplainer):
    def __init__(self, error: BaseException) -> None:
        super().__init__()
        self.error = error

    def explain(
        self,
        pictures: Sequence[Tensor],
        request: ExplainRequest | None = None,
        batch_size: int | None = None,
    ) -> list[list[Explanation]]:
        raise self.error


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (KeyboardInterrupt(), KeyboardInterrupt),
        (Interrupted(signal.SIGTERM), Interrupted),
        (torch.AcceleratorError("an illegal memory access"), DeviceLostError),
        (RequestError("layer", "roi", "emitting"), UsageError),
    ],
)
def test_what_is_no_pictures_fault_ends_the_job_and_commits_nothing(
    tmp_path: Path,
    make_job: Callable[..., Job],
    error: BaseException,
    expected: type[BaseException],
) -> None:
    put(str(tmp_path / "in"), {"a.png": picture_bytes()})
    job = make_job(str(tmp_path / "in"))
    job.explainer = BreakingExplainer(error)
    with pytest.raises(expected):
        job.run()
    assert not (tmp_path / "out" / "shards").exists()


def test_too_little_memory_for_one_picture_is_its_row(
    tmp_path: Path, make_job: Callable[..., Job]
) -> None:
    put(str(tmp_path / "in"), {"a.png": picture_bytes()})
    job = make_job(str(tmp_path / "in"))
    job.explainer = BreakingExplainer(torch.OutOfMemoryError("out of memory"))
    assert job.run() == 3
    assert [row["error"] for row in failures(job.output)] == ["OutOfMemoryError"]


class CountingStore(FolderStore):
    """Counts what was read; stops answering at one key."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.count = 0
        self.lock = threading.Lock()

    def read(self, key: str) -> bytes:
        with self.lock:
            self.count += 1
        if key == "down":
            raise StoreDownError("the store does not answer")
        return super().read(key)


def test_pictures_come_in_order_and_only_a_few_ahead(tmp_path: Path) -> None:
    store = CountingStore(tmp_path)
    entries = [Entry(f"{number:03d}", 0, "") for number in range(100)]
    for entry in entries:
        store.write(entry.key, b"" if entry.key == "001" else picture_bytes())
    with ThreadPoolExecutor(4) as pool:
        loaded = load_ahead(store, entries, pool, batch_size=2)
        first, second = next(loaded), next(loaded)
        assert store.count <= pictures.threads() + 2
        rest = [each.key for each in loaded]
    assert isinstance(first, Picture)
    assert isinstance(second, Failure)
    assert [first.key, second.key, *rest] == [entry.key for entry in entries]


def test_a_store_that_is_down_ends_the_job_and_blames_no_picture(tmp_path: Path) -> None:
    with ThreadPoolExecutor(1) as pool, pytest.raises(StoreDownError):
        list(load_ahead(CountingStore(tmp_path), [Entry("down", 0, "")], pool, 1))
