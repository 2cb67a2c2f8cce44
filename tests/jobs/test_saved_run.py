"""A finished run, read back."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from archives.errors import ConflictError, UsageError
from jobs.saved_run import SavedRun
from tests.conftest import put
from tests.jobs.conftest import CURSED_WIDTH, MakeJob, picture_bytes


@pytest.fixture
def source(tmp_path: Path) -> str:
    """Two good pictures, a black one without boxes, and one that fails."""
    place = str(tmp_path / "pictures")
    names = ("b.png", "a b.png", "cursed.png", "black.png")
    sizes = (12, 12, CURSED_WIDTH, 12)
    greys = (200, 100, 90, 0)
    put(place, {n: picture_bytes(w, grey=g) for n, w, g in zip(names, sizes, greys, strict=True)})
    return place


@pytest.mark.parametrize("layer", ["emitting", "emitting,C3"])
def test_pictures_come_in_the_listings_order_with_their_maps(
    source: str, make_job: MakeJob, layer: str
) -> None:
    job = make_job(source, request={"layer": layer}, overlays="none")
    assert job.run() == 3
    run = SavedRun.open(job.output)
    assert run.record["counts"]["pictures"] == 4
    layers = layer.split(",")
    found = [(each.name, len(each.rows)) for each in run.pictures()]
    assert found == [("a b.png", 2 * len(layers)), ("b.png", 2 * len(layers)), ("black.png", 0)]
    assert [row["key"] for row in run.failures()] == ["cursed.png"]
    first = next(run.pictures())
    assert run.source().read(first.key) == picture_bytes(12, grey=100)
    (listed,) = (each for each in run.source().entries() if each.key == first.key)
    assert (first.size, first.tag) == (listed.size, listed.tag)
    ramp = torch.arange(6, dtype=torch.float32).reshape(2, 3)
    for row in first.rows:
        explanation = first.explanation(row)
        assert explanation.layer == row["layer"]
        assert explanation.box == (1, 2, 6, 5)
        expected = ramp.roll(layers.index(row["layer"]), 1) * 100e-9
        assert torch.allclose(explanation.heatmap, expected, rtol=1e-3)
        several = {**row, "boxes": [[1.0, 2.0, 6.0, 4.0], [3.0, 2.0, 5.0, 5.0]]}
        assert first.explanation(several).boxes == ((1, 2, 6, 4), (3, 2, 5, 5))
        old = {name: value for name, value in row.items() if name != "boxes"}
        assert first.explanation(old).boxes == explanation.boxes == ()


def test_what_is_no_finished_run_is_refused(source: str, make_job: MakeJob, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"there is no run at .*it holds no run.json"):
        SavedRun.open(str(tmp_path / "empty"))
    job = make_job(source)
    job.run()
    place = Path(job.output, "run.json")
    place.write_text(json.dumps(json.loads(place.read_text()) | {"status": "running"}))
    with pytest.raises(UsageError, match="is not done: run the same"):
        SavedRun.open(job.output)


@pytest.mark.parametrize(
    ("section", "values"),
    [("times", None), ("counts", {"pictures": "many"}), ("options", {"shard_size": 0})],
)
def test_a_record_that_is_cut_off_or_altered_is_refused(
    section: str, values: dict[str, object] | None, source: str, make_job: MakeJob
) -> None:
    job = make_job(source)
    job.run()
    place = Path(job.output, "run.json")
    record = json.loads(place.read_text())
    record[section] = values and record[section] | values
    place.write_text(json.dumps(record))
    with pytest.raises(ConflictError, match=rf"run\.json is not as .*: {section}\.\w+ is missing"):
        SavedRun.open(job.output)
