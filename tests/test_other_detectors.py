"""Detectors that are not torchvision's give the same numbers in Python, by the endpoint and by a
job."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pyarrow.parquet
import pytest
import requests
import torch

from archives.serving import server
from archives.verify import verify
from handlers.explainer import Explainer, ExplainRequest
from handlers.images import Geometry
from handlers.manifest import ArchiveError
from tests.conftest import random_picture
from tests.handlers.detectors.yolo_twin import CASES
from tests.other_detectors import KINDS, build_layout, build_other
from tests.test_endpoint import png

ROOT = Path(__file__).parent.parent
PICTURE = random_picture(150, 190, 2)
FIELDS = {"method": "odam", "score_threshold": "0", "max_detections": "3"}
BRINGS = {
    "yolo": "the model file network.py",
    "scripted": "the TorchScript network.torchscript",
    "classifier": "",
    "detr": "",
}


@pytest.fixture(scope="module")
def archives(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {kind: build_other(kind, tmp_path_factory.mktemp(kind)) for kind in KINDS}


@pytest.fixture(scope="module")
def endpoint(archives: dict[str, Path]) -> Iterator[server.Server]:
    with serving(archives) as started:
        yield started


@pytest.fixture(scope="module")
def layouts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {name: build_layout(name, tmp_path_factory.mktemp(name)) for name in CASES}


@pytest.fixture(scope="module")
def endpoint_of_layouts(layouts: dict[str, Path]) -> Iterator[server.Server]:
    with serving(layouts) as started:
        yield started


@contextmanager
def serving(archives: dict[str, Path]) -> Iterator[server.Server]:
    with tempfile.TemporaryDirectory() as folder:
        several = tuple(archives.values())
        options = server.ServerOptions(several, Path(folder), ports=server.Ports())
        with server.start(options) as started:
            started.wait_ready()
            yield started


@pytest.mark.parametrize("kind", KINDS)
def test_code_of_an_archive_runs_only_where_that_is_allowed(
    kind: str, archives: dict[str, Path]
) -> None:
    assert verify(archives[kind]).own_code() == BRINGS[kind]
    if not BRINGS[kind]:
        assert Explainer.from_archive(archives[kind]).detector.first_label == 0
        return
    with pytest.raises(ArchiveError, match=f"brings code of its own, {BRINGS[kind]}.*run_code"):
        Explainer.from_archive(archives[kind])


@pytest.mark.server
@pytest.mark.parametrize("kind", KINDS)
def test_python_endpoint_and_job_agree(
    kind: str, archives: dict[str, Path], endpoint: server.Server, tmp_path: Path
) -> None:
    agree(archives[kind], endpoint, tmp_path)


@pytest.mark.full
@pytest.mark.server
@pytest.mark.parametrize("name", CASES)
def test_every_layout_in_python_by_endpoint_and_by_job(
    name: str, layouts: dict[str, Path], endpoint_of_layouts: server.Server, tmp_path: Path
) -> None:
    agree(layouts[name], endpoint_of_layouts, tmp_path)


def agree(archive: Path, endpoint: server.Server, tmp_path: Path) -> None:
    explainer = Explainer.from_archive(archive, run_code=True)
    explanations = explainer.explain([PICTURE], ExplainRequest.from_fields(FIELDS))[0]
    assert len(explanations) == 3
    assert explanations[0].heatmap.max() > 0

    with requests.Session() as session:
        session.trust_env = False
        answer = session.post(
            f"{endpoint.inference_url}/explanations/{archive.stem}",
            headers={"Authorization": f"Bearer {endpoint.inference_token}"},
            files={"picture": png(PICTURE)},
            data={**FIELDS, "format": "npz"},
            timeout=60,
        )
    assert answer.status_code == 200, answer.text
    served = np.load(io.BytesIO(answer.content), allow_pickle=False)

    (tmp_path / "in.png").write_bytes(png(PICTURE))
    command = ["explain", "--archive", archive, "--input", "in.png", "--output", "out"]
    command += [f"--{name.replace('_', '-')}={value}" for name, value in FIELDS.items()]
    subprocess.run(
        [sys.executable, "-m", "jobs", *map(str, command)],
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT)},
        check=True,
    )
    shard = tmp_path / "out" / "shards" / "00000"
    rows = pyarrow.parquet.read_table(shard / "detections.parquet").to_pylist()
    stored = np.load(shard / "heatmaps.npz", allow_pickle=False)
    for place, (explanation, row) in enumerate(zip(explanations, rows, strict=True)):
        box = [row[edge] for edge in ("x1", "y1", "x2", "y2")]
        assert box == pytest.approx(explanation.box, abs=0.05)
        assert served["boxes"][place].tolist() == pytest.approx(explanation.box, abs=0.05)
        assert row["category"] == explanation.category == explainer.categories[row["label"]]
        assert Geometry.from_dict(json.loads(row["geometry"])) == explanation.geometry
        tolerance = 2e-3 * float(explanation.heatmap.max())
        from_job = stored[f"in.png#{row['index']}"].astype(np.float32) * row["map_max"]
        for found in (from_job, served[f"heatmap_{place}"]):
            torch.testing.assert_close(
                torch.from_numpy(found), explanation.heatmap, rtol=0, atol=tolerance
            )
