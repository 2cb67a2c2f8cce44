from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import yaml

from archives.serving.monitoring import LOGGING, REQUEST_LOG, write_metrics
from handlers.endpoint.declared import METRICS

ROOT = Path(__file__).parents[3]
HISTOGRAM_PARTS = r"_(bucket|sum|count)$"
# TorchServe's own that the dashboard shows.
OWN = {"Requests4XX", "Requests5XX", "ts_queue_latency_microseconds", "ts_inference_requests_total"}


def test_metrics_are_declared_beside_the_servers_own(tmp_path: Path) -> None:
    path = write_metrics(tmp_path)
    assert path.stat().st_mode & 0o777 == 0o600
    declared = yaml.safe_load(path.read_text())
    assert {each["name"] for each in declared["ts_metrics"]["counter"]} >= OWN
    ours = declared["model_metrics"]
    stage, bucket = ["model", "version", "stage"], ["model", "version", "stage", "le"]
    for name, dimensions in (("sum", stage), ("count", stage), ("bucket", bucket)):
        entry = {"name": f"whybox_stage_seconds_{name}", "unit": "s", "dimensions": dimensions}
        assert entry in ours["counter"]
    names = [each["name"] for kind in ours.values() for each in kind]
    assert {part for each in METRICS for part in each.parts()} <= set(names)
    assert len(names) == len(set(names))


def test_the_dashboard_shows_every_metric_and_no_other() -> None:
    text = json.dumps(json.loads((ROOT / "docs" / "grafana.json").read_text())["panels"])
    used = re.findall(r"(?:whybox|ts)_\w+|Requests\dXX", text)
    assert {re.sub(HISTOGRAM_PARTS, "", name) for name in used} == OWN | {
        each.name for each in METRICS
    }


def test_the_guide_lists_every_metric() -> None:
    guide = (ROOT / "docs" / "monitoring.md").read_text()
    for each in METRICS:
        row = f"| `{each.name}` | {each.kind} | {', '.join(each.dimensions) or '-'} | {each.what} |"
        assert row in guide


def test_every_log_has_an_end() -> None:
    files = list(ElementTree.parse(LOGGING).iter("RollingFile"))
    assert REQUEST_LOG in {Path(each.attrib["fileName"]).name for each in files}
    for each in files:
        assert "%i" in each.attrib["filePattern"]
        assert each.find("Policies/SizeBasedTriggeringPolicy") is not None
        assert int(each.find("DefaultRolloverStrategy").attrib["max"]) <= 10  # type: ignore[union-attr]
