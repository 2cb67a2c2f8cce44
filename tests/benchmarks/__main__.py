"""Every claim about speed, ours and the peers' side by side: `make bench`.

Each work runs both sides in turn, several rounds, on the same pictures, weights and threads, checks
that they computed the same where they should, and writes DEVICE-WORK.json and tables.md to a
folder. Exit status 4: a figure is on the wrong side of its limit, or the two sides' results differ;
works that could not run here are named and do not count.
"""

from __future__ import annotations

import argparse
import signal
import sys
import tempfile
from importlib import import_module
from pathlib import Path

import torch

from tests.benchmarks.harness import Row, Settings, SkippedError, Work
from tests.benchmarks.machine import machine
from tests.benchmarks.report import tables, written

# By name: modules here that have a WORK each.
WORKS = (
    *("two_stage", "one_stage", "group_norm", "inner_layer", "ablation", "drise"),
    *("precision", "classification", "throughput", "methods", "targets_and_layers"),
    *("serving", "jobs"),
)
# The figures that the repository keeps, and the table of them all.
KEPT = Path("docs/benchmarks")
TABLES = "tables.md"


def find_work(name: str) -> Work:
    """The work of that name."""
    work: Work = import_module(f"tests.benchmarks.{name}").WORK
    return work


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__)
    parser.add_argument(
        "works", nargs="*", metavar="WORK", help=f"all, or some of {', '.join(WORKS)}"
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--masks", type=int, default=1000, help="of D-RISE")
    parser.add_argument(
        "--output",
        type=Path,
        metavar="FOLDER",
        help="docs/benchmarks by itself; of tiny work a temporary folder",
    )
    parser.add_argument(
        "--tiny", action="store_true", help="small pictures: to see that it runs, not how fast"
    )
    options = parser.parse_args(arguments)
    unknown = [name for name in options.works if name not in WORKS]
    if unknown:
        parser.error(f"no work is called {unknown[0]!r}; there are {', '.join(WORKS)}")
    if options.device.startswith("cuda") and not torch.cuda.is_available():
        parser.error("torch finds no CUDA device here; leave DEVICE out, or run where there is one")
    # As Ctrl-C does: a server that a work has started ends with it.
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    settings = Settings(options.rounds, options.device, options.masks, options.tiny)
    folder = options.output or (Path(tempfile.mkdtemp()) if options.tiny else KEPT)
    wrong = False
    for name in options.works or WORKS:
        wrong |= run_work(name, settings, folder)
    (folder / TABLES).write_text(tables(folder, WORKS))
    print(f"written to {folder}")
    return 4 if wrong and not settings.tiny else 0


def run_work(name: str, settings: Settings, folder: Path) -> bool:
    """Prints its rows as they come and writes them down; whether one is wrong."""
    work = find_work(name)
    about = machine(settings.device)
    print(f"{name}: {work.title}", flush=True)
    torch.manual_seed(0)
    rows: list[Row] = []
    skipped = ""
    try:
        for row in work.run(settings):
            rows.append(row)
            print(_line(row), flush=True)
    except SkippedError as error:
        skipped = str(error)
    except ModuleNotFoundError as error:
        skipped = f"needs {error.name}; pip install '.[bench]'"
    if skipped:
        print(f"  not run: {skipped}", flush=True)
    written(folder, name, work.title, settings, about, rows, skipped)
    return any(row.wrong for row in rows)


def _line(row: Row) -> str:
    goal = ""
    if row.goal is not None:
        goal = f" ({row.goal}: {'met' if row.goal.met(row.value) else 'MISSED'})"
    return f"  {row.case}: {row.measure} {row.value:.4g}{goal} {row.same}".rstrip()


if __name__ == "__main__":
    sys.exit(main())
