"""Two versions of one model on one server whose answers may not be large."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import requests

from archives.building.build import BuildOptions, build
from archives.serving.server import DEFAULT_CONFIG, Ports, Server, ServerOptions, start
from archives.verify import verify
from handlers.endpoint.writing import OMITTED
from tests.test_endpoint import PNG, post_to

pytestmark = pytest.mark.server
LIMIT = 12_000
MANY = {"score_threshold": "0", "max_detections": "60"}


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    names, others = (tmp_path_factory.mktemp("names") / f"{each}.txt" for each in "ab")
    names.write_text("disc\nring\n")
    others.write_text("cube\ncone\n")
    options = BuildOptions(
        detector="fasterrcnn_regnet_small_fpn",
        weights="random",
        name="small",
        version="2.0",
        export_path=tmp_path_factory.mktemp("second"),
        categories=names,
        options={"box_score_thresh": 0.0},
        golden_sample=False,
    )
    first = replace(
        options, version="1.0", export_path=tmp_path_factory.mktemp("first"), categories=others
    )
    return [build(options), build(first)]


@pytest.fixture(scope="module")
def server(stores: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("versions")
    config = folder / "small.properties"
    text = DEFAULT_CONFIG.read_text()
    config.write_text(text + f"\nmax_response_size={LIMIT}\n")
    options = ServerOptions(tuple(stores), folder / "serve", config, Ports())
    with start(options) as started:
        started.wait_ready()
        yield started


def ask(server: Server, path: str, **fields: Any) -> requests.Response:
    return post_to(server, path, files={"picture": PNG}, data=fields)


def test_both_are_served_and_the_first_is_the_default(server: Server, stores: list[Path]) -> None:
    digests = {}
    for version in ("1.0", "2.0"):
        (described,) = requests.get(
            f"{server.management_url}/models/small/{version}?customized=true",
            headers={"Authorization": f"Bearer {server.management_token}"},
            timeout=60,
        ).json()
        digests[version] = described["customizedMetadata"]["digest"]
    assert digests == {verify(each).version: verify(each).digest for each in stores}
    assert {each.version: each.digest for each in server.served} == digests
    for path, names in (
        ("small", {"disc", "ring"}),
        ("small/2.0", {"disc", "ring"}),
        ("small/1.0", {"cube", "cone"}),
    ):
        rows = ask(server, f"predictions/{path}", **MANY).json()
        assert {name for row in rows for name in row} - {"score"} <= names
        assert rows
    assert ask(server, "predictions/small/3.0").status_code == 404


@pytest.mark.parametrize("kind", ["json", "npz", "overlay"])
def test_no_answer_exceeds_the_servers_limit(server: Server, kind: str) -> None:
    answer = ask(server, "explanations/small", format=kind, **MANY)
    assert answer.status_code == 200, answer.text[:300]
    assert len(answer.content) <= LIMIT
    if kind == "json":
        fields = answer.json()
        sent, omitted = len(fields["explanations"]), fields["omitted_explanations"]
        assert min(sent, omitted) > 0
        assert fields["omitted_heatmaps"] == sent + omitted
    elif kind == "npz":
        arrays = np.load(io.BytesIO(answer.content))
        assert 0 < int(arrays["omitted_heatmaps"]) == int(answer.headers[OMITTED])
