"""The same picture and archive give the same numbers by the endpoint and by a job."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet
import pytest

from archives.serving.server import Server
from tests.conftest import scene_picture
from tests.test_endpoint import png, post

pytestmark = pytest.mark.server

FIELDS = {"method": "layercam", "target": "class", "score_threshold": "0.3"}


def test_endpoint_and_job_agree(endpoint: Server, demo_archive: Path, tmp_path: Path) -> None:
    pictures = {f"scene-{number}.png": png(scene_picture(number)) for number in range(4)}
    (tmp_path / "in").mkdir()
    for name, data in pictures.items():
        (tmp_path / "in" / name).write_bytes(data)
    options = [f"--{name.replace('_', '-')}={value}" for name, value in FIELDS.items()]
    command = ["explain", "--archive", demo_archive, "--input", "in", "--output", "out", *options]
    root = Path(__file__).parent.parent
    subprocess.run(
        [sys.executable, "-m", "jobs", *map(str, command)],
        cwd=tmp_path,
        env={"PYTHONPATH": str(root)},
        check=True,
    )
    shard = tmp_path / "out" / "shards" / "00000"
    rows = pyarrow.parquet.read_table(shard / "detections.parquet").to_pylist()
    stored = np.load(shard / "heatmaps.npz", allow_pickle=False)
    compared = 0
    for name, data in pictures.items():
        files, npz = {"picture": data}, {**FIELDS, "format": "npz"}
        answer = post(endpoint, "explanations", files=files, data=npz)
        arrays = np.load(io.BytesIO(answer.content), allow_pickle=False)
        own = [row for row in rows if row["key"] == name]
        assert [row["index"] for row in own] == arrays["indices"].tolist()
        for place, row in enumerate(own):
            box = [row[edge] for edge in ("x1", "y1", "x2", "y2")]
            assert box == pytest.approx(arrays["boxes"][place].tolist(), abs=0.05)
            assert row["score"] == pytest.approx(float(arrays["scores"][place]), abs=1e-4)
            assert row["label"] == arrays["labels"][place]
            assert json.loads(row["geometry"]) == json.loads(str(arrays["geometries"][place]))
            heatmap = arrays[f"heatmap_{place}"]
            from_job = stored[f"{name}#{row['index']}"].astype(np.float32) * row["map_max"]
            # float32 reassociation and float16 storage, 1e-3 each
            assert np.abs(from_job - heatmap).max() <= 2e-3 * heatmap.max()
            compared += 1
    assert compared > 8
