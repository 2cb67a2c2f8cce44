"""COCO's results, worked out by hand from two boxes a picture: (1, 2) to its middle."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from torch import Tensor

from archives.stores.opening import open_store
from handlers.schema import ExplainRequest, Explanation
from jobs.inputs.plan import Plan
from jobs.tables import read_rows
from tests.conftest import put
from tests.jobs.conftest import Job, MakeJob, QuickExplainer, picture_bytes

SMALL, LARGE, BLACK = picture_bytes(12, 10), picture_bytes(40, 30), picture_bytes(grey=0)
BOXES = {SMALL: [1.0, 2.0, 5.0, 3.0], LARGE: [1.0, 2.0, 19.0, 13.0]}  # x, y, width, height


def expected(ids: dict[int, bytes]) -> list[dict[str, Any]]:
    return [
        {"image_id": image, "category_id": label, "bbox": BOXES[data], "score": score}
        for image, data in ids.items()
        for label, score in ((1, 0.75), (2, 0.5))
    ]


def coco(job: Job, name: str = "results") -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(open_store(job.output).read(f"coco/{name}.json"))
    return found


def test_ids_are_the_names_where_all_are_numbers(tmp_path: Path, make_job: MakeJob) -> None:
    files = {"a/000000000139.png": SMALL, "b/7.png": BLACK, "b/8.png": LARGE, "c/20.png": SMALL}
    put(str(tmp_path / "in"), files)
    job = make_job(str(tmp_path / "in"), coco=True, pictures=False)
    assert job.run() == 0
    assert coco(job) == expected({139: SMALL, 8: LARGE, 20: SMALL})
    assert coco(job, "images") == [
        {"id": 139, "file_name": "a/000000000139.png"},
        {"id": 7, "file_name": "b/7.png"},
        {"id": 8, "file_name": "b/8.png"},
        {"id": 20, "file_name": "c/20.png"},
    ]
    outputs = json.loads(open_store(job.output).read("run.json"))["outputs"]
    assert outputs == {"contact_sheet": False, "coco": True}


@pytest.mark.parametrize(
    "names",
    [
        ["1.png", "2.png", "3b.png", "4.png", "5.png"],
        ["a/1.png", "a/2.png", "b/1.png", "b/3.png", "b/4.png"],  # two of one number
        ["01.png", "1.png", "2.png", "3.png", "4.png"],
        ["1.png", "2.png", "3.png", "4.png", "²5.png"],
    ],
)
def test_else_they_are_places_in_the_listing(
    names: list[str], tmp_path: Path, make_job: MakeJob
) -> None:
    contents = [SMALL, BLACK, b"no picture", LARGE, SMALL]  # over two shards of three
    put(str(tmp_path / "in"), dict(zip(names, contents, strict=True)))
    job = make_job(str(tmp_path / "in"), coco=True)
    assert job.run() == 3
    assert coco(job) == expected({1: SMALL, 4: LARGE, 5: SMALL})
    assert [each["file_name"] for each in coco(job, "images")] == names
    assert [each["id"] for each in coco(job, "images")] == [1, 2, 3, 4, 5]


def test_a_box_on_several_layers_is_one_result(tmp_path: Path, make_job: MakeJob) -> None:
    put(str(tmp_path / "in"), {"3.png": SMALL, "4.png": LARGE})
    job = make_job(str(tmp_path / "in"), coco=True, request={"layer": "roi,pyramid"})
    assert job.run() == 0
    assert len(read_rows(open_store(job.output).read("shards/00000/detections.parquet"))) == 8
    assert coco(job) == expected({3: SMALL, 4: LARGE})


class Candidates(QuickExplainer):
    """The second box is one that the detector did not report."""

    def explain(
        self,
        pictures: Sequence[Tensor],
        request: ExplainRequest | None = None,
        batch_size: int | None = None,
    ) -> list[list[Explanation]]:
        return [
            [first, replace(second, outcome="suppressed", suppressed_by=0)]
            for first, second in super().explain(pictures, request, batch_size)
        ]


def test_candidates_that_were_not_reported_are_no_results(
    tmp_path: Path, make_job: MakeJob
) -> None:
    put(str(tmp_path / "in"), {"3.png": SMALL})
    job = make_job(str(tmp_path / "in"), coco=True)
    job.explainer = Candidates()
    assert job.run() == 0
    assert coco(job) == expected({3: SMALL})[:1]


def test_a_run_without_boxes_gives_an_empty_list(tmp_path: Path, make_job: MakeJob) -> None:
    put(str(tmp_path / "in"), {"a.png": BLACK})
    job = make_job(str(tmp_path / "in"), coco=True)
    assert job.run() == 0
    assert coco(job) == []
    assert coco(job, "images") == [{"id": 1, "file_name": "a.png"}]


def test_it_is_written_an_item_a_line_and_only_where_asked_for(
    tmp_path: Path, make_job: MakeJob
) -> None:
    put(str(tmp_path / "in"), {f"{number}.png": SMALL for number in range(1, 10)})
    job = make_job(str(tmp_path / "in"), str(tmp_path / "with"), coco=True)
    assert job.run() == 0
    lines = open_store(job.output).read("coco/results.json").decode().splitlines()
    assert (lines[0], len(lines), lines[-1]) == ("[", 2 * 9 + 2, "]")
    assert [json.loads(line.rstrip(",")) for line in lines[1:-1]] == coco(job)
    without = make_job(str(tmp_path / "in"), str(tmp_path / "without"))
    without.run()
    assert not (tmp_path / "without/coco").exists()
    assert Plan(open_store(without.output), 3, 9).shards == 3


def test_a_finished_run_gets_its_results_when_they_are_asked_for(
    tmp_path: Path, make_job: MakeJob
) -> None:
    put(str(tmp_path / "in"), {"3.png": SMALL})
    job = make_job(str(tmp_path / "in"))
    job.run()
    job.explainer.explained = 0
    assert job.run(coco=True) == 0
    assert job.explainer.explained == 0
    assert coco(job) == expected({3: SMALL})
