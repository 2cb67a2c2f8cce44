"""Every command and code block of the README, run from top to bottom in a copy of the checkout."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

from archives.serving.server_config import Ports, choose_ports
from handlers.detectors.registry import build_model
from handlers.model_file import load_model_file, network_of
from jobs.demo.__main__ import client, fill, object_store
from jobs.demo.scenes import CATEGORIES
from tests.conftest import needs_curl
from tests.handlers.detectors.tiny_transformers import save_pretrained
from tests.other_detectors import MODEL_FILE

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
# The official weights' file, of which torch takes a copy that is there already.
OFFICIAL = "hub/checkpoints/fasterrcnn_resnet50_fpn_v2_coco-dd69338a.pth"


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the checkout with the environment that it is tested in, on ports of its own."""
    folder = tmp_path_factory.mktemp("readme") / "whybox"
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    for name in listed.stdout.splitlines():
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)  # with its time, so that make sees no change
    (folder / ".venv").symlink_to(Path(sys.prefix))
    config = folder / "config.properties"
    text = config.read_text()
    for old, new in zip(
        ("8080", "8081", "8082", "7070", "7071"),
        vars(choose_ports(config, Ports())).values(),
        strict=True,
    ):
        text = text.replace(old, str(new))
    config.write_text(text)
    weights = safetensors.torch.load_file(ROOT / "jobs/demo/weights.safetensors")
    torch.save(weights, folder / "my.pth")
    official = folder.parent / "torch" / OFFICIAL
    official.parent.mkdir(parents=True)
    torch.save(build_model("fasterrcnn_resnet50_fpn_v2", 91).state_dict(), official)
    (folder / "categories.txt").write_text("\n".join(CATEGORIES) + "\n")
    (folder / "network.py").write_text(MODEL_FILE)
    network = network_of(
        load_model_file("network.py", MODEL_FILE.encode()), "Network", {"classes": 6}
    )
    torch.save(network.state_dict(), folder / "network.pth")
    save_pretrained("detr", folder / "my-detr")
    return folder


@pytest.fixture(scope="module")
def store() -> Iterator[dict[str, str]]:
    with object_store() as environment:
        fill(environment, 3)
        yield environment


def run(command: list[str], workspace: Path, store: dict[str, str]) -> str:
    environment = {**os.environ, **store, "PICTURES": "12"}
    environment["TORCH_HOME"] = str(workspace.parent / "torch")
    environment["https_proxy"] = "http://127.0.0.1:1"  # nothing is fetched
    environment.pop("PYTHONPATH", None)
    environment.pop("MAKEFLAGS", None)  # of the make that runs these tests
    done = subprocess.run(
        command, cwd=workspace, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.mark.server
@pytest.mark.parametrize(
    "number",
    [
        pytest.param(number, marks=needs_curl) if "curl" in text else number
        for number, (_, text) in enumerate(BLOCKS)
    ],
)
def test_block(number: int, workspace: Path, store: dict[str, str]) -> None:
    language, text = BLOCKS[number]
    if language == "sh":
        config = (workspace / "config.properties").read_text()
        port = re.search(r"inference_address=http.*:(\d+)", config)
        management = re.search(r"management_address=http.*:(\d+)", config)
        assert port
        assert management
        script = text.replace("127.0.0.1:8080", f"127.0.0.1:{port[1]}")
        script = script.replace("127.0.0.1:8081", f"127.0.0.1:{management[1]}")
        if not text.startswith(("make demo", "source")):
            script = f"source .venv/bin/activate\n{exported(number)}{script}"
        run(["bash", "-euo", "pipefail", "-c", script], workspace, store)
    elif file := re.match(r"# (\S+\.(?:py|yaml))\n", text):
        (workspace / file[1]).write_text(text)
    elif language == "python":
        assert "(" in run([sys.executable, "-c", text], workspace, store)
    else:
        assert language == "json"
        example = json.loads(text)
        name = "predictions" if isinstance(example, list) else "explanations"
        answer = json.loads((workspace / f"demo-output/endpoint/{name}.json").read_text())
        if name == "explanations":
            assert shape(example) == shape(answer)
        else:
            assert {tuple(sorted(map(type, row.values()), key=str)) for row in answer} == {
                tuple(sorted(map(type, example[0].values()), key=str))
            }


def exported(number: int) -> str:
    """What the blocks before this one put into the environment, which a shell keeps."""
    before = "".join(text for language, text in BLOCKS[:number] if language == "sh")
    return "".join(f"{each}\n" for each in re.findall(r"^export .*", before, re.MULTILINE))


def shape(value: Any) -> Any:
    """Keys and types of JSON; of a list the first item stands for all."""
    if isinstance(value, dict):
        return {key: shape(each) for key, each in value.items()}
    return [shape(each) for each in value[:1]] if isinstance(value, list) else type(value)


def test_what_the_blocks_wrote(workspace: Path, store: dict[str, str]) -> None:
    overlays = workspace / "out/shards/00000/overlays"
    names = ["picture.jpg.000.jpg", "picture.jpg.boxes.jpg", "picture.jpg.jpg"]
    assert set(names) <= {file.name for file in overlays.iterdir()}
    if shutil.which("curl"):
        assert (workspace / "overlay.jpg").read_bytes()[:2] == b"\xff\xd8"
    assert list(workspace.glob("*-0.png"))
    assert (workspace / "model_store/mine.mar").exists()
    for name in ("out-yolo", "out-detr", "out-centernet"):
        assert (workspace / name / "contact-sheet.jpg").exists()
    assert (workspace / "centernet.jpg").exists() or not shutil.which("curl")
    assert len(list((workspace / "out-classify").rglob("*.png"))) == 7
    assert (workspace / "feature-maps/picture.jpg.features.jpg").exists()
    assert (workspace / "demo-output/job/contact-sheet.jpg").exists()
    listed = client(store).list_objects_v2(Bucket="scenes", Prefix="explained/")
    assert "explained/run.json" in [entry["Key"] for entry in listed["Contents"]]
    assert not (workspace / ".serve/server.json").exists()
    body = client(store).get_object(Bucket="scenes", Key="registry/finder/aliases/production.json")
    alias = json.loads(body["Body"].read())
    assert alias["version"] == "1.0"
    assert [each["to"] for each in alias["history"]] == ["1.0", "1.1", "1.0"]


def test_make_targets_and_options_exist() -> None:
    for target in set(re.findall(r"`make ([a-z-]+)`", README.replace("\n", " "))):
        done = subprocess.run(["make", "-n", target], cwd=ROOT, capture_output=True, check=False)
        assert done.returncode == 0, target
    assert (ROOT / "docs/each-box.jpg").stat().st_size < 300_000
