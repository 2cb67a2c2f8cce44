"""Why objects were missed."""

from __future__ import annotations

import pytest

from handlers.explainer import Explainer
from handlers.schema import ExplainRequest
from jobs.audit.triage.errors import Missed
from jobs.audit.triage.why_not import Candidate, nearest_candidates, why
from tests.conftest import scene_picture

A = (0.0, 0.0, 10.0, 10.0)
NEAR, OFF = (0.0, 0.0, 10.0, 8.0), (0.0, 0.0, 10.0, 4.0)


@pytest.mark.parametrize(
    ("candidate", "kind", "severity", "says"),
    [
        (None, "no candidate", 1, "no candidate on the whole picture"),
        (Candidate(OFF, 0.9, "reported as box 1"), "not proposed", 1, "by an IoU of 0.40"),
        (Candidate(NEAR, 0.3, "reported as box 1"), "below the run's threshold", 0.7, "is 0.5"),
        (Candidate(NEAR, 0.6, "reported as box 1"), "dropped", 0.4, "not in this run"),
        (
            *(Candidate(NEAR, 0.02, "below the score threshold of 0.05"), "too low a score", 0.98),
            "its candidate scores 0.020 and was dropped: below the score threshold of 0.05",
        ),
        (Candidate(NEAR, 0.8, "suppressed by box 2 (x)"), "suppressed", 0.2, "by box 2"),
        (Candidate(NEAR, 0.8, "beyond the limit of 9 boxes"), "dropped", 0.2, "limit of 9"),
    ],
)
def test_whys_by_hand(candidate: Candidate | None, kind: str, severity: float, says: str) -> None:
    found = why(Missed("cat", A, 0.0), candidate, 0.5)
    assert found.kind == kind
    assert found.severity == pytest.approx(severity)
    assert says in found.says


def test_candidates_are_those_that_a_request_explains(demo: Explainer) -> None:
    picture = scene_picture(4)
    missed = [Missed("mug", (60, 80, 200, 220), 0), Missed("fish", (10, 10, 60, 50), 0)]
    for each, found in zip(missed, nearest_candidates(demo, picture, missed), strict=True):
        request = ExplainRequest(method="eigencam", box=each.box, category=each.category)
        ((expected,),) = demo.explain([picture], request)
        assert found is not None
        assert found.box == pytest.approx(expected.box)
        assert found.score == pytest.approx(expected.score)
        assert found.outcome == expected.outcome
