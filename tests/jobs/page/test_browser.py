"""The report in Chromium, as a person would use it: from disk, by hand and by keyboard."""

from __future__ import annotations

import base64
import functools
import io
import re
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import quote

import numpy as np
import pytest
from axe_playwright_python.sync_playwright import Axe
from numpy.typing import NDArray
from PIL import Image
from playwright.sync_api import Browser, Page, expect

from handlers.explainer import Explainer
from handlers.images import decode_picture, to_image
from handlers.render import encode_jpeg, overlay
from jobs.audit.findings import Finding, Part, write_part
from jobs.audit.findings import Image as AuditImage
from jobs.page.options import ReportPageOptions
from jobs.page.report import box_link, write_report
from jobs.saved_run import SavedRun
from tests.benchmarks.report_page import MOST_SECONDS, measured, run_of_many
from tests.conftest import put, scene_picture
from tests.jobs.conftest import Job, picture_bytes
from tests.jobs.page.conftest import HOSTILE, audit, write_thresholds

PATIENCE = 30_000  # ms, on a machine that is busy
expect.set_options(timeout=PATIENCE)
MakeRun = Callable[..., SavedRun]
# axe's rules of WCAG 2.2, A and AA, and its best practices.
RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]


@dataclass
class Person:
    """Who looks at a report. wrong: what the browser complained of; asked: what it loaded."""

    page: Page
    wrong: list[str] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)

    def opens(self, run: SavedRun, address: str = "", **options: object) -> None:
        write_report(run, run.output, ReportPageOptions(**options))  # type: ignore[arg-type]
        self.goes(Path(run.output.uri, "report/index.html").as_uri() + address)

    def goes(self, address: str) -> None:
        self.page.goto("about:blank")
        self.page.goto(address)
        self.page.wait_for_selector("html[data-ready]")

    @property
    def cards(self) -> list[str]:
        return self.page.locator(".card h3").all_inner_texts()

    def hits(self, text: str) -> None:
        expect(self.page.locator("#hits")).to_have_text(text)


@pytest.fixture
def person(browser: Browser) -> Iterator[Person]:
    with browser.new_context(viewport={"width": 1200, "height": 900}) as context:
        page = context.new_page()
        page.set_default_timeout(PATIENCE)
        found = Person(page)
        page.on("console", lambda message: found.wrong.append(message.text))
        page.on("pageerror", lambda error: found.wrong.append(str(error)))
        page.on("request", lambda request: found.asked.append(request.url))
        yield found
        assert found.wrong == []


@pytest.fixture
def audited(make_run: MakeRun) -> SavedRun:
    """Of pictures a to f; d's dog is the worst, b as a whole comes next, then a's cat."""
    names = [f"{letter}.png" for letter in "abcdef"]
    run = make_run(*names, "black.png", request={"layer": "emitting,C3"})
    findings = (
        Finding("d.png", 2, "outside", 0.9, "Most of it is outside.", "cluster 1"),
        Finding("a.png", 0, "outside", 0.3, "Some of it is outside."),
        Finding("b.png", None, "missed object", 0.5, "A dog was not seen."),
    )
    audit(run, *findings, drift=0.5)
    write_thresholds(run, 0.5, 0.3)
    return run


def test_filters_say_what_they_found_and_stay_in_the_address(
    person: Person, audited: SavedRun
) -> None:
    person.opens(audited)
    person.hits("7 pictures with 12 boxes.")
    assert person.cards[:3] == ["d.png", "b.png", "a.png"]
    page = person.page
    page.get_by_label("Finding", exact=True).select_option("outside")
    person.hits("2 pictures of 7 with 2 boxes.")
    page.get_by_label("Category", exact=True).select_option("cat")
    person.hits("1 picture of 7 with 1 box.")
    page.get_by_role("button", name="Clear filters").click()
    page.get_by_label("Greatest score").fill("0.6")
    person.hits("6 pictures of 7 with 6 boxes.")
    page.get_by_label("Key contains").fill("C.P")
    person.hits("1 picture of 7 with 1 box.")
    address = page.url
    assert "high=0.6" in address
    person.goes(address)
    person.hits("1 picture of 7 with 1 box.")
    expect(page.get_by_label("Greatest score")).to_have_value("0.6")
    page.get_by_role("button", name="Clear filters").click()
    page.get_by_label("Finding", exact=True).select_option("missed object")
    person.hits("1 picture of 7 with 2 boxes.")
    page.get_by_label("Group", exact=True).select_option("cluster 1")
    person.hits("No picture is like that.")
    page.get_by_role("button", name="Clear filters").click()
    page.get_by_label("Order").select_option("key")
    assert person.cards[0] == "a.png"
    page.get_by_label("Method, target, layer").select_option("odam · class · C3")
    person.hits("6 pictures of 7 with 12 boxes.")
    page.get_by_role("link", name="Look at 2 findings: outside").click()
    person.hits("2 pictures of 7 with 2 boxes.")


