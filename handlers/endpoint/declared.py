"""The metrics of an endpoint, declared once: for the server's configuration, and for who counts.

Importing this costs nothing, so that what only starts a server need not load torch.
"""

from __future__ import annotations

from dataclasses import dataclass

COUNTER, HISTOGRAM, GAUGE = "counter", "histogram", "gauge"


@dataclass(frozen=True)
class Metric:
    """name, kind, unit: as Prometheus shows it; a histogram's buckets are the server's, 0.005 to
    10. dimensions: names of its labels, besides the model's. what: it says, for a reader."""

    name: str
    kind: str
    unit: str
    dimensions: tuple[str, ...]
    what: str


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
)
BATCH = Metric("whybox_batch_requests", HISTOGRAM, "count", (), "requests answered together")
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
