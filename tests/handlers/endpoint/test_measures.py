from __future__ import annotations

from handlers.endpoint.items import DESCRIBE, EXPLAIN, PREDICT, Item
from handlers.endpoint.measures import measures
from handlers.endpoint.observation import Observation
from handlers.endpoint.report import Report
from handlers.endpoint.writing import Answer


def report(verb: str, answer: Answer, *pictures: Observation) -> Report:
    return Report(Item(verb, {}), answer, pictures, batch=4, seconds=0.5)


GOOD = Observation("odam", "class", "emitting", 40, 30, 7, 3, {"decode": 0.01, "explain": 0.2}, 200)
POOR = Observation("drise", "class", "emitting", 40, 30, 5, 0, {"detect": 0.3}, 422, "TooCostly")
BAD = Observation(status=400, reason="PictureError")
PLAIN = Observation(width=40, height=30, detections=2, status=200)
REPORTS = [
    report(EXPLAIN, Answer(b"12"), GOOD, POOR),
    report(EXPLAIN, Answer(b"", status=400, reason="PictureError"), BAD),
    report(EXPLAIN, Answer(b"", status=400, reason="RequestError")),
    report(PREDICT, Answer(b""), PLAIN),
    report(DESCRIBE, Answer(b""), Observation(status=200)),
]


def test_what_a_batch_adds() -> None:
    found = [(each.metric.name, *each.labels, each.value) for each in measures(REPORTS)]
    seconds = [each for each in found if each[0] == "whybox_stage_seconds"]
    assert seconds == [
        ("whybox_stage_seconds", "decode", 0.01),
        ("whybox_stage_seconds", "explain", 0.2),
        ("whybox_stage_seconds", "detect", 0.3),
    ]
    assert {each for each in found if each not in seconds} == {
        ("whybox_requests_total", "explain", "200", 1),
        ("whybox_requests_total", "explain", "400", 2),
        ("whybox_requests_total", "predict", "200", 1),
        ("whybox_requests_total", "describe", "200", 1),
        ("whybox_rejected_total", "TooCostly", 1),
        ("whybox_rejected_total", "PictureError", 1),
        ("whybox_rejected_total", "RequestError", 1),
        ("whybox_pictures_total", 3),
        ("whybox_detections_total", 7 + 5 + 2),
        ("whybox_explanations_total", "odam", "200", 1),
        ("whybox_explanations_total", "drise", "422", 1),
        ("whybox_explanations_total", "unknown", "400", 1),
        ("whybox_explained_boxes_total", "odam", 3),
        ("whybox_batch_requests", 4),
    }
    assert list(measures([])) == []


def test_the_log_says_who_asked_for_what() -> None:
    entry = REPORTS[0].entry()
    pictures = entry.pop("pictures")
    assert entry == {
        "request_id": "",
        "correlation_id": "",
        "token": "",
        "client": "",
        "verb": "explain",
        "status": 200,
        "reason": "",
        "bytes": 2,
        "batch": 4,
        "seconds": 0.5,
    }
    assert [each["method"] for each in pictures] == ["odam", "drise"]
    assert pictures[0]["seconds"] == {"decode": 0.01, "explain": 0.2}
    assert REPORTS[-1].entry()["pictures"] == []
