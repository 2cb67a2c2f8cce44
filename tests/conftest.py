"""What tests of several rooms share: small detectors and pictures, made once, and an S3 server on
loopback."""

from __future__ import annotations

import functools
import os
import re
import shutil
import signal
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import boto3
import pytest
import torch
from moto.server import ThreadedMotoServer
from playwright.sync_api import Browser, sync_playwright
from torch import Tensor, nn
from torchvision.models.detection import FCOS
from torchvision.ops import MultiScaleRoIAlign

from archives.building.build import BuildOptions, build
from archives.serving import server
from archives.stores.opening import open_store, split_uri
from handlers.detectors.classifier import CLASSIFIERS
from handlers.detectors.registry import architectures, build_model
from handlers.explainer import Explainer
from jobs.demo.scenes import HELD_OUT_SEEDS, SceneOptions, make_scene


def pytest_configure() -> None:
    # Of what a script runs in the background Ctrl-C is ignored, and by all that it starts.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Of several processes one begins with the README, whose blocks take longest and are one after
    the other."""
    items.sort(key=lambda item: item.path.name != "test_readme.py")


# 96 px keep a ResNet-50 quick; a threshold of zero makes random weights detect plenty.
SMALL = {
    "min_size": 96,
    "max_size": 160,
    "rpn_post_nms_top_n_test": 150,
    "box_score_thresh": 0.0,
    "box_detections_per_img": 12,
}
SMALL_ONE_STAGE = {
    "min_size": 96,
    "max_size": 160,
    "score_thresh": 0.0,
    "detections_per_img": 12,
}
# The last layers of the heads, by a part of their name: how far their outputs are spread. Boxes
# coded by weights of 1 move further than those of 10, 10, 5, 5.
SPREADS = {
    "box_predictor.cls_score": 1.5,
    "box_predictor.bbox_pred": 1.0,
    "mask_fcn_logits": 1.5,
    "kps_score_lowres": 1.5,
    "classification_head.cls_logits": 1.5,
    "regression_head.bbox_reg": 0.3,
    "regression_head.bbox_ctrness": 1.0,
    "classification_head.module_list": 1.5,
    "regression_head.module_list": 1.0,
}
RPN_SPREADS = {"rpn.head.cls_logits": 1.5, "rpn.head.bbox_pred": 0.3}
LAST = (nn.Linear, nn.Conv2d, nn.ConvTranspose2d)
DEPTHWISE = re.compile(r"module_list\.\d\.0\.")  # in SSDlite's heads, before the last layer
FCOS_MIDDLE = 1.0  # of the distances to the edges, which FCOS cuts at zero
CHROMIUM = shutil.which("chromium") or ""
needs_curl = pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
CATEGORIES = ("__background__", "cat", "dog", "bird", "fish")


# Detectors that are built by name alone.
DETECTORS = [name for name in architectures() if name not in CLASSIFIERS and name != "transformers"]


@functools.lru_cache(maxsize=5)
def small_model(architecture: str) -> nn.Module:
    """An architecture with random weights whose scores and boxes are spread out."""
    torch.manual_seed(7)
    two_stage = "rcnn" in architecture
    options: dict[str, Any] = dict(SMALL if two_stage else SMALL_ONE_STAGE)
    if "ssd" in architecture:  # these have a size of their own
        options = {name: options[name] for name in ("score_thresh", "detections_per_img")}
    if two_stage and re.search("v2|mask|keypoint", architecture):
        options["rpn_post_nms_top_n_test"] = 40  # convolutional heads take their time
    if "small" in architecture:  # this one pools from more levels, so its pictures are larger
        options |= {"min_size": 192, "max_size": 256}
    model = build_model(architecture, len(CATEGORIES), options)
    size = getattr(model.get_submodule("transform"), "fixed_size", None) or (160, 128)
    with torch.no_grad():
        # Statistics of real activations: with the initial ones they fade to nothing on the way.
        batch = torch.stack([random_picture(size[1], size[0], seed) for seed in range(4)]) / 255
        if any(isinstance(module, nn.BatchNorm2d) for module in model.modules()):
            maps = calibrated(model.get_submodule("backbone"), batch)
            if not two_stage:
                calibrated(model.get_submodule("head"), list(maps.values()))
        model.eval()
        spreads = SPREADS
        if "mask" in architecture or "keypoint" in architecture:
            spreads = RPN_SPREADS | SPREADS
            for pool in model.get_submodule("roi_heads").children():
                if isinstance(pool, MultiScaleRoIAlign):  # these inputs know no large boxes
                    pool.canonical_scale = 56
        seeds = range(1 if two_stage else 3)
        spread_out(model, [random_picture(120, 150, seed) / 255 for seed in seeds], spreads)
    return model


@torch.no_grad()
def calibrated(part: nn.Module, inputs: Any) -> Any:
    """What `part` gives in train mode; its BatchNorm then keeps the statistics of these inputs."""
    part.train()
    for module in part.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None  # the plain mean, so that one pass will do
    return part(inputs)


@torch.no_grad()
def spread_out(
    model: nn.Module, pictures: list[Tensor], spreads: Mapping[str, float] = SPREADS
) -> None:
    """Scales the heads' last layers so that scores and boxes on these pictures are spread out."""
    outputs: dict[str, list[Tensor]] = {}

    def watch(name: str) -> Any:
        return lambda module, _, output: outputs.setdefault(name, []).append(output)

    handles = [
        module.register_forward_hook(watch(name))
        for name, module in model.named_modules()
        if isinstance(module, LAST)
        and any(part in name for part in spreads)
        and not DEPTHWISE.search(name)
    ]
    model(pictures)
    for handle in handles:
        handle.remove()
    for name, calls in outputs.items():
        values = torch.cat([each.movedim(1, -1).flatten(0, -2) for each in calls])
        spread = next(spread for part, spread in spreads.items() if part in name)
        # SSD's coarse maps have few boxes: these should win now and then.
        level = re.search(r"module_list\.(\d)", name)
        scale = spread * (1 + int(level[1]) / 4 if level else 1) / values.std(0).mean()
        module = model.get_submodule(name)
        module.get_parameter("weight").mul_(scale)
        module.get_parameter("bias").sub_(values.mean(0)).mul_(scale)
        if isinstance(model, FCOS) and name.endswith("bbox_reg"):
            module.get_parameter("bias").add_(FCOS_MIDDLE)


