"""What the real server writes and counts: logs, metrics, readiness."""

from __future__ import annotations

import json
import re
import socket
import time
from pathlib import Path
from typing import Any

import pytest
import requests

from archives.__main__ import main
from archives.serving.server import Server
from handlers.endpoint.caller import token_id
from handlers.explainer import Explainer
from tests.test_endpoint import BASE64, PICTURE, PNG, post, post_to

pytestmark = pytest.mark.server


def logged(endpoint: Server, request_id: str) -> dict[str, Any]:
    """The request log's line; the server may be about to write it."""
    for _ in range(50):
        for text in endpoint.request_log.read_text().splitlines():
            line: dict[str, Any] = json.loads(text)
            if line.get("request_id") == request_id:
                return line
        time.sleep(0.1)
    raise AssertionError(f"{request_id} is not in {endpoint.request_log}")


def test_the_log_says_who_asked_for_what(endpoint: Server, demo: Explainer) -> None:
    headers = {"X-Request-Id": "order-17", "X-Whybox-Client": "anna", "X-Other": "x"}
    answer = post(endpoint, "explanations", data=PNG, headers=headers)
    line = logged(endpoint, answer.headers["x-request-id"])
    assert demo.manifest is not None
    assert (line["model"], line["version"]) == ("demo", "1.0")
    assert line["digest"] == demo.manifest.digest
    assert (line["correlation_id"], line["client"]) == ("order-17", "anna")
    assert line["token"] == token_id(endpoint.inference_token)
    assert (line["verb"], line["status"], line["bytes"]) == ("explain", 200, len(answer.content))
    (picture,) = line["pictures"]
    assert picture["explanations"] == len(answer.json()["explanations"])
    assert (picture["height"], picture["width"]) == PICTURE.shape[1:]
    assert sorted(picture["seconds"]) == ["decode", "detect", "encode", "explain"]
    assert sum(picture["seconds"].values()) <= line["seconds"] < 60


def counted(endpoint: Server) -> dict[str, float]:
    """Our metrics as Prometheus would read them: name and labels, and value."""
    with requests.Session() as session:
        session.trust_env = False
        text = session.get(f"{endpoint.metrics_url}/metrics", timeout=10).text
    lines = [line for line in text.splitlines() if line.startswith("whybox_")]
    return {name: float(value) for name, value in (line.rsplit(" ", 1) for line in lines)}


HOST = socket.gethostname()
BATCHES = f'whybox_batch_requests_count{{model="demo",version="1.0",Hostname="{HOST}",}}'


def test_metrics_count_what_was_answered(endpoint: Server) -> None:
    before = counted(endpoint)
    body = {"instances": [{"picture": BASE64, "method": "gradcam"}, {"picture": "!"}]}
    answer = post_to(endpoint, "v1/models/demo:explain", json=body)
    boxes = len(answer.json()["explanations"][0]["explanations"])
    second = post(endpoint, "explanations", data=PNG, headers={"method": "x"})
    assert second.status_code == 200
    after = counted(endpoint)
    deadline = time.monotonic() + 10
    # Workers write, and the server reads and adds up, when the answer has long gone.
    while after.get(BATCHES, 0) < before.get(BATCHES, 0) + 2 and time.monotonic() < deadline:
        time.sleep(0.1)
        after = counted(endpoint)
    grown = {
        re.sub(r'(model="demo",version="1.0",|Hostname="[^"]*",)', "", name): round(
            value - before.get(name, 0)
        )
        for name, value in after.items()
        if value != before.get(name, 0) and not re.search("seconds|bucket|digest", name)
    }
    assert grown['whybox_explanations_total{method="gradcam",status="200",}'] == 1
    assert grown['whybox_explanations_total{method="unknown",status="400",}'] == 1
    assert grown['whybox_explained_boxes_total{method="gradcam",}'] == boxes > 0
    assert grown['whybox_rejected_total{reason="PictureError",}'] == 1
    assert grown['whybox_requests_total{verb="explain",status="200",}'] == 2
    assert grown["whybox_pictures_total{}"] == 2
    assert grown["whybox_batch_requests_count{}"] == 2
    stages = {name for name in after if "stage_seconds_count" in name}
    assert {re.search('stage="(.*?)"', name)[1] for name in stages} == {  # type: ignore[index]
        "decode",
        "detect",
        "explain",
        "encode",
    }


def test_no_token_and_no_picture_in_any_log(endpoint: Server) -> None:
    wrong = "wrong-token-of-somebody"
    text = f"secret words {'x' * 50}"
    with requests.Session() as session:
        session.trust_env = False
        url = f"{endpoint.inference_url}/explanations/demo"
        bearer = {"Authorization": f"Bearer {wrong}"}
        assert session.post(url, data=PNG, headers=bearer, timeout=60).status_code == 400
        session.post(f"{url}?token={wrong}&picture={BASE64[:40]}", headers=bearer, timeout=60)
    for arguments in (
        {"json": {"picture": BASE64, "method": text}},
        {"json": {"picture": text}},
        {"data": PNG, "headers": {"X-Request-Id": text, "X-Whybox-Client": text}},
    ):
        answer = post(endpoint, "explanations", **arguments)
    logged(endpoint, answer.headers["x-request-id"])
    keys = json.loads(endpoint.key_file.read_bytes())
    secrets = [wrong, text, BASE64[:40], *(keys[kind]["key"] for kind in keys)]
    files = [file for file in endpoint.folder.rglob("*") if file.is_file()]
    private = {endpoint.key_file, *map(endpoint.header_file, ("inference", "management"))}
    for file in set(files) - private:
        written = file.read_bytes()
        assert not [each for each in secrets if each.encode() in written], file
    assert {file.stat().st_mode & 0o077 for file in private} == {0}


def test_ready_means_that_workers_are(
    endpoint: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["ready", "--folder", str(endpoint.folder)]) == 0
    assert capsys.readouterr().out == "demo 1.0: ready\n"
    assert main(["ready", "--folder", str(tmp_path)]) == 75
