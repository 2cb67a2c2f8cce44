"""How long the report of 10,000 boxes takes to write, and to be there in a browser.

python -m tests.benchmarks.report_page --pictures 500 --boxes 20
"""

from __future__ import annotations

import argparse
import io
import re
import shutil
import statistics
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from playwright.sync_api import Browser, sync_playwright
from torch import Tensor

from handlers.images import Geometry, to_image
from handlers.schema import ExplainRequest, Explanation
from jobs.page.options import ReportPageOptions
from jobs.page.report import write_report
from jobs.saved_run import SavedRun
from tests.conftest import put, random_picture
from tests.jobs.conftest import Job, QuickExplainer

# "loads in under 2 s with 10,000 detections".
MOST_SECONDS = 2.0
SIZE = (480, 640)  # height and width of a picture
CELLS = (25, 34)  # of a heatmap
KINDS = 8  # different pictures; the others are copies


class ManyBoxes(QuickExplainer):
    """Finds so many boxes in every picture, somewhere, with smooth maps."""

    def __init__(self, boxes: int) -> None:
        super().__init__()
        self.boxes = boxes
        self.random = np.random.default_rng(0)
        self.categories = ("__background__", *(f"category {number}" for number in range(20)))

    def _explain(self, picture: Tensor, request: ExplainRequest) -> list[Explanation]:
        height, width = picture.shape[1:]
        return [self._one(index, height, width, request) for index in range(self.boxes)]

    def _one(self, index: int, height: int, width: int, request: ExplainRequest) -> Explanation:
        x, y = self.random.uniform(0, 0.8, 2)
        across, down = self.random.uniform(0.05, 0.2, 2)
        rows = torch.linspace(0, 1, CELLS[0])[:, None] - (y + down / 2)
        columns = torch.linspace(0, 1, CELLS[1])[None] - (x + across / 2)
        label = int(self.random.integers(1, len(self.categories)))
        return Explanation(
            index=index,
            box=(x * width, y * height, (x + across) * width, (y + down) * height),
            label=label,
            category=self.categories[label],
            score=float(self.random.uniform(0.5, 1)),
            method=request.method,
            target=request.target_name,
            layer="emitting",
            level="0",
            heatmap=torch.exp(-(rows**2 + columns**2) / 0.01),
            geometry=Geometry(width, height, float(width), float(height), 1.0, 1.0),
        )


def run_of_many(folder: Path, pictures: int, boxes: int) -> SavedRun:
    """A finished run of so many pictures, in each of which so many boxes were explained."""
    kinds = []
    for seed in range(KINDS):
        buffer = io.BytesIO()
        to_image(random_picture(*SIZE, seed)).save(buffer, "JPEG", quality=85)
        kinds.append(buffer.getvalue())
    names = [f"{number:06d}.jpg" for number in range(pictures)]
    put(str(folder / "in"), {name: kinds[place % KINDS] for place, name in enumerate(names)})
    options = {"overlays": "none", "pictures": False, "shard_size": 256, "batch_size": 16}
    job = Job(str(folder / "in"), str(folder / "out"), ManyBoxes(boxes), options)
    job.run()
    return SavedRun.open(job.output)


@dataclass(frozen=True)
class Loaded:
    """Seconds since the page was asked for, till its first card with a picture stood there, and
    till all boxes were read and filters answered; the elements of the page, boxes of the gallery,
    and seconds from a filter's change to its answer."""

    first_card: float
    interactive: float
    elements: int
    boxes: int
    filtered: float


# Noted in the page, so that what a driver takes does not count.
WATCH = """
document.addEventListener("load", ({target}) => {
  const painted = target.naturalWidth > 1 && target.closest?.(".card");
  if (painted && !window.firstCard) window.firstCard = performance.now();
}, true);
new MutationObserver(() => {
  if (document.documentElement?.dataset.ready && !window.ready) window.ready = performance.now();
}).observe(document, {attributes: true, subtree: true, attributeFilter: ["data-ready"]});
"""
FILTER = """async () => {
  const started = performance.now();
  const category = document.getElementById("category");
  const before = document.getElementById("hits").textContent;
  category.value = category.options[3].value;
  category.dispatchEvent(new Event("change"));
  while (document.getElementById("hits").textContent === before) {
    await new Promise((resolve) => setTimeout(resolve, 1));
  }
  return performance.now() - started;
}"""


def measured(browser: Browser, address: str) -> Loaded:
    """The page opened anew, nothing of it cached."""
    with browser.new_context(viewport={"width": 1440, "height": 1000}) as context:
        page = context.new_page()
        page.add_init_script(WATCH)
        page.goto(f"{address}#order=worst&heat=")
        while not page.evaluate("window.ready && window.firstCard"):
            page.wait_for_timeout(50)  # wait_for_function would need eval, which the page forbids
        first, ready = page.evaluate("[window.firstCard, window.ready]")
        said = page.locator("#hits").inner_text()
        boxes = re.search(r"with ([\d,]+) boxes", said)
        assert boxes, said
        return Loaded(
            first / 1000,
            ready / 1000,
            page.locator("*").count(),
            int(boxes[1].replace(",", "")),
            page.evaluate(FILTER) / 1000,
        )


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pictures", type=int, default=500)
    parser.add_argument("--boxes", type=int, default=20, help="in each picture")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        run = run_of_many(Path(folder), options.pictures, options.boxes)
        started = time.perf_counter()
        page = ReportPageOptions(gallery=options.pictures)
        write_report(run, run.output, page)
        print(f"written in {time.perf_counter() - started:.1f} s")
        sizes = [entry.size for entry in run.output.entries("report/")]
        print(f"{len(sizes)} files, {sum(sizes) / 2**20:.1f} MiB")
        path = shutil.which("chromium")
        with playwright.chromium.launch(executable_path=path, chromium_sandbox=False) as browser:
            address = Path(run.output.uri, "report/index.html").as_uri()
            found = [measured(browser, address) for _ in range(options.rounds)]
    for name in ("first_card", "interactive", "filtered"):
        values = [getattr(each, name) for each in found]
        print(f"{name}: {statistics.median(values):.2f} s ({min(values):.2f} to {max(values):.2f})")
    print(f"{found[0].boxes} boxes, {found[0].elements} elements")


if __name__ == "__main__":
    main()
