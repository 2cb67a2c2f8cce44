"""The page, driven in Chromium as a person would, against the real TorchServe."""

from __future__ import annotations

import base64
import io
import json
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import requests
import torch
from numpy.typing import NDArray
from PIL import Image
from playwright.sync_api import Browser, Page, Route, expect
from torch import Tensor
from torchvision.ops import box_iou

from archives.__main__ import main
from archives.serving.page import FOLDER
from archives.serving.server import Server
from archives.serving.server_config import HOST
from handlers.explainer import Explainer, ExplainRequest
from handlers.images import decode_picture, to_image
from handlers.render import overlay
from handlers.schema import Explanation
from tests.conftest import scene_picture

pytestmark = pytest.mark.server
PATIENCE = 30_000  # ms, on a machine that is busy
expect.set_options(timeout=PATIENCE)

DISK = FOLDER.joinpath("index.html").as_uri()
UPRIGHT, TURNED = 1, 6
OUTLINE = 3  # pixels, of a box in a rendering


def encoded(picture: Tensor, orientation: int = UPRIGHT) -> bytes:
    """A PNG; of a picture that a camera stored on its side a JPEG, with a note to turn it."""
    buffer, exif = io.BytesIO(), Image.Exif()
    if orientation == UPRIGHT:
        to_image(picture).save(buffer, "PNG")
    else:
        exif[0x0112] = orientation
        lying = to_image(picture.rot90(1, (1, 2)))
        lying.save(buffer, "JPEG", quality=98, subsampling=0, exif=exif)
    return buffer.getvalue()


# Not square, so that lying and upright differ.
PICTURE = scene_picture(0)[:, :250]


