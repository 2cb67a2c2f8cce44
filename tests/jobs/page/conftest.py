"""What the report's tests share: small runs with findings, and a browser."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from archives.stores.opening import open_store
from jobs.audit.findings import Finding, Part, Table, write_part
from jobs.saved_run import SavedRun
from tests.conftest import put
from tests.jobs.conftest import CURSED_WIDTH, Job, picture_bytes

# Names that would do harm in a page, in an address, or in what a person believes to read.
HOSTILE = (
    "%2e%2e/<script>document.title='gone'</script>.png",
    "\"onload='alert(1)' & {{ 7*7 }}\n.png",
    "\u202egnp.exe#x=1&y=%2F.png",
)


@pytest.fixture
def make_run(tmp_path: Path, make_job: Callable[..., Job]) -> Callable[..., SavedRun]:
    """A run on pictures of these names; their greys are 100, 110, ...; `cursed` ones fail, `black`
    ones have no boxes."""

    def make(*names: str, output: str = "out", **options: Any) -> SavedRun:
        pictures = {}
        for number, name in enumerate(names):
            width = CURSED_WIDTH if "cursed" in name else 12
            grey = 0 if "black" in name else 100 + 10 * number
            pictures[name] = picture_bytes(width, grey=grey)
        put(str(tmp_path / f"in-{output}"), pictures)
        chosen = {"overlays": "none", **options}
        job = make_job(str(tmp_path / f"in-{output}"), str(tmp_path / output), **chosen)
        job.run()
        return SavedRun.open(job.output)

    return make


def audit(run: SavedRun, *findings: Finding, name: str = "triage", **figures: float) -> Part:
    """A part of an audit that found these, written."""
    table = Table("Means", "By method.", ("method", "mean"), (("odam", (0.5, 0.02)), ("x", None)))
    part = Part(name, f"The {name}", "What was asked.", (table,), findings, figures)
    write_part(run.output, part)
    return part


def write_thresholds(run: SavedRun, energy: float, least: float, digest: str = "") -> None:
    """An audit.json of one figure, "energy"."""
    archive = dict(run.record["archive"])
    del archive["uri"]
    report = {
        "schema_version": 1,
        "archive": archive | ({"digest": digest} if digest else {}),
        "created": "2026-03-02T04:00:00Z",
        "figures": {"energy": energy},
        "thresholds": [{"figure": "energy", "at_least": least}],
        "passed": energy >= least,
    }
    run.output.write("audit.json", json.dumps(report).encode())


def data_of(run: SavedRun, name: str) -> Any:
    """What a script of the report hands to the page."""
    text = open_store(run.output.uri).read(f"report/data/{name}.js").decode("ascii")
    call, _, rest = text.partition(", ")
    assert call == f'whybox.receive("{name}"'
    return json.loads(rest.removesuffix(");\n"))
