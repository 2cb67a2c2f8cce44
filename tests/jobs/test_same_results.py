"""How a job is cut, batched and spread over threads and processes does not change what it finds."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from archives.stores.opening import open_store
from handlers.explainer import Explainer
from jobs.__main__ import main
from jobs.names import array_name
from jobs.tables import read_npz, read_rows
from tests.conftest import put, random_picture
from tests.jobs.archive_stub import write_archive
from tests.jobs.conftest import MakeJob
from tests.jobs.test_survival import command, pictures, stats, tables

# DESIGN.md's, and float16's of what is stored of a map.
BOX_TOLERANCE, SCORE_TOLERANCE, MAP_TOLERANCE, STORED_TOLERANCE = 0.05, 1e-4, 1e-3, 1e-3
SIZES = ((90, 120), (120, 90))  # two padded shapes, so that batches are made of either
SAME = ("key", "index", "width", "height", "label", "category", "level", "outcome", "geometry")
SAME_MAP = ("map_height", "map_width", "method", "target", "layer")


@pytest.fixture
def source(tmp_path: Path) -> str:
    files = {}
    for number in range(12):
        pixels = random_picture(*SIZES[number % 3 == 0], seed=number).permute(1, 2, 0).numpy()
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, "PNG")
        files[f"{number:02d}.png"] = buffer.getvalue()
    put(str(tmp_path / "in"), files)
    return str(tmp_path / "in")


@pytest.fixture
def run(source: str, explainer: Explainer, tmp_path: Path, make_job: MakeJob) -> Callable[..., str]:
    """Runs a job of the real detector; where its results lie."""

    def explained(name: str, batch_size: int, shard_size: int) -> str:
        job = make_job(source, str(tmp_path / name), pictures=False)
        job.explainer = explainer  # type: ignore[assignment]
        request = {"score_threshold": 0.3}
        assert job.run(batch_size=batch_size, shard_size=shard_size, request=request) == 0
        return job.output

    return explained


@pytest.fixture
def two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


Found = list[tuple[dict[str, Any], NDArray[np.float32]]]


def found(output: str) -> Found:
    """All rows, each with its map as the detector gave it."""
    store = open_store(output)
    result = []
    for key in sorted(each.key for each in store.entries() if each.key.endswith(".parquet")):
        if key.endswith("detections.parquet"):
            maps: Mapping[str, Any] = read_npz(store.read(key.replace("detections.parquet", MAPS)))
            for row in read_rows(store.read(key)):
                stored = maps[array_name(row["key"], row["index"])]
                result.append((row, stored.astype(np.float32) * row["map_max"]))
    return result


MAPS = "heatmaps.npz"


def assert_close(one: Found, other: Found) -> None:
    assert [{name: row[name] for name in (*SAME, *SAME_MAP)} for row, _ in one] == [
        {name: row[name] for name in (*SAME, *SAME_MAP)} for row, _ in other
    ]
    for (row, heatmap), (twin, its_heatmap) in zip(one, other, strict=True):
        for edge in ("x1", "y1", "x2", "y2"):
            assert row[edge] == pytest.approx(twin[edge], abs=BOX_TOLERANCE)
        assert row["score"] == pytest.approx(twin["score"], abs=SCORE_TOLERANCE)
        assert row["map_max"] == pytest.approx(twin["map_max"], rel=MAP_TOLERANCE)
        assert row["energy_in_box"] == pytest.approx(twin["energy_in_box"], abs=MAP_TOLERANCE)
        allowed = (MAP_TOLERANCE + STORED_TOLERANCE) * row["map_max"]
        assert np.abs(heatmap - its_heatmap).max() <= allowed


def test_batches_shards_and_threads_do_not_change_rows_and_maps(
    run: Callable[..., str], two_threads: None
) -> None:
    expected = found(run("two threads", batch_size=2, shard_size=12))
    assert len({row["key"] for row, _ in expected}) == 12
    assert len(expected) > 30
    assert max(heatmap.max() for _, heatmap in expected) > 0
    torch.set_num_threads(1)
    for batch_size, shard_size in ((1, 12), (5, 3), (2, 12)):
        output = run(f"{batch_size}-{shard_size}", batch_size, shard_size)
        assert_close(found(output), expected)
    assert tables(run("again", 2, 12)) == tables(output)


def test_two_worker_processes_find_what_one_does(tmp_path: Path) -> None:
    put(str(tmp_path / "in"), pictures(60))
    archive = write_archive(tmp_path / "stub.mar")
    outputs = [str(tmp_path / workers) for workers in ("1", "2")]
    for workers, output in zip(("1", "2"), outputs, strict=True):
        more = ("--shard-size", "7", "--workers", workers)
        assert main(command(archive, str(tmp_path / "in"), output, *more)) == 3
    assert tables(outputs[0]) == tables(outputs[1])
    assert stats(outputs[0]) == stats(outputs[1])
