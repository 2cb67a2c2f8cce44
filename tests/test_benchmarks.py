"""The benchmark's harness, on tiny work of its own: what it writes, not how fast anything is."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from handlers.schema import Detections
from tests.benchmarks import __main__ as command
from tests.benchmarks.harness import (
    Goal,
    Row,
    Settings,
    SkippedError,
    Work,
    alternate,
    equal,
    ratios,
    same_boxes,
)

PEERS = ("pytorch_grad_cam", "torchcam", "captum", "xaitk_saliency", "smqtk_detection", "scipy")


@pytest.mark.parametrize("name", command.WORKS)
def test_works_import_without_their_peers(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for peer in PEERS:
        monkeypatch.setitem(sys.modules, peer, None)
    module = importlib.reload(importlib.import_module(f"tests.benchmarks.{name}"))
    assert isinstance(module.WORK, Work)
    assert module.WORK.title


def test_sides_take_turns_and_the_first_run_does_not_count() -> None:
    calls: list[str] = []
    seconds = alternate(
        Settings(rounds=3), ours=lambda: calls.append("ours"), peer=lambda: calls.append("peer")
    )
    assert calls == ["ours", "peer", "ours", "peer", "peer", "ours", "ours", "peer"]
    assert [len(each) for each in seconds.values()] == [3, 3]


def test_ratios_are_round_by_round() -> None:
    assert ratios([2.0, 9.0], [1.0, 3.0]) == [2.0, 3.0]


@pytest.mark.parametrize(
    ("goal", "value", "met"),
    [
        (Goal(1.05), 1.05, True),
        (Goal(1.05), 1.06, False),
        (Goal(10, at_most=False), 9.9, False),
        (Goal(10, at_most=False), 10.0, True),
    ],
)
def test_goals(goal: Goal, value: float, met: bool) -> None:
    assert goal.met(value) is met


def test_maps_that_differ_are_called_so() -> None:
    assert equal(1e-5).startswith("maps agree")
    assert equal(0.5).startswith("maps DIFFER")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({}, "1 boxes agree: 0.0e+00 px, scores 0.0e+00 at most"),
        ({"boxes": torch.tensor([[1.0, 2.0, 3.0, 4.5]])}, "1 boxes DIFFER: 5.0e-01 px"),
        ({"labels": torch.tensor([2])}, "1 boxes DIFFER"),
        ({"scores": torch.tensor([0.75])}, "1 boxes DIFFER: 0.0e+00 px, scores 2.5e-01 at most"),
        ({"boxes": torch.zeros(2, 4)}, "boxes DIFFER: 1 against 2"),
    ],
)
def test_boxes_beside_the_stock_models(change: dict[str, torch.Tensor], said: str) -> None:
    found = {
        "boxes": torch.tensor([[1.0, 2.0, 3.0, 4.0]]),
        "labels": torch.tensor([1]),
        "scores": torch.tensor([0.5]),
    }
    ours = Detections(**found, candidate=torch.tensor([0]), level=("0",))
    verdict = same_boxes(ours, found | change)
    assert verdict.startswith(said)
    assert Row("a", "b", 1.0, (1.0, 1.0), same=verdict).wrong is bool(change)


@pytest.mark.parametrize(("same", "wrong"), [(equal(1e-5), False), (equal(0.5), True), ("", False)])
def test_results_that_differ_are_wrong(same: str, wrong: bool) -> None:
    assert Row("a", "b", 1.0, (1.0, 1.0), same=same).wrong is wrong
    assert Row("a", "b", 1.3, (1.3, 1.3), same=same, goal=Goal(1.2)).wrong is True


@pytest.mark.full
@pytest.mark.parametrize("name", command.WORKS)
def test_every_work_runs(name: str, tmp_path: Path) -> None:
    assert command.main([name, "--tiny", "--rounds", "1", "--output", str(tmp_path)]) == 0
    report = json.loads((tmp_path / f"cpu-{name}.json").read_text())
    assert report["skipped"] or report["rows"]
    assert not [row["same"] for row in report["rows"] if row["same"].startswith("maps DIFFER")]
    if not report["skipped"]:
        assert all(row["value"] > 0 for row in report["rows"])


def run(monkeypatch: pytest.MonkeyPatch, output: Path, work: Work, *options: str) -> int:
    monkeypatch.setattr(command, "find_work", lambda _: work)
    return command.main(["two_stage", "--rounds", "1", "--output", str(output), *options])


def rows(settings: Settings) -> Iterator[Row]:
    yield Row(
        case="a, b",
        measure="times faster",
        value=12.5,
        spread=(12.0, 13.0),
        ours=0.5,
        other=6.25,
        goal=Goal(10, at_most=False),
        same=equal(0.0),
        note="Something to know.",
    )
    yield Row(
        "c", f"over {settings.rounds} round", 1.5, (1.5, 1.5), goal=Goal(1.2), figures={"boxes": 7}
    )


def test_table_and_json(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert run(monkeypatch, tmp_path, Work("Fast", rows)) == 4  # 1.5 is over 1.2
    report = json.loads((tmp_path / "cpu-two_stage.json").read_text())
    assert report["schema_version"] == 1
    assert [row["met"] for row in report["rows"]] == [True, False]
    assert report["rows"][0]["spread"] == [12.0, 13.0]
    assert report["rows"][1]["figures"] == {"boxes": 7}
    assert report["machine"]["threads"] >= 1
    assert {"torch", "torchvision", "numpy"} <= set(report["machine"]["versions"])
    table = (tmp_path / "tables.md").read_text()
    assert "## Fast" in table
    assert (
        "| a, b | times faster | 12.500 | 12.000 - 13.000 | 0.5 | 6.250 | at least 10 | yes |"
        " maps agree: 0.0e+00 of the largest value at most |" in table
    )
    assert "| c | over 1 round | 1.500 | 1.500 - 1.500 |  |  | at most 1.2 | **no** |  |" in table
    assert "- Something to know." in table
    assert "Not run on cpu: one_stage, group_norm" in table
    assert "Not run on cuda: two_stage, one_stage" in table


def test_works_that_cannot_run_say_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def skipped(settings: Settings) -> Iterator[Row]:
        raise SkippedError("needs WHYBOX_DATA")
        yield

    assert run(monkeypatch, tmp_path, Work("Skipped", skipped)) == 0
    assert "Not run: needs WHYBOX_DATA." in (tmp_path / "tables.md").read_text()


def test_a_missing_peer_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def without(settings: Settings) -> Iterator[Row]:
        raise ModuleNotFoundError("No module named 'torchcam'", name="torchcam")
        yield

    assert run(monkeypatch, tmp_path, Work("Without", without)) == 0
    report = json.loads((tmp_path / "cpu-two_stage.json").read_text())
    assert report["skipped"] == "needs torchcam; pip install '.[bench]'"


def test_tiny_work_leaves_the_kept_figures_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(command, "find_work", lambda _: Work("Fast", rows))
    monkeypatch.setattr(command, "KEPT", tmp_path)
    assert command.main(["two_stage", "--rounds", "1", "--tiny"]) == 0
    assert not list(tmp_path.iterdir())
    folder = Path(capsys.readouterr().out.rpartition("written to ")[2].strip())
    assert (folder / "cpu-two_stage.json").exists()


def test_unknown_work_is_refused(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    with pytest.raises(SystemExit) as stop:
        command.main(["warp", "--output", str(tmp_path)])
    assert stop.value.code == 2
    assert "no work is called 'warp'" in capsys.readouterr().err
