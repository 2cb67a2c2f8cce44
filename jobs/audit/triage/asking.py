"""Pictures shown to the detector again: moved a little, and asked about what it missed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any

from archives.stores.store import Entry, Store
from handlers.schema import ExplainRequest, Explanation
from jobs.audit.triage.errors import Missed, Why
from jobs.audit.triage.options import TriageOptions
from jobs.audit.triage.shifts import Kept, kept, moved, moves
from jobs.audit.triage.why_not import nearest_candidates, why
from jobs.options import BATCH_SIZE, at_a_time
from jobs.worker.pictures import Failure, Picture, Pools, load_ahead
from jobs.worker.shard import check_whose

if TYPE_CHECKING:
    from handlers.explainer import Explainer

# A moved picture's detections count down to this share of the run's threshold: one that falls a
# little below it is weaker, not lost.
LOWER = 0.5


@dataclass(frozen=True)
class Question:
    """What is asked about one picture. key: in the store. name: printable. move: whether it is
    looked at moved. missed: objects to say why of."""

    key: str
    name: str
    move: bool
    missed: tuple[Missed, ...] = ()


@dataclass(frozen=True)
class Steadiness:
    """The least that any move left of a detection."""

    explanation: Explanation
    kept: Kept
    move: tuple[int, int]


@dataclass(frozen=True)
class Answer:
    """Of one picture: its detections, and why each of the question's objects was missed."""

    question: Question
    steadiness: tuple[Steadiness, ...]
    whys: tuple[Why, ...]


def request_of(record: Mapping[str, Any]) -> ExplainRequest:
    """What a run was asked, of its first layer where it has several."""
    names = {each.name for each in fields(ExplainRequest)}
    options = record["options"]
    request = ExplainRequest.from_fields(
        {name: options[name] for name in names if options.get(name) is not None}
    )
    layer = request.layer if request.fuse or request.layer is None else request.layers[0]
    return replace(request, layer=layer, save_raw=False)


def answers(
    explainer: Explainer,
    source: Store,
    questions: Sequence[Question],
    request: ExplainRequest,
    options: TriageOptions,
) -> Iterator[Answer | Failure]:
    """One for each question, in their order. A picture that is gone, or breaks, is a Failure."""
    pools = Pools.start()
    try:
        entries = (Entry(each.key, -1, "") for each in questions)
        loaded = load_ahead(source, entries, pools.transfer, options.batch_size or BATCH_SIZE)
        for question, each in zip(questions, loaded, strict=True):
            if isinstance(each, Failure):
                yield each
                continue
            try:
                yield _answer(explainer, each, question, request, options)
            except Exception as error:  # what a network raises for a picture is that picture's
                check_whose(error)
                yield Failure.of(question.key, "explain", error)
    finally:
        pools.shutdown()


def _answer(
    explainer: Explainer,
    picture: Picture,
    question: Question,
    request: ExplainRequest,
    options: TriageOptions,
) -> Answer:
    threshold = request.score_threshold or 0.0
    steadiness: tuple[Steadiness, ...] = ()
    if question.move and options.shifts:
        lower = replace(request, score_threshold=threshold * LOWER)

        def explain(pictures: list[Any]) -> list[list[Explanation]]:
            return explainer.explain(pictures, lower, **at_a_time(options.batch_size))

        steadiness = tuple(steady(explain, picture, threshold, options.shifts))
    whys: tuple[Why, ...] = ()
    if question.missed:
        candidates = nearest_candidates(explainer, picture.pixels, question.missed)
        pairs = zip(question.missed, candidates, strict=True)
        whys = tuple(why(missed, candidate, threshold) for missed, candidate in pairs)
    return Answer(question, steadiness, whys)


def steady(
    explain: Callable[[list[Any]], list[list[Explanation]]],
    picture: Picture,
    threshold: float,
    number: int,
) -> Iterator[Steadiness]:
    """Each detection that scores at least `threshold`, and the least that `number` moves left of
    it; not of one that every move takes off the picture."""
    _, height, width = picture.pixels.shape
    ways = moves(width, height, number)
    pictures = [picture.pixels, *(moved(picture.pixels, *way) for way in ways)]
    first, *others = explain(pictures)
    first = [each for each in first if each.score >= threshold]
    left = [kept(first, own, *way) for own, way in zip(others, ways, strict=True)]
    for place, explanation in enumerate(first):
        stays = [
            (found, way)
            for own, way in zip(left, ways, strict=True)
            if (found := own[place]) is not None
        ]
        if stays:
            least, way = min(stays, key=lambda pair: pair[0].stability)
            yield Steadiness(explanation, least, way)
