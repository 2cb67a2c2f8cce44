"""`python -m jobs shortcuts`, in this process: with a detector that is fooled by a stamp, and with
the demo's."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch

from archives.errors import UsageError
from archives.stores.opening import open_store
from handlers.explainer import Explainer
from handlers.images import decode_picture, to_image
from handlers.schema import RequestError
from jobs.__main__ import parse
from jobs.audit import evidence, find_shortcuts, shortcut_sheets
from jobs.audit.findings import read_part
from jobs.audit.shortcuts import pairs
from jobs.audit.shortcuts_options import ShortcutsOptions
from jobs.errors import NothingToMeasureError
from jobs.evaluation.measure import with_map
from jobs.tables import read_rows
from tests.conftest import scene_picture
from tests.jobs.audit.rule_detector import (
    CAT,
    RuleDetector,
    Stub,
    detections,
    picture,
    white_at,
)
from tests.jobs.audit.test_shortcuts import RIGHT, one

STAMP = (0, 0, 12, 12)


def written(folder: Path, number: int, stamped: int) -> ShortcutsOptions:
    """So many pictures of a cat, of which the first are stamped."""
    folder.joinpath("in").mkdir()
    for place in range(number):
        whites = [STAMP] if place < stamped else []
        pixels = picture(*whites, ground=40 + place)
        to_image(pixels).save(folder / f"in/{place:02}.png")
    return ShortcutsOptions("a.mar", (str(folder / "in"),), str(folder / "out"), examples=2)


@pytest.fixture
def stamped(monkeypatch: pytest.MonkeyPatch) -> type[Stub]:
    """A detector that calls all a cat where the frame is stamped."""
    stamp = white_at(*STAMP)

    def boxes(explainer: Any, pixels: Any, how: Any) -> Any:
        found = detections() if stamp(pixels) > 0.5 else detections()[1:]
        return SimpleNamespace(boxes=tuple(found))

    def with_heat(explainer: Any, request: Any) -> Any:
        def make(pixels: torch.Tensor, own: Any) -> Any:
            heat = torch.zeros(pixels.shape[1:])
            heat[:12, :12] = 1
            return [with_map(pixels, each, heat) for each in own]

        return make

    monkeypatch.setattr(evidence, "reported", RuleDetector(stamp))
    for module in (find_shortcuts, shortcut_sheets):
        monkeypatch.setattr(module, "chosen_boxes", boxes)
    monkeypatch.setattr(shortcut_sheets, "explained", with_heat)

    class Fooled(Stub):
        detector = None

        @staticmethod
        def check(request: Any) -> None:
            assert (request.method, request.layer) == ("layercam", "C3")

    return Fooled


def test_a_stamp_is_found_told_and_drawn(
    stamped: type[Stub], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = written(tmp_path, 9, 6)
    assert find_shortcuts.find_shortcuts(options, cast("Any", stamped())) == 0
    printed = capsys.readouterr().out
    assert "cat, spot of the frame: upper left: 6 of 6 detections, in 6 of 6 pictures" in printed
    store = open_store(options.output)
    rows = read_rows(store.read("shortcuts/evidence.parquet"))
    cats = [row for row in rows if row["category"] == "cat"]
    assert len(rows) == 6 * 3 + 3 * 2
    for row in cats:
        assert (row["x1"], row["y2"], row["width"]) == (CAT[0], CAT[3], 120)
        assert row["kept_alone"] == 0  # though all that lend are stamped
        assert row["kept_spot_upper_left"] == 0
        assert row["kept_beside_right"] == pytest.approx(1)
        assert row["place"] == row["cluster"].partition(": ")[2] == "spot of the frame: upper left"
        assert row["instead"] == "bird"
    part = read_part(store, "shortcuts")
    assert part is not None
    assert part.figures["shortcuts flagged"] == 1
    (finding,) = [each for each in part.findings if each.key == "00.png" and each.index == 0]
    assert (finding.flag, finding.severity) == ("same spot of the frame", 1)
    assert finding.says == (
        "cat 0.90 keeps 0.00 without the frame's upper left part and is called bird; so do 6 of 6"
        " detections of cat, in 6 of 6 pictures."
    )
    (image,) = part.images
    assert image.path == "shortcuts/cat%2C-spot-of-the-frame-upper-left.jpg"
    assert image.alt == "Examples of cat, spot of the frame: upper left"
    sheet = decode_picture(store.read(image.path))
    assert sheet.shape[1] > 2 * 200  # two examples, below each other
    assert find_shortcuts.find_shortcuts(replace(options, examples=0), cast("Any", stamped())) == 0
    assert store.find(image.path) is None
    again = read_part(store, "shortcuts")
    assert again is not None
    assert again.images == ()


def test_pictures_that_fail_do_not_end_it(
    stamped: type[Stub], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = written(tmp_path, 3, 2)
    Path(options.inputs[0], "broken.png").write_bytes(b"no picture")
    assert find_shortcuts.find_shortcuts(options, cast("Any", stamped())) == 3
    assert "broken.png: not a picture" in capsys.readouterr().err
    for each in Path(options.inputs[0]).iterdir():
        each.write_bytes(b"no picture")
    with pytest.raises(UsageError, match="nothing to ask: all 4 pictures failed") as failed:
        find_shortcuts.find_shortcuts(options, cast("Any", stamped()))
    assert not isinstance(failed.value, NothingToMeasureError)


def test_an_honest_detector_is_not_flagged(
    demo: Explainer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    for number in range(3):
        to_image(scene_picture(number)).save(folder / f"{number}.png")
    options = ShortcutsOptions(
        "a.mar", (str(folder),), str(tmp_path / "out"), per_picture=2, pictures=2
    )
    assert find_shortcuts.find_shortcuts(options, demo) == 0
    assert "4 detections asked, 0 with evidence outside the box; 0 short" in capsys.readouterr().out
    rows = read_rows((tmp_path / "out/shortcuts/evidence.parquet").read_bytes())
    assert {row["key"] for row in rows} < {"0.png", "1.png", "2.png"}
    assert min(row["kept_alone"] for row in rows) > 0.5
    assert {row["place"] for row in rows} == {None}
    with pytest.raises(NothingToMeasureError, match="no box scores more than 1 in 2 pictures"):
        find_shortcuts.find_shortcuts(replace(options, score_threshold=1.0), demo)
    with pytest.raises(RequestError, match="layer: got 'C9'"):
        find_shortcuts.find_shortcuts(replace(options, layer="C9"), demo)


def test_keys_and_categories_steer_no_terminal(
    stamped: type[Stub], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = written(tmp_path, 1, 1)
    Path(options.inputs[0], "\x1b[31mbroken.png").write_bytes(b"no picture")
    assert find_shortcuts.find_shortcuts(options, cast("Any", stamped())) == 3
    found = [one(number, RIGHT, category="\x1b[32mcat") for number in range(8)]
    find_shortcuts._tell(pairs(found), found)
    said = capsys.readouterr()
    assert "\x1b" not in said.out + said.err
    assert r"\x1b[31mbroken.png: not a picture" in said.err
    assert r"  \x1b[32mcat, beside the box: right: 8 of 8 detections" in said.out


@pytest.mark.parametrize(("count", "expected"), [(300, 200), (7, 7)])
def test_200_pictures_are_drawn(count: int, expected: int) -> None:
    options = ShortcutsOptions("a.mar", ("in",), "out")
    listing = cast("Any", SimpleNamespace(count=count, entries=lambda: iter(range(count))))
    drawn = find_shortcuts._drawn(listing, options)
    assert len(drawn) == len(set(drawn)) == expected
    assert drawn == find_shortcuts._drawn(listing, options) == sorted(drawn)
    if expected < count:
        assert drawn != find_shortcuts._drawn(listing, replace(options, seed=1))


def test_arguments() -> None:
    line = "shortcuts --archive a.mar --input in --output out"
    assert parse(line.split()) == ShortcutsOptions("a.mar", ("in",), "out")
    line += " --score-threshold 0.3 --per-picture 2 --pictures 7 --examples 1 --batch-size 3"
    line += " --method odam --layer C4 --seed 5 --device cuda:1"
    assert parse(line.split()) == ShortcutsOptions(
        "a.mar", ("in",), "out", 0.3, 2, 7, "odam", "C4", 1, 3, 5, "cuda:1"
    )
