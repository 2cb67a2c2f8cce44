"""Maps before and after parts of a detector are randomised: who is flagged, and what is written."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from archives.errors import UsageError
from archives.stores.opening import open_store
from handlers.explainer import Explainer
from handlers.images import to_image
from handlers.schema import RequestError
from jobs.__main__ import parse
from jobs.audit.findings import read_part
from jobs.errors import NothingToMeasureError
from jobs.evaluation.sanity import flagged, sanity, summarised
from jobs.options import SanityOptions
from tests.conftest import scene_picture


@pytest.fixture
def options(tmp_path: Path) -> SanityOptions:
    (tmp_path / "in").mkdir()
    to_image(scene_picture(4)).save(tmp_path / "in/a.png")
    return SanityOptions(
        "demo.mar",
        (str(tmp_path / "in"),),
        str(tmp_path / "out"),
        methods=("odam", "eigencam"),
        maps=("method=odam target=x1",),
        detections=2,
        per_picture=2,
        repeats=1,
    )


def test_eigencam_is_flagged_and_odam_is_not(
    options: SanityOptions, demo: Explainer, capsys: pytest.CaptureFixture[str]
) -> None:
    Path(options.inputs[0], "broken.png").write_bytes(b"no picture")
    few = replace(options, detections=9)
    before = {name: each.clone() for name, each in demo.detector.model.state_dict().items()}
    assert sanity(few, demo) == 3
    said = capsys.readouterr()
    assert "broken.png: not a picture" in said.err
    assert "only 2 of 9 boxes" in said.err
    after = demo.detector.model.state_dict()
    assert all(torch.equal(each, after[name]) for name, each in before.items())

    out = Path(options.output)
    assert (out / "sanity.md").read_text() in said.out
    record = json.loads((out / "sanity.json").read_text())
    assert record["flags"]["odam emitting"] == record["flags"]["method=odam target=x1"] == []
    assert "class head" in record["flags"]["eigencam emitting"]
    alike = record["summary"]["eigencam emitting"]
    assert alike["class head"]["pearson"][0] == pytest.approx(1)
    assert alike["backbone"]["pearson"][0] < 0.9
    # What a target does not read has no part in its map.
    for name, unread in (("odam emitting", "box head"), ("method=odam target=x1", "class head")):
        assert record["summary"][name][unread]["spearman"][0] == pytest.approx(1)
    # Three maps of two boxes: three parts, another box, a random field.
    assert len(record["rows"]) == 3 * 2 * 5
    with Image.open(out / "sanity.jpg") as sheet:
        assert sheet.width > 4 * 120

    part = read_part(open_store(options.output), "sanity")
    assert part is not None
    assert [each.path for each in part.images] == ["sanity.jpg"]
    (finding,) = (each for each in part.findings if each.flag.endswith("on the class head"))
    assert (finding.key, finding.group) == ("a.png", "eigencam emitting")
    assert part.figures["eigencam emitting class head similarity"] == pytest.approx(1)
    cells = dict(zip(part.tables[0].columns, part.tables[0].rows[1], strict=True))
    assert cells["map"] == "eigencam emitting"
    assert "class head" in str(cells["does not change with"])


def test_nothing_to_compare(options: SanityOptions, demo: Explainer) -> None:
    with pytest.raises(NothingToMeasureError, match="no box scores more than 1 in 1 picture"):
        sanity(replace(options, score_threshold=1.0), demo)
    with pytest.raises(RequestError, match="method: got 'nonesuch'"):
        sanity(replace(options, methods=("nonesuch",)), demo)
    Path(options.inputs[0], "a.png").write_bytes(b"no picture")
    with pytest.raises(UsageError, match="nothing to compare: all 1 picture failed") as failed:
        sanity(options, demo)
    assert not isinstance(failed.value, NothingToMeasureError)


def rows(what: str, *pearson: float) -> list[dict[str, Any]]:
    """One picture for every two values."""
    return [
        {"map": "m", "what": what, "picture": str(at // 2), "pearson": each, "spearman": each / 2}
        for at, each in enumerate(pearson)
    ]


def test_means_and_errors_by_hand() -> None:
    found = summarised([*rows("backbone", 0.5, 0.7, 0.9, 1.1), *rows("class head", math.nan)])
    # Pictures' means .6 and 1: as of two values, .2.
    assert found["m"]["backbone"]["pearson"] == pytest.approx((0.8, 0.2))
    assert found["m"]["backbone"]["spearman"] == pytest.approx((0.4, 0.1))
    assert math.isnan(found["m"]["class head"]["pearson"][0])


@pytest.mark.parametrize(
    ("target", "flags"),
    [
        ("class", ["class head", "backbone"]),
        ("probability", ["class head", "backbone"]),
        ("x1", ["box head", "backbone"]),
        ("box_score", ["class head", "box head", "backbone"]),
        ("mask", ["backbone"]),
    ],
)
def test_a_target_asks_about_its_own_parts(target: str, flags: list[str]) -> None:
    high, low = {"pearson": (0.95, 0.0), "spearman": (0.91, 0.0)}, {"pearson": (0.95, 0.0)}
    own = dict.fromkeys(("class head", "box head", "backbone", "random field"), high)
    own["another box"] = {**low, "spearman": (0.9, 0.0)}  # both measures have to say so
    assert flagged(own, target) == flags
    assert flagged({**own, "another box": high}, target) == [*flags, "another box"]


def test_arguments() -> None:
    few = ["sanity", "--archive", "a.mar", "--input", "in", "--output", "out"]
    assert parse(few) == SanityOptions("a.mar", ("in",), "out", maps=("default",))
    more = "--methods odam,eigencam --layers C3 --detections 5 --repeats 2 --target x1 --seed 4"
    assert parse([*few, *more.split()]) == SanityOptions(
        "a.mar",
        ("in",),
        "out",
        methods=("odam", "eigencam"),
        layers=("C3",),
        target="x1",
        detections=5,
        repeats=2,
        seed=4,
    )


def test_a_key_steers_no_terminal(
    options: SanityOptions, demo: Explainer, capsys: pytest.CaptureFixture[str]
) -> None:
    Path(options.inputs[0], "a.png").rename(Path(options.inputs[0], "b.png"))
    Path(options.inputs[0], "\x1b[2J.png").write_bytes(b"no picture")
    with pytest.raises(NothingToMeasureError):
        sanity(replace(options, score_threshold=1.0), demo)
    assert "\x1b" not in capsys.readouterr().err
