"""Why the detector did not report an object: what became of its candidate there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from handlers.outcome import Verdicts, shown_score
from handlers.tap import undisturbed
from jobs.audit.triage.errors import LEAST, Box, Missed, Why
from jobs.scoring.matching import overlaps

if TYPE_CHECKING:
    from torch import Tensor

    from handlers.explainer import Explainer

NOT_PROPOSED, UNSURE, BELOW_RUN = "not proposed", "too low a score", "below the run's threshold"
SUPPRESSED, ELSE, NO_CANDIDATE = "suppressed", "dropped", "no candidate"


@dataclass(frozen=True)
class Candidate:
    """The candidate nearest to an object. outcome: as rows have it."""

    box: Box
    score: float
    outcome: str


def nearest_candidates(
    explainer: Explainer, picture: Tensor, missed: Sequence[Missed]
) -> list[Candidate | None]:
    """The candidate nearest to each object, of its category, as `box` and `category` of a request
    choose it; from one pass of the detector. None where there are no candidates at all.

    picture: uint8 [3, H, W].
    """
    detector = explainer.detector
    with undisturbed(detector.model):
        ((_, found),) = explainer.found([explainer.prepare(picture)])
        verdicts = Verdicts(found, detector.limits(), explainer.categories)
        return [_nearest(verdicts, explainer.categories, each) for each in missed]


def _nearest(verdicts: Verdicts, categories: Sequence[str], missed: Missed) -> Candidate | None:
    labels = [label for label, name in enumerate(categories) if name == missed.category]
    chosen = verdicts.nearest(missed.box, labels)
    if not len(chosen):
        return None
    x1, y1, x2, y2 = chosen.boxes[0].tolist()
    score = float(chosen.entries.scores[0])
    return Candidate((x1, y1, x2, y2), score, chosen.outcomes[0].text)


def why(missed: Missed, candidate: Candidate | None, threshold: float) -> Why:
    """threshold: of the run, below which it lists nothing."""
    if candidate is None:
        return Why(NO_CANDIDATE, "there is no candidate on the whole picture", 1.0)
    share = float(overlaps(np.array([missed.box]), np.array([candidate.box]))[0, 0])
    score = shown_score(candidate.score)
    if share < LEAST:
        says = f"the nearest candidate overlaps it by an IoU of {share:.2f} and scores {score}"
        return Why(NOT_PROPOSED, says, 1.0)
    severity = min(max(1 - candidate.score, 0.0), 1.0)
    if candidate.outcome.startswith("reported"):
        if candidate.score < threshold:
            says = f"it is reported with {score}, and the run's threshold is {threshold:g}"
            return Why(BELOW_RUN, says, severity)
        return Why(ELSE, f"its candidate, {score}, is reported, but not in this run", severity)
    kind = ELSE
    if candidate.outcome.startswith("below the score threshold"):
        kind = UNSURE
    elif candidate.outcome.startswith("suppressed"):
        kind = SUPPRESSED
    return Why(kind, f"its candidate scores {score} and was dropped: {candidate.outcome}", severity)