@pytest.fixture(scope="module")
def address(endpoint: Server) -> Iterator[str]:
    """Of the page: its own server, which also lets a page ask that is opened from disk."""
    command = [sys.executable, "-m", "archives", "page", "--folder", str(endpoint.folder)]
    command += ["--port", "0", "--allow-origin", "null"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert str(endpoint.header_file("inference")) in line
        yield line.split()[1].rstrip(";")
        process.terminate()


@dataclass
class Person:
    """Who uses the page; `asked` are the addresses that it turned to."""

    page: Page
    token: str
    asked: list[str]

    def connect(self, address: str, token: str | None = None, says: str = "demo 1.0 at") -> None:
        self.page.get_by_label("Address").fill(address)
        self.page.get_by_label("Token").fill(self.token if token is None else token)
        self.page.get_by_role("button", name="Connect").click()
        expect(self.page.get_by_text(says)).to_be_visible()

    def choose(self, data: bytes) -> None:
        file: Any = {"name": "picture", "mimeType": "image/*", "buffer": data}
        self.page.get_by_label("or drop or paste it").set_input_files(file)

    def drop(self, data: bytes) -> None:
        transfer = self.page.evaluate_handle(
            """bytes => {
                const transfer = new DataTransfer();
                transfer.items.add(new File([new Uint8Array(bytes)], "picture"));
                return transfer;
            }""",
            list(data),
        )
        self.page.dispatch_event("body", "drop", {"dataTransfer": transfer})

    def explain(self, **fields: str) -> None:
        for label, value in fields.items():
            control = self.page.get_by_label(label.replace("_", " "))
            if value == "on":
                control.check()
            elif label in ("Method", "Target", "Layer"):
                control.select_option(value)
            else:
                control.fill(value)
        self.page.get_by_role("button", name="Explain").click()

    @property
    def rows(self) -> Any:
        return self.page.get_by_role("listitem").get_by_role("button")

    def drawn(self, canvas: str) -> NDArray[np.float64]:
        url = self.page.locator(canvas).evaluate("canvas => canvas.toDataURL()")
        data = base64.b64decode(url.partition(",")[2])
        return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"), dtype=float)


@pytest.fixture
def person(browser: Browser, address: str, endpoint: Server) -> Iterator[Person]:
    with browser.new_context() as context:
        page = context.new_page()
        page.set_default_timeout(PATIENCE)
        asked: list[str] = []
        page.on("request", lambda request: asked.append(request.url))
        page.goto(address)
        yield Person(page, endpoint.inference_token, asked)


def off_the_outline(explanation: Explanation, shape: tuple[int, ...]) -> NDArray[np.bool_]:
    """Pixels that the box's outline leaves alone."""
    x1, y1, x2, y2 = (round(edge) for edge in explanation.box)
    seen = np.ones(shape[:2], dtype=bool)
    seen[max(0, y1 - OUTLINE) : y2 + OUTLINE, max(0, x1 - OUTLINE) : x2 + OUTLINE] = False
    seen[y1 + OUTLINE : y2 - OUTLINE, x1 + OUTLINE : x2 - OUTLINE] = True
    return seen


def assert_rendered(person: Person, picture: Tensor, explanation: Explanation, most: int) -> None:
    shown = person.drawn("#heat")
    rendered = np.asarray(overlay(picture, explanation, labels=False), dtype=float)
    assert shown.shape == rendered.shape
    differences = np.abs(shown - rendered)[off_the_outline(explanation, shown.shape)]
    assert differences.max() <= most
    assert differences.mean() < 1
    assert np.abs(shown - person.drawn("#base")).mean() > 5


@pytest.mark.parametrize(
    ("fields", "request_", "orientation", "disk"),
    [
        ({}, None, UPRIGHT, True),
        (
            {"Method": "gradcam", "Heat_only_inside_the_box": "on"},
            ExplainRequest("gradcam", normalize_in_box=True),
            UPRIGHT,
            False,
        ),
        (
            {"Target": "x1", "Method": "hirescam", "Layer": "roi", "Most_boxes": "3"},
            ExplainRequest("hirescam", "x1", "roi", max_detections=3),
            TURNED,
            False,
        ),
    ],
    ids=["from-disk", "inside-the-box", "turned"],
)
def test_boxes_and_heatmaps_are_the_endpoints(
    person: Person,
    address: str,
    demo: Explainer,
    fields: dict[str, str],
    request_: ExplainRequest | None,
    orientation: int,
    disk: bool,
) -> None:
    if disk:
        person.page.goto(DISK)
    data = encoded(PICTURE, orientation)
    picture = decode_picture(data)
    person.connect(address, f"Authorization: Bearer {person.token}\n")
    person.choose(data)
    person.explain(**fields)
    expected = demo.explain([picture], request_)[0]
    expect(person.rows).to_have_count(len(expected))
    assert len(expected) > 1
    for place, explanation in enumerate(expected[:3]):
        if place == 0:
            person.rows.first.hover()
        elif place == 1:
            person.page.mouse.move(0, 0)
            person.page.keyboard.press("Tab")  # from the button Explain to the boxes
            person.page.keyboard.press("ArrowRight")
        else:
            # By its corner: in its middle there may be a smaller one.
            person.page.locator(".box").nth(place).hover(position={"x": 1, "y": 1})
        name = f"{explanation.category} {np.floor(explanation.score * 100) / 100:.2f}"
        heat = person.page.get_by_role("img", name=f"The heatmap of {name}")
        expect(heat).to_be_visible()
        assert_rendered(person, picture, explanation, 6 if orientation == UPRIGHT else 16)
    person.page.get_by_label("Heat", exact=True).fill("40")
    assert heat.evaluate("canvas => getComputedStyle(canvas).opacity") == "0.4"
    ours = (address, DISK.rpartition("/")[0], "data:,")
    assert all(url.startswith(ours) for url in person.asked)
    kept = person.page.evaluate("[document.documentElement.outerHTML, location.href]")
    kept += [json.dumps(person.page.context.storage_state()), *person.asked]
    assert not any(person.token in text for text in kept)


# The page does not ask for it, but a model's defaults may.
SUM_BOXES = """() => {
    const own = request;
    window.request = () => {
        const form = own();
        form.set("sum_boxes", "true");
        return form;
    };
}"""


@pytest.mark.parametrize("old", [False, True], ids=["boxes", "without-boxes"])
def test_boxes_together_have_their_heat_inside_each(
    person: Person, address: str, demo: Explainer, old: bool
) -> None:
    """An old server's answer does not list the boxes: one box around all is all that is known."""

    def without_boxes(route: Route) -> None:
        answer = route.fetch()
        body = answer.json()
        del body["explanations"][0]["boxes"]
        route.fulfill(response=answer, json=body)

    if old:
        person.page.route("**/explanations/**", without_boxes)
    person.page.evaluate(SUM_BOXES)
    person.connect(address)
    person.choose(encoded(PICTURE))
    person.explain(Method="gradcam", Heat_only_inside_the_box="on")
    asked = ExplainRequest("gradcam", sum_boxes=True, normalize_in_box=True)
    (expected,) = demo.explain([PICTURE], asked)[0]
    boxes = torch.tensor(expected.boxes)
    assert box_iou(boxes, boxes).triu(1).max() > 0.5
    person.rows.first.hover()
    heat = person.page.get_by_role("img", name=f"The heatmap of {len(boxes)} boxes together")
    expect(heat).to_be_visible()
    assert_rendered(person, PICTURE, replace(expected, boxes=()) if old else expected, 6)


def test_a_wrong_token_is_said_beside_its_field(person: Person, address: str) -> None:
    person.connect(address, "wr0ng-t0ken", says="does not take this token")
    token = person.page.get_by_label("Token")
    expect(token).to_have_attribute("aria-invalid", "true")
    expect(token).to_be_focused()
    assert "wr0ng" not in person.page.content() + person.page.url
    person.connect(f"{address}/elsewhere", says="404")
    person.connect(address)
    expect(person.page.get_by_role("alert")).to_be_hidden()


def test_an_error_of_the_endpoint_names_its_field(person: Person, address: str) -> None:
    person.connect(address)
    person.choose(encoded(PICTURE))
    person.page.get_by_label("Layer").select_option("a module by its name …")
    person.explain(Name_of_the_module="nowhere")
    alert = person.page.get_by_role("alert")
    expect(alert).to_contain_text("layer: got 'nowhere'")
    expect(person.page.get_by_label("Name of the module")).to_have_attribute("aria-invalid", "true")
    person.explain(Name_of_the_module="backbone.body.block3", Least_score="0.9")
    expect(person.rows).not_to_have_count(0)
    expect(alert).to_be_hidden()
    person.choose(b"no picture")
    expect(alert).to_contain_text("cannot show picture")
    expect(person.rows).to_have_count(0)


def test_what_was_left_out_is_said(person: Person, address: str) -> None:
    def shortened(route: Route) -> None:
        answer = route.fetch()
        body = answer.json()
        body["explanations"][-1]["heatmap"] = None
        route.fulfill(response=answer, json=body | {"omitted_heatmaps": 1, "trimmed": {"masks": 7}})

    person.page.route("**/explanations/**", shortened)
    person.connect(address)
    person.choose(encoded(PICTURE))
    person.explain()
    expect(person.page.get_by_text("The weakest box has no heatmap")).to_be_visible()
    expect(person.page.get_by_text("There was time for masks = 7 only.")).to_be_visible()
    person.rows.last.hover()
    expect(person.page.get_by_text("its heatmap was left out of the answer")).to_be_visible()


def test_a_new_request_cancels_the_one_before(person: Person, address: str) -> None:
    failed: list[str] = []
    person.page.on("requestfailed", lambda request: failed.append(str(request.failure)))
    person.page.route("**/explanations/**", lambda route: None, times=1)  # never answered
    person.connect(address)
    person.drop(encoded(PICTURE))
    person.explain()
    result = person.page.get_by_label("Result")
    expect(result).to_have_attribute("aria-busy", "true")
    person.explain(Most_boxes="1")
    expect(person.rows).to_have_count(1)
    expect(result).to_have_attribute("aria-busy", "false")
    assert failed == ["net::ERR_ABORTED"]


def test_the_browser_asks_no_server_that_does_not_allow_it(
    person: Person, endpoint: Server
) -> None:
    person.connect(endpoint.inference_url, says="python -m archives page")
    expect(person.page.get_by_text("not connected")).to_be_visible()
    # What the page's own server is there for: a preflight has no token, and TorchServe wants one.
    preflight = requests.options(f"{endpoint.inference_url}/explanations/demo", timeout=60)
    assert (preflight.status_code, preflight.json()["type"]) == (400, "InvalidKeyException")


@pytest.mark.parametrize(
    ("method", "path", "origin", "status", "allowed"),
    [
        ("GET", "/", "null", 200, "null"),
        ("GET", "/", "http://127.0.0.1:3000", 200, None),
        ("OPTIONS", "/explanations/demo", "null", 204, "null"),
        ("OPTIONS", "/explanations/demo", "http://127.0.0.1:3000", 204, None),
        ("POST", "/explanations/demo", "null", 400, "null"),
        ("GET", "/config.properties", "null", 404, "null"),
        ("GET", "/../config.properties", "null", 404, "null"),
        ("POST", "/models", "null", 404, "null"),
    ],
)
def test_page_server_hands_on_what_it_should(
    address: str, method: str, path: str, origin: str, status: int, allowed: str | None
) -> None:
    answer = requests.request(method, address + path, headers={"Origin": origin}, timeout=60)
    assert answer.status_code == status
    assert answer.headers.get("Access-Control-Allow-Origin") == allowed


def test_page_without_a_server_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["page", "--folder", str(tmp_path)]) == 1
    assert "make serve" in capsys.readouterr().err


LONG = f"POST /predictions/demo HTTP/1.1\r\nHost: localhost:1\r\nContent-Length: {'9' * 5000}"


@pytest.mark.parametrize(
    ("head", "status"),
    [
        ("POST /nothing HTTP/1.1\r\nHost: 127.0.0.1:1\r\nContent-Length: 16", 404),
        ("GET / HTTP/1.1\r\nHost: elsewhere.example:80\r\nContent-Length: 16", 403),
        ("POST /predictions/demo HTTP/1.1\r\nHost: localhost:1\r\nTransfer-Encoding: chunked", 411),
        (LONG, 413),
        ("GET /\xe4 HTTP/1.1\r\nHost: localhost:1", 400),
    ],
)
def test_no_body_is_taken_for_a_request(address: str, head: str, status: int) -> None:
    with socket.create_connection((HOST, int(address.rpartition(":")[2])), timeout=20) as client:
        client.sendall(f"{head}\r\n\r\nGET /page.js H/1\r\n".encode("latin-1"))
        client.shutdown(socket.SHUT_WR)
        answer = b"".join(iter(lambda: client.recv(65536), b""))
    assert answer.startswith(f"HTTP/1.1 {status} ".encode())
    assert answer.count(b"HTTP/1.1 ") == 1