def test_by_keyboard_alone(person: Person, audited: SavedRun) -> None:
    person.opens(audited)
    page = person.page
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to the gallery")).to_be_focused()
    page.keyboard.press("Enter")
    page.locator("#order").focus()
    for _ in range(2):  # the box that shows heatmaps at once, the first card
        page.keyboard.press("Tab")
    first = page.get_by_role("button", name="dog 0.50, energy in the box 0.", exact=False).first
    expect(first).to_be_focused()
    assert "flagged: outside" in (first.get_attribute("aria-label") or "")
    expect(page.get_by_role("img", name="The heatmap of dog 0.50")).to_be_visible()
    page.keyboard.press("ArrowRight")
    focused = page.locator(":focus")
    assert (focused.get_attribute("aria-label") or "").startswith("cat 0.75")
    page.keyboard.press("ArrowRight")  # to the next card
    assert focused.locator("xpath=ancestor::li").locator("h3").inner_text() == "b.png"
    page.keyboard.press("ArrowDown")
    assert focused.locator("xpath=ancestor::li").locator("h3").inner_text() == person.cards[4]
    page.keyboard.press("Home")
    page.keyboard.press("Enter")
    dialog = page.get_by_role("dialog", name="d.png")
    expect(dialog).to_be_visible()
    chosen = dialog.get_by_role("button", pressed=True)
    chosen.focus()
    page.keyboard.press("ArrowDown")
    expect(chosen).to_be_focused()
    page.keyboard.press("ArrowRight")
    expect(page.get_by_role("dialog", name="b.png")).to_contain_text("A dog was not seen.")
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_be_hidden()
    expect(page.locator(".card").first.locator(".box:focus")).to_have_count(1)
    page.keyboard.press("Tab")  # one stop for each card
    assert focused.locator("xpath=ancestor::li").locator("h3").inner_text() == "b.png"


def test_deep_links_open_the_box(person: Person, audited: SavedRun) -> None:
    person.opens(audited, box_link("d.png", 2))
    dialog = person.page.get_by_role("dialog", name="d.png")
    expect(dialog).to_contain_text(
        "Most of it is outside. The triage, severity 0.90, group cluster 1"
    )
    expect(dialog.get_by_role("button", pressed=True).first).to_contain_text("dog")
    table = dialog.get_by_role("link", name="shards/00001/detections.parquet")
    place = Path(audited.output.uri, "report", table.get_attribute("href") or "")
    assert place.resolve() == Path(audited.output.uri, "shards/00001/detections.parquet")
    dialog.get_by_role("button", name="Close").click()
    expect(person.page).not_to_have_url(re.compile("picture"))  # it changes a moment later
    person.page.get_by_role("link", name="a.png, box 0").click()
    expect(person.page.get_by_role("dialog", name="a.png")).to_be_visible()


def test_names_do_no_harm_and_can_be_copied(person: Person, make_run: MakeRun) -> None:
    run = make_run(*HOSTILE)
    audit(run, *(Finding(key, 0, "<b>flag</b>", 0.5, "</script><i>x") for key in HOSTILE))
    person.opens(run)
    person.page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    title = person.page.title()
    for key in HOSTILE:
        person.goes(person.page.url.partition("#")[0] + box_link(key, 2))
        expect(person.page.get_by_role("dialog")).to_be_visible()
        person.page.get_by_role("button", name="Copy the key").click()
        expect(person.page.locator("#copied")).to_have_text("Copied.")
        assert person.page.evaluate("navigator.clipboard.readText()") == key
    assert person.page.title() == title
    assert person.page.locator("main i, main b").count() == 0
    assert person.wrong == []
    person.goes(person.page.url.partition("#")[0] + "#order=__proto__&page=-3&low=x")
    person.hits("3 pictures with 6 boxes.")


def pixels(page: Page, canvas: str) -> NDArray[np.float64]:
    url = page.locator(canvas).evaluate("canvas => canvas.toDataURL()")
    data = base64.b64decode(url.partition(",")[2])
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"), dtype=float)


