"""What can be seen of a server from outside: its metrics' declarations and its logs' files."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import yaml

from archives.private_file import write_private
from handlers.endpoint.declared import METRICS, MODEL

LOGGING = Path(__file__).with_name("log4j2.xml")
# Of a server's logs, ours: JSON, one object a line.
REQUEST_LOG = "whybox.jsonl"


def write_metrics(folder: Path) -> Path:
    """Writes `folder/metrics.yaml`: TorchServe's own metrics and those of our endpoint, which it
    shows only if they are declared; gives its path."""
    found = importlib.util.find_spec("ts")
    assert found is not None
    assert found.origin is not None
    own = Path(found.origin).parent / "configs" / "metrics.yaml"
    declared: dict[str, Any] = yaml.safe_load(own.read_text(encoding="utf-8"))
    for each in METRICS:
        for name, dimensions in each.parts().items():
            entry = {"name": name, "unit": each.unit, "dimensions": [*MODEL, *dimensions]}
            declared["model_metrics"].setdefault(each.server_kind, []).append(entry)
    path = folder / "metrics.yaml"
    write_private(path, yaml.safe_dump(declared, sort_keys=False))
    return path
