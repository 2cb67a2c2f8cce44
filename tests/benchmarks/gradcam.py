"""What explanations cost on top of detection: `make bench`.

Detects with the stock torchvision model, then detects and explains 100 boxes, in turn, several
rounds, on one picture; prints the median of the ratios round by round, as a table and as JSON.
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
from handlers.schema import ExplainRequest
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
    print(f"{'method':14} {'detect s':>9} {'+ explain s':>12} {'ratio':>7}")

    def detect() -> None:
        with torch.no_grad():
            model([picture / 255])

    for method in options.methods:
        request = ExplainRequest(method=method, score_threshold=0.0)

        def explain(request: ExplainRequest = request) -> None:
            explainer.explain([picture], request)

        explain()
        rounds = [(seconds(detect), seconds(explain)) for _ in range(options.rounds)]
        stock = statistics.median(first for first, _ in rounds)
        ours = statistics.median(second for _, second in rounds)
        ratio = statistics.median(second / first for first, second in rounds)
        report["methods"][method] = {"detect_s": stock, "explain_s": ours, "ratio": ratio}
        print(f"{method:14} {stock:9.3f} {ours:12.3f} {ratio:7.3f}")
    print(json.dumps(report))
    gradcam = report["methods"].get("gradcam", {"ratio": 0.0})["ratio"]
    if gradcam > LIMIT:
        print(f"Grad-CAM costs more than allowed: {gradcam:.3f} > {LIMIT}", file=sys.stderr)
        return 4
    return 0


if __name__ == "__main__":
    sys.exit(main())
