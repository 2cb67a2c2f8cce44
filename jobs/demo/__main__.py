"""`make demo`: an endpoint explains one scene, a bulk job explains 200 from an object store.

Everything it starts listens on 127.0.0.1 and is stopped at the end, also on Ctrl-C.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from types import FrameType
from typing import Any

import boto3
import requests
import torch
from moto.server import ThreadedMotoServer

from archives.serving import server
from handlers.explainer import Explainer
from handlers.images import to_image
from handlers.render import contact_sheet, draw_boxes, encode_jpeg, overlay, overlay_all
from jobs.demo.scenes import HELD_OUT_SEEDS, SceneOptions, make_scene

BUCKET = "scenes"
SHOWN_SCENE = 4  # of the held-out ones: several categories, an overlap
TIMEOUT = 120


@dataclass(frozen=True)
class DemoOptions:
    """archive: the .mar to show. output: a folder, made anew. pictures: how many scenes."""

    archive: Path = Path("model_store/demo.mar")
    output: Path = Path("demo-output")
    pictures: int = 200


def main() -> int:
    """Runs the demo; 0 when all of it worked, else the job's exit code."""
    parser = argparse.ArgumentParser(prog="python -m jobs.demo", description=__doc__)
    parser.add_argument("--archive", type=Path, default=DemoOptions.archive)
    parser.add_argument("--output", type=Path, default=DemoOptions.output)
    parser.add_argument("--pictures", type=int, default=DemoOptions.pictures)
    options = DemoOptions(**vars(parser.parse_args()))
    signal.signal(signal.SIGTERM, _terminated)
    start = time.monotonic()
    try:
        code = run(options)
    except KeyboardInterrupt:
        print("\ninterrupted; everything that the demo started is stopped", file=sys.stderr)
        return 130
    print(f"\nThe demo took {time.monotonic() - start:.0f} s; everything it started is stopped.")
    return code


def _terminated(number: int, frame: FrameType | None) -> None:
    # Unwinds the stack, so that what was started is stopped.
    raise SystemExit(143)


def run(options: DemoOptions) -> int:
    """The demo proper; see the module's text."""
    _fresh(options.output)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="whybox-")))
        say(1, "starting TorchServe and an S3 server on 127.0.0.1, drawing scenes")
        endpoint = stack.enter_context(
            server.start(server.ServerOptions((options.archive,), folder, ports=server.Ports()))
        )
        store = stack.enter_context(object_store())
        fill(store, options.pictures)
        endpoint.wait_ready()
        say(2, f"asking {endpoint.inference_url}/explanations/demo about one scene")
        ask(endpoint, options)
        say(3, f"explaining {options.pictures} scenes in bulk")
        code = explain_in_bulk(store, options)
        fetch(store, options.output / "job")
    report(options.output)
    return code


def say(step: int, text: str) -> None:
    """One line of what happens now."""
    print(f"\n[{step}/3] {text}", flush=True)


def _fresh(output: Path) -> None:
    if output.exists() and any(output.iterdir()) and not (output / "demo.json").exists():
        print(f"{output} holds something else than a demo's output; give --output", file=sys.stderr)
        raise SystemExit(2)
    shutil.rmtree(output, ignore_errors=True)
    output.mkdir(parents=True)
    (output / "demo.json").write_text(json.dumps({"made_by": "python -m jobs.demo"}) + "\n")


@contextmanager
def object_store() -> Iterator[dict[str, str]]:
    """An S3 server in this process, in memory: the environment by which boto3 finds it."""
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    moto = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    moto.start()
    try:
        host, port = moto.get_host_and_port()
        yield {
            "AWS_ENDPOINT_URL": f"http://{host}:{port}",
            "AWS_ACCESS_KEY_ID": "demo",
            "AWS_SECRET_ACCESS_KEY": "demo",
            "AWS_DEFAULT_REGION": "us-east-1",
        }
    finally:
        moto.stop()


