"""A detector trained on real pictures (BCCD blood cells), where WHYBOX_DATA says they lie."""

from __future__ import annotations

import os
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest
import safetensors.torch
import torch
from torchvision.ops import box_iou

from archives.building.build import BuildOptions, build
from handlers.detectors.registry import build_model
from handlers.explainer import Explainer, ExplainRequest
from handlers.images import decode_picture
from tests.handlers.slow_twin import SlowTwin
from tests.handlers.test_explainer import assert_close

DATA = Path(os.environ.get("WHYBOX_DATA", "/nonexistent")) / "bccd"
WEIGHTS = DATA / "fasterrcnn_mobilenet_v3_large_320_fpn.safetensors"
NAMES = ("RBC", "WBC", "Platelets")

pytestmark = pytest.mark.skipif(
    not WEIGHTS.is_file(), reason="WHYBOX_DATA names no folder with bccd/ in it"
)


def pictures(number: int) -> list[str]:
    """The first names of the official test split."""
    return (DATA / "ImageSets/Main/test.txt").read_text().split()[:number]


def read(name: str) -> torch.Tensor:
    return decode_picture((DATA / f"JPEGImages/{name}.jpg").read_bytes())


def built(folder: Path) -> Path:
    """The detector's archive."""
    (folder / "categories.txt").write_text("\n".join(NAMES))
    return build(
        BuildOptions(
            detector="fasterrcnn_mobilenet_v3_large_320_fpn",
            weights=str(WEIGHTS),
            name="bccd",
            version="1.0",
            export_path=folder,
            categories=folder / "categories.txt",
            golden_sample=False,
        )
    )


@pytest.fixture(scope="module")
def explainer(tmp_path_factory: pytest.TempPathFactory) -> Explainer:
    return Explainer.from_archive(built(tmp_path_factory.mktemp("bccd")))


def test_white_cells_are_found_and_explained(explainer: Explainer) -> None:
    found = total = 0
    for name in pictures(8):
        tree = ElementTree.parse(DATA / f"Annotations/{name}.xml")
        truth = [
            [float(box.findtext(edge, "0")) for edge in ("xmin", "ymin", "xmax", "ymax")]
            for thing in tree.iter("object")
            if thing.findtext("name") == "WBC"
            for box in thing.iter("bndbox")
        ]
        explanations = explainer.explain([read(name)], ExplainRequest(category="WBC"))[0]
        boxes = torch.tensor([each.box for each in explanations]).reshape(-1, 4)
        found += int((box_iou(torch.tensor(truth).reshape(-1, 4), boxes) > 0.5).any(1).sum())
        total += len(truth)
        for each in explanations:
            assert float(each.heatmap.max()) > 0
    assert found >= 0.85 * total > 0


def test_a_real_picture_equals_the_stock_model_and_the_slow_twin(explainer: Explainer) -> None:
    model = build_model("fasterrcnn_mobilenet_v3_large_320_fpn", 4)
    model.load_state_dict(safetensors.torch.load_file(WEIGHTS))
    picture = read(pictures(1)[0])
    with torch.no_grad():
        stock = model([picture / 255])[0]
    ours = explainer.detect([picture])[0]
    for name in ("boxes", "labels", "scores"):
        assert torch.equal(getattr(ours, name), stock[name])
    twin = SlowTwin(model, picture)
    for each in explainer.explain([picture], ExplainRequest(max_detections=6))[0]:
        level, slow = twin.heatmap(ours.boxes[each.index], each.label, "odam", "class")
        assert level == each.level
        assert_close(each.heatmap, slow)
