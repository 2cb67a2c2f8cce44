"""What tests of several rooms share: small detectors and pictures, made once."""

from __future__ import annotations

import functools
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from archives import server
from archives.build import BuildOptions, build
from handlers.detectors.registry import build_model
from handlers.explainer import Explainer
from jobs.demo.scenes import HELD_OUT_SEEDS, SceneOptions, make_scene

# 96 px keep a ResNet-50 quick; a threshold of zero makes random weights detect plenty.
SMALL = {
    "min_size": 96,
    "max_size": 160,
    "rpn_post_nms_top_n_test": 150,
    "box_score_thresh": 0.0,
    "box_detections_per_img": 12,
}
needs_curl = pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
CATEGORIES = ("__background__", "cat", "dog", "bird", "fish")


@functools.cache
def small_model(architecture: str) -> nn.Module:
    """An architecture with random weights whose scores and boxes are spread out."""
    torch.manual_seed(7)
    # The small one pools from more levels, so its pictures are larger.
    size = {"min_size": 192, "max_size": 256} if "small" in architecture else {}
    model = build_model(architecture, len(CATEGORIES), SMALL | size)
    outputs: list[tuple[Tensor, Tensor]] = []
    predictor = model.get_submodule("roi_heads.box_predictor")
    hook = predictor.register_forward_hook(lambda _, __, output: outputs.append(output))
    with torch.no_grad():
        # Statistics of real activations: with the initial ones they fade to nothing on the way.
        batch = torch.stack([random_picture(128, 160, seed) for seed in range(4)]) / 255
        backbone = model.get_submodule("backbone").train()
        for module in backbone.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.momentum = None  # the plain mean, so that one pass will do
        backbone(batch)
        model.eval()([random_picture(120, 150) / 255])
        hook.remove()
        for name, output, spread in zip(
            ("cls_score", "bbox_pred"), outputs[0], (1.5, 1.0), strict=True
        ):
            scale = spread / output.std(0).mean()
            predictor.get_parameter(f"{name}.weight").mul_(scale)
            predictor.get_parameter(f"{name}.bias").sub_(output.mean(0)).mul_(scale)
    return model


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