def client(store: dict[str, str]) -> Any:
    """A boto3 client of the demo's own store, whatever the person's environment says."""
    return boto3.client(
        "s3",
        endpoint_url=store["AWS_ENDPOINT_URL"],
        aws_access_key_id=store["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=store["AWS_SECRET_ACCESS_KEY"],
        region_name=store["AWS_DEFAULT_REGION"],
    )


def scene(number: int) -> torch.Tensor:
    """A scene that the detector was not trained on: uint8 [3, H, W]."""
    made = make_scene(HELD_OUT_SEEDS.start + number, SceneOptions())
    return torch.from_numpy(made.picture).permute(2, 0, 1).contiguous()


def fill(store: dict[str, str], pictures: int) -> None:
    """Puts the scenes as JPEG files into s3://scenes/pictures."""
    s3 = client(store)
    s3.create_bucket(Bucket=BUCKET)
    for number in range(pictures):
        data = encode_jpeg(to_image(scene(number)), quality=95)
        s3.put_object(Bucket=BUCKET, Key=f"pictures/scene-{number:04}.jpg", Body=data)


def ask(endpoint: server.Server, options: DemoOptions) -> None:
    """One scene through the endpoint: predictions, explanations and an overlay."""
    folder = options.output / "endpoint"
    folder.mkdir()
    picture = encode_jpeg(to_image(scene(SHOWN_SCENE)), quality=95)
    (folder / "picture.jpg").write_bytes(picture)
    headers = {"Authorization": f"Bearer {endpoint.inference_token}"}
    with requests.Session() as session:
        session.trust_env = False  # a proxy has no business with 127.0.0.1
        session.headers.update(headers)

        def post(verb: str, **fields: str) -> bytes:
            answer = session.post(
                f"{endpoint.inference_url}/{verb}/demo",
                files={"picture": picture},
                data=fields,
                timeout=TIMEOUT,
            )
            answer.raise_for_status()
            return answer.content

        predictions = post("predictions")
        (folder / "predictions.json").write_bytes(predictions)
        for row in json.loads(predictions):
            score = row.pop("score")
            ((category, box),) = row.items()
            edges = ", ".join(f"{edge:.0f}" for edge in box)
            print(f"      {category:9} {score:.2f}  box {edges}")
        (folder / "explanations.json").write_bytes(post("explanations"))
        (folder / "overlay.jpg").write_bytes(post("explanations", format="overlay"))
    _show_each_box(options, folder / "each-box.jpg")


def _show_each_box(options: DemoOptions, file: Path) -> None:
    """The same in Python: the picture's boxes, all heatmaps in one, and each box's own."""
    picture = scene(SHOWN_SCENE)
    explainer = Explainer.from_archive(options.archive)
    request = replace(explainer.defaults, max_detections=8)
    explanations = explainer.explain([picture], request)[0]
    images = [draw_boxes(picture, explanations), overlay_all(picture, explanations)]
    images += [overlay(picture, each) for each in explanations]
    file.write_bytes(encode_jpeg(contact_sheet(images, columns=5, cell=260)))


def explain_in_bulk(store: dict[str, str], options: DemoOptions) -> int:
    """The nightly job as a person would type it; its exit code."""
    arguments = ["explain", "--archive", str(options.archive)]
    arguments += ["--input", f"s3://{BUCKET}/pictures", "--output", f"s3://{BUCKET}/explained"]
    arguments += ["--overlays", "all", "--shard-size", "100"]
    print(f"      python -m jobs {' '.join(arguments)}", flush=True)
    with subprocess.Popen(
        [sys.executable, "-m", "jobs", *arguments], env={**os.environ, **store}
    ) as job:
        try:
            return job.wait()
        except BaseException:
            # The job passes the signal on to its worker; both must be gone before the store is.
            job.terminate()
            job.wait()
            raise


def fetch(store: dict[str, str], folder: Path) -> None:
    """Copies the job's output from the store to a folder, since the store ends with the demo."""
    s3 = client(store)
    pages = s3.get_paginator("list_objects_v2").paginate(Bucket=BUCKET, Prefix="explained/")
    for page in pages:
        for entry in page.get("Contents", []):
            file = folder / entry["Key"].removeprefix("explained/")
            file.parent.mkdir(parents=True, exist_ok=True)
            s3.download_file(BUCKET, entry["Key"], str(file))


def report(output: Path) -> None:
    """Names what was written."""
    overlays = len(list(output.glob("job/shards/*/overlays/*.jpg")))
    rows = [
        ("endpoint/each-box.jpg", "one scene: its boxes, and a heatmap for each"),
        ("endpoint/overlay.jpg", "the endpoint's answer as a picture"),
        ("endpoint/explanations.json", "and as JSON, a heatmap for each box"),
        ("job/contact-sheet.jpg", "a first look at the bulk run"),
        ("job/shards/*/overlays/", f"{overlays} pictures with boxes and heatmaps"),
        ("job/shards/*/detections.parquet", "a row for every explained box"),
        ("job/run.json", "what was run, on what, and how it went"),
    ]
    print("\nLook at:")
    for place, text in rows:
        print(f"  {output / place!s:45} {text}")


if __name__ == "__main__":
    sys.exit(main())
