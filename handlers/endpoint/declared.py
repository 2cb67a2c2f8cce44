"""The metrics of an endpoint, declared once: for the server's configuration, and for who counts.

Importing this costs nothing, so that what only starts a server need not load torch.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

COUNTER, HISTOGRAM, GAUGE = "counter", "histogram", "gauge"
# The label of a histogram's buckets, and that of the last one, as Prometheus has them.
BUCKET_LABEL, REST = "le", "+Inf"


@dataclass(frozen=True)
class Metric:
    """name, kind, unit: as Prometheus shows it. dimensions: names of its labels, besides the
    model's. what: it says, for a reader. buckets: a histogram's upper bounds."""

    name: str
    kind: str
    unit: str
    dimensions: tuple[str, ...]
    what: str
    buckets: tuple[float, ...] = ()

    @property
    def server_kind(self) -> str:
        """The kind by which the server knows its parts: the buckets of TorchServe's own histograms
        cannot be chosen and end at 10, so that ours are counters for each bucket."""
        return COUNTER if self.kind == HISTOGRAM else self.kind

    def bounds(self, value: float = -math.inf) -> list[str]:
        """A histogram's buckets in which a value counts: all that it is not above, by their labels;
        those of the least value are all that there are."""
        return [*(f"{bound:g}" for bound in self.buckets if value <= bound), REST]

    def parts(self) -> dict[str, tuple[str, ...]]:
        """What the server counts: names, and the names of their labels."""
        if self.kind != HISTOGRAM:
            return {self.name: self.dimensions}
        return {
            f"{self.name}_bucket": (*self.dimensions, BUCKET_LABEL),
            f"{self.name}_sum": self.dimensions,
            f"{self.name}_count": self.dimensions,
        }


# Every metric has these labels first.
MODEL = ("model", "version")
REQUESTS = Metric(
    "whybox_requests_total", COUNTER, "count", ("verb", "status"), "requests, by HTTP status"
)
REJECTED = Metric(
    "whybox_rejected_total",
    COUNTER,
    "count",
    ("reason",),
    "pictures and requests with an error, by its kind",
)
PICTURES = Metric("whybox_pictures_total", COUNTER, "count", (), "pictures that were decoded")
DETECTIONS = Metric(
    "whybox_detections_total", COUNTER, "count", (), "boxes that the detector reported"
)
EXPLANATIONS = Metric(
    "whybox_explanations_total",
    COUNTER,
    "count",
    ("method", "status"),
    "pictures to be explained, by method and HTTP status",
)
EXPLAINED = Metric("whybox_explained_boxes_total", COUNTER, "count", ("method",), "heatmaps made")
SECONDS = Metric(
    "whybox_stage_seconds",
    HISTOGRAM,
    "s",
    ("stage",),
    "seconds that a picture takes to decode, detect, explain, encode",
    buckets=(0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100),
)
BATCH = Metric(
    "whybox_batch_requests",
    HISTOGRAM,
    "count",
    (),
    "requests answered together",
    buckets=(1, 2, 4, 8, 16, 32),
)
ARCHIVE = Metric(
    "whybox_archive_info", GAUGE, "count", ("digest",), "1 for the archive that is served"
)
METRICS = (
    REQUESTS,
    REJECTED,
    PICTURES,
    DETECTIONS,
    EXPLANATIONS,
    EXPLAINED,
    SECONDS,
    BATCH,
    ARCHIVE,
)