def random_picture(height: int, width: int, seed: int = 0) -> Tensor:
    """A picture of soft blobs, uint8 [3, height, width]."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(1, 3, 6, 6, generator=generator)
    smooth = nn.functional.interpolate(coarse, (height, width), mode="bicubic")[0]
    noise = 0.1 * torch.rand(3, height, width, generator=generator)
    return ((smooth + noise).clamp(0, 1) * 255).to(torch.uint8)


def scene_picture(number: int) -> Tensor:
    """A held-out scene, uint8 [3, H, W]."""
    scene = make_scene(HELD_OUT_SEEDS.start + number, SceneOptions())
    return torch.from_numpy(scene.picture).permute(2, 0, 1).contiguous()


@pytest.fixture(scope="session")
def demo_archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo's archive, built from this checkout."""
    return build(
        BuildOptions(
            detector="fasterrcnn_regnet_small_fpn",
            weights="jobs/demo/weights.safetensors",
            name="demo",
            version="1.0",
            export_path=tmp_path_factory.mktemp("model_store"),
        )
    )


@pytest.fixture(scope="session")
def demo(demo_archive: Path) -> Explainer:
    return Explainer.from_archive(demo_archive)


@pytest.fixture(scope="session")
def endpoint(
    demo_archive: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[server.Server]:
    """The real TorchServe with the demo's archive, one for all tests that ask it."""
    shadow = tmp_path_factory.mktemp("shadow")
    (shadow / "handlers.py").write_text("raise ImportError('PYTHONPATH shadows the archive')")
    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory() as folder:
        patch.setenv("PYTHONPATH", str(shadow))
        patch.setenv("TS_INFERENCE_ADDRESS", "http://0.0.0.0:8080")
        options = server.ServerOptions((demo_archive,), Path(folder), ports=server.Ports())
        with server.start(options) as started:
            started.wait_ready()
            yield started


@pytest.fixture(scope="session")
def explainer() -> Explainer:
    return Explainer.from_model(small_model("fasterrcnn_regnet_small_fpn"), CATEGORIES)


@pytest.fixture(scope="session")
def s3_endpoint() -> Iterator[str]:
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def aws(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> pytest.MonkeyPatch:
    """The environment of a boto3 user with made-up keys and no configuration files."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "made")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "up")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(name, str(tmp_path / "no-such-file"))
    return monkeypatch


@pytest.fixture
def bucket(s3_endpoint: str, aws: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> str:
    """The URI of a new, empty bucket; boto3's environment leads to its server."""
    aws.setenv("AWS_ENDPOINT_URL", s3_endpoint)
    name = f"test-{abs(hash(request.node.nodeid)) % 10**9}"
    boto3.client("s3").create_bucket(Bucket=name)
    return f"s3://{name}"


@pytest.fixture(params=["folder", "s3"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Somewhere to store things, as a URI without a final slash: a folder, then a bucket."""
    if request.param == "folder":
        return str(tmp_path / "place")
    return f"{request.getfixturevalue('bucket')}/some/prefix"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Chromium. A module's own: as long as it is there, nothing else may run an event loop."""
    if not CHROMIUM:
        pytest.skip("chromium is not installed")
    sandbox = os.geteuid() != 0  # for root Chromium has none
    with (
        sync_playwright() as playwright,
        playwright.chromium.launch(executable_path=CHROMIUM, chromium_sandbox=sandbox) as launched,
    ):
        yield launched


def put(place: str, objects: dict[str, bytes]) -> None:
    store = open_store(place)
    for key, data in objects.items():
        store.write(key, data)


def remove(place: str, key: str) -> None:
    root, path = split_uri(f"{place}/{key}")
    if root == "/":
        Path("/", path).unlink()
    else:
        boto3.client("s3").delete_object(Bucket=root.removeprefix("s3://"), Key=path)
