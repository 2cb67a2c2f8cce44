"""The pictures of docs/methods.md: one scene, one box, every method, and what else may be asked.

python -m tests.benchmarks.gallery --archive model_store/demo.mar --output docs/methods
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch

from handlers.cam.registry import METHODS
from handlers.explainer import Explainer
from handlers.render import draw_boxes, encode_jpeg, overlay
from handlers.schema import ExplainRequest
from jobs.demo.scenes import SceneOptions, make_scene

# A held-out scene with three houses, of which the best is explained: a map that shows the others,
# too, does not tell objects of one category apart.
SEED = 5_000_006
SIZE = (420, 320)
CATEGORY = "house"
# Fewer than in the papers, so that the pictures are made in minutes.
MASKS = {"drise": 1000, "dclose": 600}


# Requests that the guide shows besides the methods, on top of the default one.
ASKED: dict[str, dict[str, Any]] = {
    "default": {},
    **{
        f"target-{name}": {"target": name}
        for name in ("probability", "x1", "box", "objectness", "combined")
    },
    **{f"layer-{name}": {"layer": name} for name in ("C3", "C4", "C5", "pyramid", "roi")},
    "faithful": {"method": "layercam", "layer": "C3", "smooth": 0.1, "center_prior": 0.35},
    "normalize-in-box": {"normalize_in_box": True},
    # A candidate that the best house's box suppresses.
    "undrawn": {"box": "144,168,228,274"},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--archive", default="model_store/demo.mar")
    parser.add_argument("--output", type=Path, default=Path("docs/methods"))
    parser.add_argument("--seed", type=int, default=SEED)
    names = [*ASKED, *METHODS.names()]
    parser.add_argument("--only", nargs="+", default=names, choices=names, metavar="NAME")
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    scene = make_scene(options.seed, SceneOptions(size=SIZE))
    picture = torch.from_numpy(scene.picture).permute(2, 0, 1).contiguous()
    explainer = Explainer.from_archive(options.archive)
    boxes = explainer.explain([picture])[0]
    (options.output / "boxes.jpg").write_bytes(encode_jpeg(draw_boxes(picture, boxes)))
    for name in options.only:
        fields = ASKED.get(name, {"method": name, "masks": MASKS.get(name)})
        request = ExplainRequest.from_fields(
            {"category": CATEGORY, "max_detections": 1, **fields}, explainer.defaults
        )
        found = explainer.explain([picture], request)[0]
        (options.output / f"{name}.jpg").write_bytes(encode_jpeg(overlay(picture, found[0])))


if __name__ == "__main__":
    main()
