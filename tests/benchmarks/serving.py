"""What serving costs: the real server beside calls in this process, of the same archive, on the
same pictures. Both begin with a picture's bytes; ours end with JSON over HTTP, the calls with maps
in memory."""

from __future__ import annotations

import io
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import requests

from archives.building.build import BuildOptions, build
from archives.serving import server
from handlers.explainer import Explainer
from handlers.images import decode_picture, to_image
from tests.benchmarks.harness import Goal, Row, Settings, Work, alternate, middle, ratios, spread
from tests.conftest import scene_picture

# A small one: the smaller it is, the more of its time is the server's.
DETECTOR, PICTURES = "fasterrcnn_regnet_small_fpn", 96
# Two batches' worth of clients: while one is answered, the next is complete.
CLIENTS, BATCH = 16, 8
# Small requests before anything is timed: Java compiles what it has run often.
WARM_UP = 600
LATENCY, THROUGHPUT = Goal(1.15), Goal(0.9, at_most=False)


def _files(number: int) -> list[bytes]:
    files = []
    for each in range(number):
        buffer = io.BytesIO()
        to_image(scene_picture(each)).save(buffer, "JPEG", quality=95)
        files.append(buffer.getvalue())
    return files


def _session(started: server.Server) -> requests.Session:
    session = requests.Session()
    session.trust_env = False
    session.mount("http://", requests.adapters.HTTPAdapter(pool_maxsize=CLIENTS))
    session.headers["Authorization"] = f"Bearer {started.inference_token}"
    return session


def _warm_up(started: server.Server, number: int) -> None:
    with _session(started) as session:
        for _ in range(number):
            url = f"{started.inference_url}/predictions/served"
            session.get(url, headers={"describe": "True"}, timeout=120).raise_for_status()


def _client(started: server.Server) -> Callable[[bytes], int]:
    session = _session(started)
    url = f"{started.inference_url}/explanations/served"

    def ask(data: bytes) -> int:
        answer = session.post(url, data=data, timeout=120)
        answer.raise_for_status()
        return len(answer.json()["explanations"])

    return ask


def _rows(archive: Path, settings: Settings, folder: Path) -> Iterator[Row]:
    explainer = Explainer.from_archive(archive)
    number = CLIENTS if settings.tiny else PICTURES
    files = _files(number)

    def alone(data: bytes) -> int:
        return len(explainer.explain([decode_picture(data)])[0])

    def batched() -> list[int]:
        # As the server does: of each eight that come together those of one size share a pass.
        numbers = []
        for start in range(0, number, BATCH):
            several = [decode_picture(each) for each in files[start : start + BATCH]]
            numbers += [len(each) for each in explainer.explain(several, batch_size=BATCH)]
        return numbers

    options = server.ServerOptions((archive,), folder, ports=server.Ports())
    with server.start(options) as started, ThreadPoolExecutor(CLIENTS) as pool:
        started.wait_ready()
        ask = _client(started)
        _warm_up(started, WARM_UP // 20 if settings.tiny else WARM_UP)
        lone: list[dict[str, list[float]]] = [
            alternate(settings, call=partial(alone, data), served=partial(ask, data))
            for data in files[: 2 if settings.tiny else 8]
        ]
        same = [ask(data) for data in files] == batched()
        both = alternate(settings, call=batched, served=lambda: list(pool.map(ask, files)))
    calls, answers = ([each for one in lone for each in one[side]] for side in ("call", "served"))
    values = ratios(answers, calls)
    yield Row(
        case=f"{DETECTOR}: a lone request",
        measure="times the call",
        value=middle(answers) / middle(calls),
        spread=spread(values),
        ours=middle(answers),
        other=middle(calls),
        goal=LATENCY,
        same="as many boxes" if same else "maps DIFFER: other numbers of boxes",
        note="The medians over 8 pictures; the answer holds its heatmaps as PNG.",
    )
    values = ratios(both["call"], both["served"])
    yield Row(
        case=f"{DETECTOR}: {CLIENTS} clients at once",
        measure=f"of the pictures a second of batches of {BATCH} in this process",
        value=middle(values),
        spread=spread(values),
        ours=middle(both["served"]),
        other=middle(both["call"]),
        goal=THROUGHPUT,
        figures={"pictures a second, served": number / middle(both["served"])},
    )


def _run(settings: Settings) -> Iterator[Row]:
    with tempfile.TemporaryDirectory() as folder:
        options = BuildOptions(
            detector=DETECTOR,
            weights="jobs/demo/weights.safetensors",
            name="served",
            version="1.0",
            export_path=Path(folder),
        )
        yield from _rows(build(options), settings, Path(folder) / "server")


WORK = Work("What serving costs, beside calls in one process", _run)
