"""Pictures that parts of an audit drew, in the report."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from zlib import crc32

import pytest

from archives.errors import ConflictError
from jobs.audit.findings import Image, Part, write_part
from jobs.page.options import ReportPageOptions
from jobs.page.report import write_report
from jobs.saved_run import SavedRun
from tests.jobs.conftest import picture_bytes
from tests.jobs.page.test_report import Tags, page

SHEET = "shortcuts/cat%2C-right.jpg"


@pytest.fixture
def drawn(make_run: Callable[..., SavedRun]) -> SavedRun:
    """A part with three images: one there, one gone, one no picture."""
    run = make_run("a.png")
    images = tuple(Image(path, f"Of {path}", '<b>"how"</b>') for path in (SHEET, "gone", "broken"))
    write_part(run.output, Part("shortcuts", "Cheating?", "", images=images))
    run.output.write(SHEET, picture_bytes(30, 20))
    run.output.write("broken", b"no picture")
    return run


def test_images_are_copied_shown_and_named(
    drawn: SavedRun, capsys: pytest.CaptureFixture[str]
) -> None:
    found = page(drawn)
    (shown,) = [values for tag, values in found.tags if tag == "img"]
    assert shown["src"] == "images/shortcuts-0.jpg"
    assert (shown["width"], shown["height"], shown["alt"]) == ("30", "20", f"Of {SHEET}")
    assert ("a", {"href": "images/shortcuts-0.jpg"}) in found.tags
    assert '<b>"how"</b> A click opens all of it.' in found.words
    assert drawn.output.read("report/images/shortcuts-0.jpg") == drawn.output.read(SHEET)
    said = capsys.readouterr().err.splitlines()
    assert [line.partition(": the report shows no ")[2].partition(":")[0] for line in said] == [
        *("gone", "broken")
    ]


def test_a_report_without_pictures_has_none_of_them(drawn: SavedRun) -> None:
    page(drawn)
    found = page(drawn, pictures=False)
    assert not [tag for tag, _ in found.tags if tag == "img"]
    assert not any("images/" in str(values) for _, values in found.tags)
    assert not [entry for entry in drawn.output.entries("report/") if "images/" in entry.key]


def test_parts_of_older_versions_have_none(drawn: SavedRun) -> None:
    summary = drawn.output.read("audit/shortcuts.json")
    older = summary.replace(b'"images"', b'"other"')
    assert older != summary
    drawn.output.write("audit/shortcuts.json", older)
    write_report(drawn, drawn.output, ReportPageOptions())
    html = Tags(drawn.output.read("report/index.html").decode())
    assert not [tag for tag, _ in html.tags if tag == "img"]


def test_nothing_is_copied_from_beside_the_output(drawn: SavedRun) -> None:
    secret = Path(drawn.output.uri).parent / "secret.png"
    secret.write_bytes(picture_bytes(7, 7))
    write_part(drawn.output, Part("own", "", "", images=(Image("../secret.png", "", ""),)))
    with suppress(ConflictError):  # to refuse such a part would do, too
        page(drawn)
    assert drawn.output.find("report/images/own-0.jpg") is None


def test_nothing_is_written_beside_the_output(drawn: SavedRun) -> None:
    summary = json.loads(drawn.output.read("audit/shortcuts.json"))
    summary["name"] = "../../../written"
    drawn.output.write("audit/shortcuts.json", json.dumps(summary).encode())
    output = Path(drawn.output.uri)
    (output / "report/images").mkdir(parents=True)
    before = sorted(output.parent.iterdir())
    with suppress(ConflictError):  # likewise
        page(drawn)
    assert sorted(output.parent.iterdir()) == before


def test_an_image_too_large_to_be_one_does_not_cost_the_page(drawn: SavedRun) -> None:
    head = b"IHDR" + struct.pack(">IIBBBBB", 30000, 30000, 8, 2, 0, 0, 0)
    png = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + head + struct.pack(">I", crc32(head))
    drawn.output.write(SHEET, png + struct.pack(">I", 0) + b"IDAT")
    assert not [tag for tag, _ in page(drawn).tags if tag == "img"]


def test_an_image_that_is_gone_steers_no_terminal(
    drawn: SavedRun, capsys: pytest.CaptureFixture[str]
) -> None:
    write_part(drawn.output, Part("own", "", "", images=(Image("\x1b[2Jgone", "", ""),)))
    page(drawn)
    assert "\x1b" not in capsys.readouterr().err
