"""The report's folder, as it is written."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import pytest

from archives.stores.opening import open_store
from jobs.__main__ import main
from jobs.audit.findings import Finding, Part, write_part
from jobs.page import report
from jobs.page.options import ReportPageOptions
from jobs.page.report import box_link, write_report
from jobs.saved_run import SavedRun
from tests.jobs.page.conftest import HOSTILE, audit, data_of, write_thresholds

MakeRun = Callable[..., SavedRun]
ROOT = Path(__file__).parents[3]


class Tags(HTMLParser):
    """Every tag with its attributes, and the text outside of scripts."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self.text += " "

    def handle_data(self, data: str) -> None:
        self.text += data

    @property
    def words(self) -> str:
        return " ".join(self.text.split())


def page(run: SavedRun, **options: object) -> Tags:
    write_report(run, run.output, ReportPageOptions(**options))  # type: ignore[arg-type]
    return Tags(run.output.read("report/index.html").decode())


def test_it_asks_nothing_of_anybody_and_runs_nothing_of_its_own(make_run: MakeRun) -> None:
    run = make_run(*HOSTILE, "cursed <b>.png")
    finding = Finding(HOSTILE[0], 0, "<i>flag</i>", 0.5, "<img src=x onerror=alert(1)>", "<u>")
    write_part(run.output, Part("own", "A <part>", "</p>", (), (finding,), {"</td><script>": 0.5}))
    found = page(run)
    tags = {tag for tag, _ in found.tags}
    assert not tags & {"img", "u", "b", "style", "iframe", "object"}
    assert [
        tag for tag, values in found.tags if any(name.startswith("on") for name in values)
    ] == []
    assert not any("style" in values for _, values in found.tags)
    scripts = [values for tag, values in found.tags if tag == "script"]
    written = {entry.key.removeprefix("report/") for entry in run.output.entries("report/")}
    assert {values["src"] for values in scripts} <= written
    links = [values.get("href") or "" for tag, values in found.tags if tag in ("a", "link")]
    outside = [link for link in links if not link.startswith("#") and link not in written]
    assert [link for link in outside if not link.startswith(("../", "data:,"))] == []
    for link in outside:
        assert link == "data:," or open_store(run.output.uri).find(link.removeprefix("../"))
    assert "<img src=x onerror=alert(1)>" in found.text
    assert "cursed <b>.png" in found.text
    ids = [values["id"] or "" for _, values in found.tags if "id" in values]
    assert sorted(set(ids)) == sorted(ids)
    assert {link[1:] for link in links if link.startswith("#") and "=" not in link} <= set(ids)


def test_it_says_how_things_are_and_what_was_missed(make_run: MakeRun) -> None:
    run = make_run("a.png", "b.png", "cursed.png")
    audit(run, Finding("a.png", 0, "outside", 0.75, "Half of it is outside."), drift=0.125)
    write_thresholds(run, 0.25, 0.5)
    words = page(run).words
    for each in (
        "Not good enough 1 of 4 boxes looks wrong; 1 of 3 pictures failed; 1 of 1 figure",
        "✕ missed energy 0.250 ≥ 0.5 energy is 0.25, less than 0.5",
        "0.75 a.png, box 0 outside Half of it is outside.",
        "Read why 1 picture failed",
        "a cursed picture",
        "odam 0.500 ± 0.020 x –",
        "drift 0.125",
        "ab" * 32,
    ):
        assert each in words


def test_nothing_audited_nothing_found(make_run: MakeRun) -> None:
    words = page(make_run("black.png")).words
    assert "Look closer No box was found in 1 picture, and no audit has looked" in words
    assert "Gallery No box was found in these pictures." in words
    assert "Point at a box" not in words
    assert "No box was explained, so there is nothing to draw." in words
    assert "Over time" not in words


def test_pictures_that_all_failed(make_run: MakeRun) -> None:
    found = page(make_run("cursed.png"))
    assert "Gallery There is no picture to show: each failed." in found.words
    (form,) = [values for tag, values in found.tags if tag == "form"]
    assert "hidden" in form


