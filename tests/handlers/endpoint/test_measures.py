from __future__ import annotations

import re

from handlers.endpoint.items import DESCRIBE, EXPLAIN, PREDICT, Item
from handlers.endpoint.measures import first_measures, measures
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
    found = {(each.part, *each.labels, each.value) for each in measures(REPORTS)}
    histograms = {each for each in found if re.match("whybox_(stage|batch)", str(each[0]))}
    assert len({each[:-1] for each in found}) == len(found)
    assert found - histograms == {
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
    }
    assert list(measures([])) == []


def test_a_value_counts_in_all_buckets_that_it_is_not_above() -> None:
    found = {(each.part, *each.labels): each.value for each in measures(REPORTS)}
    buckets = {key[2]: value for key, value in found.items() if key[1:2] == ("detect",) and key[2:]}
    assert buckets == dict.fromkeys(("0.5", "1", "2", "5", "10", "20", "50", "100", "+Inf"), 1)
    assert found["whybox_stage_seconds_bucket", "decode", "0.01"] == 1
    assert ("whybox_stage_seconds_bucket", "decode", "0.005") not in found
    assert found["whybox_stage_seconds_sum", "explain"] == 0.2
    assert found["whybox_stage_seconds_count", "explain"] == 1
    assert found["whybox_batch_requests_bucket", "4"] == 1
    assert ("whybox_batch_requests_bucket", "2") not in found


def test_at_first_there_is_nothing_in_any_bucket() -> None:
    first = {(each.part, *each.labels): each.value for each in first_measures("abc")}
    assert first.pop(("whybox_archive_info", "abc")) == 1
    assert set(first.values()) == {0}
    later = {(each.part, *each.labels) for each in measures(REPORTS)}
    assert {key for key in later if re.match("whybox_(stage|batch)", key[0])} <= first.keys()


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
