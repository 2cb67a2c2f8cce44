"""What explanations cost on top of detection: `make bench`.

Detects with the stock torchvision model, then detects and explains 100 boxes, in turn, several
rounds, on one picture. Prints medians, as a table and as JSON:

ratio     our whole run over the stock model's, round by round: what a person pays; the machine's
          noise is in it twice, and a few percent of it do not average out.
own ratio our whole run over its own part before the first explanation: numerator and denominator
          come from one run, so the noise largely cancels. The limit is put on this one.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import torch
import torchvision

from handlers.cam.registry import METHODS
from handlers.detectors.registry import build_model
from handlers.explainer import Explainer
from handlers.schema import ExplainRequest, Explanation
from tests.conftest import random_picture

LIMIT = 1.05


def seconds(call: Callable[[], Any]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--architecture", default="fasterrcnn_resnet50_fpn")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--methods", nargs="+", default=["gradcam"], choices=METHODS.names())
    options = parser.parse_args()
    torch.manual_seed(0)
    model = build_model(options.architecture, 91, {"box_score_thresh": 0.0})
    explainer = Explainer.from_model(model, [str(label) for label in range(91)])
    picture = random_picture(480, 640)
    with torch.no_grad():
        boxes = len(model([picture / 255])[0]["boxes"])
    report: dict[str, Any] = {
        "architecture": options.architecture,
        "boxes": boxes,
        "rounds": options.rounds,
        "processor": platform.processor() or platform.machine(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "torchvision": torchvision.__version__,
        "methods": {},
    }
    print(f"{options.architecture}, one picture of 640 x 480, {boxes} boxes, fp32, CPU")
    print(
        f"{'method':14} {'stock s':>9} {'ours s':>9} {'added s':>9} {'ratio':>7} {'own ratio':>10}"
    )

    def detect() -> None:
        with torch.no_grad():
            model([picture / 255])

    added = 0.0
    explain_one = explainer._explain_one

    def timed_explain_one(*arguments: Any) -> list[Explanation]:
        nonlocal added
        start = time.perf_counter()
        explanations = explain_one(*arguments)
        added = time.perf_counter() - start
        return explanations

    vars(explainer)["_explain_one"] = timed_explain_one

    for method in options.methods:
        request = ExplainRequest(method=method, score_threshold=0.0)

        def explain(request: ExplainRequest = request) -> None:
            explainer.explain([picture], request)

        explain()
        rounds = [(seconds(detect), seconds(explain), added) for _ in range(options.rounds)]
        figures = {
            "stock_s": statistics.median(stock for stock, _, _ in rounds),
            "ours_s": statistics.median(ours for _, ours, _ in rounds),
            "added_s": statistics.median(extra for _, _, extra in rounds),
            "ratio": statistics.median(ours / stock for stock, ours, _ in rounds),
            "own_ratio": statistics.median(ours / (ours - extra) for _, ours, extra in rounds),
        }
        report["methods"][method] = figures
        stock, ours, extra, ratio, own = figures.values()
        print(f"{method:14} {stock:9.3f} {ours:9.3f} {extra:9.3f} {ratio:7.3f} {own:10.3f}")
    print(json.dumps(report))
    gradcam = report["methods"].get("gradcam", {"own_ratio": 0.0})["own_ratio"]
    if gradcam > LIMIT:
        print(f"Grad-CAM costs more than allowed: {gradcam:.3f} > {LIMIT}", file=sys.stderr)
        return 4
    return 0


if __name__ == "__main__":
    sys.exit(main())
