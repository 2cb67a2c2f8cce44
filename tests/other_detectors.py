"""Archives of detectors that are not torchvision's, small and with random weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from archives.building.build import BuildOptions, build
from tests.handlers.detectors import yolo_networks
from tests.handlers.detectors.tiny_transformers import save_pretrained
from tests.handlers.detectors.yolo_twin import CASES, SIZE, network_of
from tests.handlers.test_loading import Scripted

NAMES = "cup\ndisc\nring\n"
# A head as YOLOv8's in its training mode, in a model file of TorchServe's eager kind.
MODEL_FILE = """
import torch
from torch import nn


class Head(nn.Module):
    def __init__(self, classes):
        super().__init__()
        self.boxes = nn.ModuleList([nn.Conv2d(24, 64, 3, padding=1) for _ in range(3)])
        self.classes = nn.ModuleList([nn.Conv2d(24, classes, 3, padding=1) for _ in range(3)])

    def forward(self, maps):
        several = zip(maps, self.boxes, self.classes)
        return [torch.cat([box(x), classes(x)], 1) for x, box, classes in several]


class Network(nn.Module):
    def __init__(self, classes):
        super().__init__()
        widths = (3, 24, 24, 24, 24, 24)
        self.body = nn.ModuleList(
            nn.Sequential(nn.Conv2d(i, o, 3, 2, 1), nn.BatchNorm2d(o), nn.SiLU())
            for i, o in zip(widths, widths[1:])
        )
        self.head = Head(classes)

    def forward(self, x):
        maps = []
        for block in self.body:
            x = block(x)
            maps.append(x)
        return self.head(maps[2:])
"""
YOLO = """
layout: yolov8
head: head
input: {size: [128, 160]}
network: {class: Network, arguments: {classes: 3}}
"""
SCRIPTED = """
layout: yolov6
activated: false
training_head: false
features: features
head: head
input: {size: [128, 160]}
network: torchscript
"""
# What each is built with, beside its name.
KINDS = ("yolo", "scripted", "classifier", "detr")


# The networks of the layouts' own tests, as classes of a model file.
HEADS = {
    "yolov5": "CoupledHead(8, 3)",
    "yolov7": "CoupledHead(8, 3)",
    "yolov8": "DecoupledHead([64, 3], joined=True)",
    "yolov11": "DecoupledHead([64, 3], joined=True)",
    "yolov6": "SplitFlatHead(3)",
    "rtmdet": "DecoupledHead([3, 4], positive=1)",
    "yolox": "FlatHead(3)",
    "decoded": "DecodingHead(3)",
}


def build_layout(name: str, folder: Path) -> Path:
    """The archive of one of yolo_twin's CASES, with the weights that its tests have."""
    case = CASES[name]
    source = Path(yolo_networks.__file__).read_text()
    (folder / "network.py").write_text(
        f"{source}\n\nclass Made(Network):\n    def __init__(self):\n"
        f"        super().__init__({HEADS[name]})\n"
    )
    description = {"layout": case.layout, "head": "head", "score": 0.02, "detections": 12}
    # The networks' statistics are those of values from 0 to 1.
    given = {"size": list(SIZE), "mean": [0] * 3, "std": [255] * 3}
    description |= {**case.fields, "input": given, "network": {"class": "Made"}}
    (folder / "layout.yaml").write_text(json.dumps(description))
    (folder / "names.txt").write_text(NAMES)
    torch.save(network_of(case).state_dict(), folder / "network.pth")
    return build(
        BuildOptions(
            detector=str(folder / "layout.yaml"),
            weights=str(folder / "network.pth"),
            name=name,
            version="1.0",
            export_path=folder / "store",
            categories=folder / "names.txt",
            model_file=folder / "network.py",
            golden_sample=False,
        )
    )


def build_other(kind: str, folder: Path, golden_sample: bool = False) -> Path:
    """The archive of one of KINDS, called by it, in `folder`."""
    names = folder / "names.txt"
    names.write_text(NAMES)
    common: dict[str, Any] = {"name": kind, "version": "1.0", "export_path": folder / "store"}
    common["golden_sample"] = golden_sample
    if kind == "yolo":
        (folder / "network.py").write_text(MODEL_FILE)
        (folder / "yolo.yaml").write_text(YOLO)
        return build(
            BuildOptions(
                detector=str(folder / "yolo.yaml"),
                weights="random",
                categories=names,
                model_file=folder / "network.py",
                **common,
            )
        )
    if kind == "scripted":
        torch.manual_seed(5)
        torch.jit.script(Scripted().eval()).save(folder / "scripted.pt")
        (folder / "scripted.yaml").write_text(SCRIPTED)
        return build(
            BuildOptions(
                detector=str(folder / "scripted.yaml"),
                weights=str(folder / "scripted.pt"),
                categories=names,
                **common,
            )
        )
    if kind == "classifier":
        return build(
            BuildOptions(
                detector="shufflenet_v2_x0_5", weights="random", categories=names, **common
            )
        )
    save_pretrained("detr", folder / "detr")
    return build(BuildOptions(detector="transformers", weights=str(folder / "detr"), **common))