def test_every_plot_has_a_name_a_description_and_a_table(make_run: MakeRun) -> None:
    earlier = make_run("a.png", "b.png", output="before")
    run = make_run("a.png", "b.png", "black.png")
    audit(run)
    found = page(run, earlier=(earlier.output.uri,))
    plots = [values for tag, values in found.tags if tag == "svg"]
    names = {values.get("id") for tag, values in found.tags if tag in ("title", "desc")}
    assert len(plots) == 6 + 4
    for values in plots:
        assert values["role"] == "img"
        assert set((values["aria-labelledby"] or "").split()) <= names
    tables = [
        values
        for tag, values in found.tags
        if (values.get("aria-label") or "").startswith("Table: ")
    ]
    assert len(tables) == len(plots) + 1  # and the audit's
    assert "Over time" in found.words
    assert found.words.count("2.00") >= 1  # boxes a picture, of the earlier run


def test_what_is_left_out_is_said(make_run: MakeRun) -> None:
    run = make_run("a.png", "b.png", "c.png", shard_size=2)
    audit(run, Finding("c.png", 0, "outside", 0.5, "."), Finding("a.png", 0, "outside", 0.1, "."))
    found = page(run, gallery=1)
    assert "come first. Here are 1 of 3 pictures; 2 were left out" in found.words
    links = [values.get("href") for tag, values in found.tags if tag == "a"]
    assert box_link("c.png", 0) in links
    assert box_link("a.png", 0) not in links
    assert "a.png, box 0" in found.words


def test_a_report_anew_leaves_nothing_of_the_one_before(make_run: MakeRun) -> None:
    run = make_run("a.png", "b.png", "c.png")
    page(run)
    assert "holds no pictures" in page(run, gallery=1, pictures=False).words
    names = [entry.key for entry in run.output.entries("report/data/")]
    assert names == [f"report/data/{name}.js" for name in ("index-000", "meta", "picture-00000")]
    assert data_of(run, "picture-00000")["jpeg"] is None
    assert b"image/jpeg" not in run.output.read("report/index.html")


@pytest.mark.parametrize(
    ("options", "flag", "pixels"),
    [({}, [], True), ({"pictures": False}, [], False), ({}, ["--no-report-pictures"], False)],
)
def test_the_command_follows_the_run(
    options: dict[str, bool],
    flag: list[str],
    pixels: bool,
    make_run: MakeRun,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run = make_run("a.png", **options)
    ended = run.record["times"]["finished"]
    place = f"{run.output.uri}/report/index.html"
    assert main(["report", run.output.uri, *flag]) == 0
    assert capsys.readouterr().out.endswith(f"  report       {place}\n")
    assert Path(place).is_file()
    assert (data_of(run, "picture-00000")["jpeg"] is not None) is pixels
    assert SavedRun.open(run.output.uri).record["times"]["finished"] == ended


def test_earlier_runs_that_are_none_are_left_out_and_named(
    make_run: MakeRun, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    run, before = make_run("a.png"), make_run("a.png", output="before")
    gone = [str(tmp_path / name) for name in ("gone", "<b>\u202e")]
    assert main(["report", run.output.uri, "--earlier", gone[0], before.output.uri, gone[1]]) == 0
    said = capsys.readouterr().err
    assert f"jobs: {gone[0]} is left out of the figures over time: there is no run at" in said
    assert f"{tmp_path}/<b>\\u202e is left out" in said
    html = Tags(run.output.read("report/index.html").decode())
    assert "Over time 2 earlier runs could not be read and are left out:" in html.words
    assert f"{gone[0]}: there is no run at" in html.words
    assert "the last is 2.00, the one before 2.00" in html.words


def test_the_package_brings_its_assets() -> None:
    data = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"][
        "package-data"
    ]
    assert data["jobs.page"] == ["assets/*", "templates/*"]
    scripts = {each.name for each in report._ASSETS.iterdir() if each.name.endswith(".js")}
    html = (ROOT / "jobs/page/templates/index.html").read_text()
    names = re.search(r"for name in \((.*?)\)", html)
    assert names
    assert {f"{name}.js" for name in re.findall(r'"(\w+)"', names[1])} == scripts


@pytest.mark.parametrize("name", ["heat.js", "shared.css"])
def test_the_endpoints_page_has_the_same(name: str) -> None:
    """By a link; or, where an archive or a copy holds no links, by a file that is no other."""
    shared = ROOT / "jobs/page/assets" / name
    assert (ROOT / "docs/page" / name).read_bytes() == shared.read_bytes()