@pytest.mark.parametrize("together", [False, True], ids=["each", "together"])
def test_heatmaps_are_drawn_as_pictures_draw_them(
    person: Person, demo: Explainer, make_job: Callable[..., Job], tmp_path: Path, together: bool
) -> None:
    """Together the boxes, some of which overlap, have their heat inside each alone."""
    picture = scene_picture(0)
    buffer = io.BytesIO()
    to_image(picture).save(buffer, "PNG")
    put(str(tmp_path / "in"), {"scene.png": buffer.getvalue()})
    request = {"sum_boxes": together, "normalize_in_box": together}
    job = make_job(str(tmp_path / "in"), overlays="none", request=request)
    job.explainer = demo  # type: ignore[assignment]
    job.run()
    run = SavedRun.open(job.output)
    person.opens(run)
    (saved,) = run.pictures()
    # As it is in the report.
    seen = decode_picture(encode_jpeg(to_image(picture), 80))
    for row in saved.rows[:3]:
        person.goes(person.page.url.partition("#")[0] + box_link("scene.png", row["index"]))
        heat = person.page.locator("#large-stage .heat")
        expect(heat).to_be_visible()
        shown = pixels(person.page, "#large-stage .heat")
        explanation = replace(saved.explanation(row), in_box=together)
        assert len(explanation.boxes) == (9 if together else 0)
        drawn = np.asarray(overlay(seen, explanation, labels=False), dtype=float)
        assert shown.shape == drawn.shape
        x1, y1, x2, y2 = (round(row[name]) for name in ("x1", "y1", "x2", "y2"))
        off = np.ones(shown.shape[:2], dtype=bool)
        off[max(0, y1 - 3) : y2 + 3, max(0, x1 - 3) : x2 + 3] = False
        off[y1 + 3 : y2 - 3, x1 + 3 : x2 - 3] = True
        assert np.abs(shown - drawn)[off].mean() < 1
    person.opens(run, box_link("scene.png", saved.rows[0]["index"]), pictures=False)
    expect(person.page.locator("#large-stage .heat")).to_be_visible()
    blank = pixels(person.page, "#large-stage .heat")
    assert np.abs(blank - blank[..., :1])[0].max() < 90  # grey, where there is no heat
    expect(person.page.get_by_text("This report holds no pictures")).to_be_visible()


def test_pictures_of_the_audit_are_seen_from_disk(person: Person, make_run: MakeRun) -> None:
    run = make_run("a.png")
    run.output.write("sheet.jpg", picture_bytes(30, 20))
    image = AuditImage("sheet.jpg", "Maps of one box", "What they are.")
    write_part(run.output, Part("own", "Own", "", images=(image,)))
    person.opens(run)
    seen = person.page.get_by_role("img", name="Maps of one box")
    seen.scroll_into_view_if_needed()
    expect(seen).to_have_js_property("naturalWidth", 30)
    seen.click()
    expect(person.page).to_have_url(re.compile(r"/report/images/own-0\.jpg$"))


def test_axe_finds_nothing_wrong(person: Person, audited: SavedRun) -> None:
    audited.output.write("sheet.jpg", picture_bytes(30, 20))
    image = AuditImage("sheet.jpg", "Maps of one box", "What they are.")
    write_part(audited.output, Part("own", "Own", "", images=(image,)))
    audit(audited, name="changes")
    person.opens(audited, earlier=(audited.output.uri, "gone"))
    person.page.wait_for_load_state("networkidle")
    contrast = ["color-contrast"]
    for place, dark, rules in (
        ("", False, RULES),
        ("", True, contrast),
        (box_link("d.png", 2), True, contrast),
        (box_link("d.png", 2), False, RULES),
    ):
        person.page.emulate_media(color_scheme="dark" if dark else "light")
        if place:
            person.goes(person.page.url.partition("#")[0] + place)
        found = Axe().run(person.page, options={"runOnly": rules})
        assert found.violations_count == 0, found.generate_report()
        person.wrong.clear()  # axe reads style sheets, which the page may not


def test_the_store_serves_it_and_parts_come_when_they_are_seen(
    person: Person, make_run: MakeRun
) -> None:
    """By relative addresses alone, below any prefix; no more of the page than is looked at."""
    run = make_run(*(f"{number:03d}.png" for number in range(60)), shard_size=20)
    write_report(run, run.output, ReportPageOptions())
    folder = Path(run.output.uri).parent
    handler = functools.partial(_Quiet, directory=str(folder))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}/"
        person.goes(f"{address}{quote(Path(run.output.uri).name)}/report/index.html")
        assert all(url.startswith((address, "data:", "about:")) for url in person.asked)
        person.hits("60 pictures with 120 boxes; these are 1 to 24.")
        assert len(person.cards) == 24
        nodes = person.page.locator("*").count()
        loaded = [url for url in person.asked if "data/picture-" in url]
        assert len(loaded) <= 24
        person.page.get_by_role("button", name="Next page").click()
        person.hits("60 pictures with 120 boxes; these are 25 to 48.")
        person.page.get_by_role("button", name="Next page").click()
        assert len(person.cards) == 12
        assert person.page.locator("*").count() <= nodes
        server.shutdown()


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *arguments: object) -> None:
        pass


@pytest.mark.parametrize("width", [320, 1440])
def test_nothing_is_wider_than_the_window(person: Person, audited: SavedRun, width: int) -> None:
    person.page.set_viewport_size({"width": width, "height": 700})
    person.opens(audited, earlier=(audited.output.uri,))
    assert person.page.evaluate("document.documentElement.scrollWidth") <= width


@pytest.mark.full
def test_ten_thousand_boxes_are_there_in_two_seconds(browser: Browser, tmp_path: Path) -> None:
    run = run_of_many(tmp_path, pictures=500, boxes=20)
    write_report(run, run.output, ReportPageOptions())
    found = measured(browser, Path(run.output.uri, "report/index.html").as_uri())
    assert found.boxes == 10_000
    assert max(found.first_card, found.interactive) < MOST_SECONDS
