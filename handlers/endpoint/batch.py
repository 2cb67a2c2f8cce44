"""A batch of requests of all kinds: one look at all pictures, an answer of its own for each."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any

import torch

from handlers.cam.registry import Evidence, evidence_of
from handlers.detectors.base import Found, Inputs, to_detections
from handlers.endpoint.answers import detection_rows, to_json
from handlers.endpoint.describe import describe
from handlers.endpoint.items import DESCRIBE, EXPLAIN, PREDICT, Item
from handlers.endpoint.json_log import REQUEST
from handlers.endpoint.kserve import Opened, opened
from handlers.endpoint.object_reference import (
    ForbiddenBucketError,
    MissingObjectError,
    StoreError,
)
from handlers.endpoint.observation import DECODE, ENCODE, EXPLAINING, Observation, detecting
from handlers.endpoint.reading import Message, parse_message
from handlers.endpoint.report import Report
from handlers.endpoint.settings import Settings
from handlers.endpoint.writing import (
    Answer,
    Explained,
    NotAcceptableError,
    error_answer,
    explanations_answer,
    picture_type,
)
from handlers.explainer import Explainer
from handlers.fields import RequestError
from handlers.images import PictureError
from handlers.schema import ExplainRequest
from handlers.tap import undisturbed
from handlers.time_limit import OutOfTimeError, time_limit

logger = logging.getLogger(__name__)

# Pictures that are decoded, or fetched, at once: at most, since a decoded one takes memory.
READERS = min(8, os.cpu_count() or 1)
# Masks that D-RISE and D-CLOSE look at where the request does not say.
MASKS = 1000
# Of its part of an answer, for one of several in it: quotes in JSON text take two bytes there.
ROOM = 0.8
WARM_UP_SIZE = (480, 640)
# Of what there seems to be time for, a trimmed request asks for so much.
CAUTION = 0.8


class TooCostlyError(RuntimeError):
    """An answer for which there is not the time, or that is too large."""


# The first that fits.
STATUSES: dict[type[Exception], int] = {
    ForbiddenBucketError: 403,
    MissingObjectError: 404,
    NotAcceptableError: 406,
    TooCostlyError: 422,
    StoreError: 502,
    RequestError: 400,
    PictureError: 400,
}
KNOWN = tuple(STATUSES)


@dataclass(frozen=True)
class _Asked:
    """A request that was read: the network's input of its picture, and what to answer with."""

    item: Item
    message: Message
    inputs: Inputs


class Endpoint:
    """Answers batches; each item of one by itself, whatever its neighbours are."""

    def __init__(self, explainer: Explainer, settings: Settings) -> None:
        self.explainer, self.settings = explainer, settings
        self.readers = ThreadPoolExecutor(READERS, "reader")

    def warm_up(self) -> None:
        """Detects and explains once, so that the first request does not wait for what happens only
        once: memory, kernels, compiling. Called before the server counts this worker as ready; what
        goes wrong here is for the log, and for the requests that meet it."""
        generator = torch.Generator().manual_seed(0)
        picture = torch.randint(256, (3, *WARM_UP_SIZE), dtype=torch.uint8, generator=generator)
        request = replace(
            self.explainer.defaults, box=None, candidates=1, masks=1, score_threshold=0.0
        )
        start = time.monotonic()
        try:
            self.explainer.detect([picture])
            with time_limit(self.settings.seconds):
                self.explainer.explain([picture], request)
        except Exception as error:  # requests that ask for another thing may do
            logger.warning("a first explanation, by the archive's defaults, failed: %s", error)
        logger.info("the first explanation took %.2f s", time.monotonic() - start)

    def answer(self, items: Sequence[Item]) -> list[Answer]:
        """As many answers as items, in their order. A bad item gets its own 4xx with a JSON
        reason, and one that meets a bug a 500."""
        return [report.answer for report in self.report(items)]

    def report(self, items: Sequence[Item]) -> list[Report]:
        """The same, with what there is to say about each request."""
        start = time.monotonic()
        several = [self._guarded(item, partial(opened, item, self._model)) for item in items]
        inside = [
            replace(each, observation=Observation())
            for one in several
            if isinstance(one, Opened)
            for each in one.items
        ]
        answered = zip(inside, self._answers(inside), strict=True)
        folded: list[tuple[Answer, list[Observation]]] = []
        for one in several:
            if isinstance(one, Opened):
                own = [next(answered) for _ in one.items]
                answer = one.fold([each for _, each in own])
                fitting = self._small_enough(answer)
                if fitting is not answer:  # then none of its pictures was answered
                    own = [(item, fitting) for item, _ in own]
                folded.append((fitting, [_observed(*pair) for pair in own]))
            else:
                folded.append((one, []))
        seconds = time.monotonic() - start
        return [
            Report(item, answer, pictures, len(items), seconds)
            for item, (answer, pictures) in zip(items, folded, strict=True)
        ]

    @property
    def _model(self) -> tuple[str, str]:
        manifest = self.explainer.manifest
        return (manifest.name, manifest.version) if manifest else ("", "")

    def _answers(self, items: Sequence[Item]) -> list[Answer]:
        deadline = time.monotonic() + self.settings.seconds
        answers: dict[int, Answer] = {}
        asked: dict[int, _Asked] = {}
        messages = self._messages(items, deadline)
        for place, (item, message) in enumerate(zip(items, messages, strict=True)):
            read = message
            if not isinstance(message, Answer):
                read = self._guarded(item, partial(self._read, item, message))
            if isinstance(read, Answer):
                answers[place] = read
            else:
                asked[place] = read
        with torch.inference_mode(False), undisturbed(self.explainer.detector.model):
            self._look(asked, answers, deadline)
        return [answers[place] for place in range(len(items))]

    def _small_enough(self, answer: Answer) -> Answer:
        """An error instead of an answer that would cost the worker its life."""
        most = self.settings.max_response_size
        if len(answer.body) <= most:
            return answer
        return error_answer(
            422,
            TooCostlyError(
                f"the answer would have {len(answer.body)} bytes, and the server sends {most}: ask"
                " for fewer boxes with max_detections or score_threshold"
            ),
        )

    def _guarded(self, item: Item, run: Callable[[], Any]) -> Any:
        """What `run` gives, or the answer for the error that it met with this item."""
        try:
            return run()
        except KNOWN as error:
            status = next(status for kind, status in STATUSES.items() if isinstance(error, kind))
            return error_answer(status, error)
        except Exception as error:  # the server would answer 503 to the whole batch
            logger.exception("a request failed", extra={REQUEST: item.caller.request_id})
            return error_answer(500, error, "internal error; the server's log has it")

    def _messages(self, items: Sequence[Item], deadline: float) -> list[Any]:
        """Of each its message, or an answer. Pictures are decoded, and fetched, side by side."""
        if len(items) == 1:
            return [self._guarded(items[0], partial(self._message, items[0]))]
        reading = [self.readers.submit(self._message, item) for item in items]
        return [
            self._guarded(item, partial(_in_time, each, deadline))
            for item, each in zip(items, reading, strict=True)
        ]

    def _message(self, item: Item) -> Message | Answer:
        if item.verb == DESCRIBE:
            return Answer(to_json(asdict(describe(self.explainer))))
        observation = item.observation
        with observation.timed(DECODE):
            message = parse_message(item.fields, self.explainer.defaults, self.settings.buckets)
        observation.height, observation.width = message.picture.shape[1:]
        return message

    def _read(self, item: Item, message: Message) -> _Asked:
        observation = item.observation
        if item.verb == PREDICT:
            self._check_prediction(message)
        elif message.options.format == "overlay":
            picture_type(item.accept)
        self.explainer.check(message.request)
        if item.verb == EXPLAIN:
            observation.asked(message.request)
        with observation.timed(DECODE):
            return _Asked(item, message, self.explainer.prepare(message.picture))

    def _check_prediction(self, message: Message) -> None:
        if message.options.format != "json":
            raise RequestError("format", message.options.format, "json, for predictions")
        for name in ("box", "candidates"):
            value = getattr(message.request, name)
            if value != getattr(self.explainer.defaults, name):
                raise RequestError(name, value, "nothing in a prediction: an explanation takes it")

    def _look(
        self, asked: Mapping[int, _Asked], answers: dict[int, Answer], deadline: float
    ) -> None:
        """Adds an answer for each of `asked`; those of one input size share a forward pass."""
        places = list(asked)
        if len(places) > 1:
            try:
                self._look_at(places, asked, answers, deadline)
            except Exception as error:  # whose it is shows when each runs alone
                logger.warning("a shared pass failed, each picture runs alone: %r", error)
        # Out of the handler, which would hold on to the tensors of what failed.
        for place in [each for each in places if each not in answers]:
            run = partial(self._look_at, [place], asked, answers, deadline)
            failed = self._guarded(asked[place].item, run)
            answers.setdefault(place, failed)

    def _look_at(
        self,
        places: Sequence[int],
        asked: Mapping[int, _Asked],
        answers: dict[int, Answer],
        deadline: float,
    ) -> None:
        """Adds answers for some of `asked`; raises what a pass of the network does."""
        found = self.explainer.found([asked[place].inputs for place in places])
        for number, each in detecting(found, [asked[place].item.observation for place in places]):
            own = asked[places[number]]
            own.item.observation.detections = len(each.kept.entries.scores)
            # What one leaves of its share is for those that come after it; predictions need none.
            waiting = [
                place
                for place, other in asked.items()
                if place not in answers and other.item.verb == EXPLAIN
            ]
            seconds = max(0.0, deadline - time.monotonic()) / max(1, len(waiting))
            run = partial(self._answer, own, each, seconds)
            answers[places[number]] = self._guarded(own.item, run)

    def _answer(self, asked: _Asked, found: Found, seconds: float) -> Answer:
        message, observation = asked.message, asked.item.observation
        if asked.item.verb == PREDICT:
            detections = to_detections(found.kept, self.explainer.detector.level_names())
            chosen = self.explainer.choose(detections.labels, detections.scores, message.request)
            with observation.timed(ENCODE):
                rows = detection_rows(detections, chosen, self.explainer.categories)
                return Answer(to_json(rows))
        limit = min(seconds, message.options.time_limit or seconds)
        with observation.timed(EXPLAINING):
            explained = self._explain(message, found, limit)
        observation.explanations = len(explained.explanations)
        most = self.settings.max_response_size
        if asked.item.sharers > 1:  # one answer in another, with what stands around it
            most = int(most / asked.item.sharers * ROOM)
        with observation.timed(ENCODE):
            return explanations_answer(explained, message.options.format, asked.item.accept, most)

    def _explain(self, message: Message, found: Found, seconds: float) -> Explained:
        """Within so many seconds. Raises TooCostlyError."""
        request = self.explainer.resolved(message.request)
        if evidence_of(request.method) is Evidence.MASKS and request.masks is None:
            request = replace(request, masks=MASKS)
        start, trimmed = time.monotonic(), dict[str, int]()
        while True:
            spent = time.monotonic() - start
            try:
                with time_limit(seconds - spent):
                    explanations = self.explainer.explain_found(found, request)
                return Explained(message.picture, request, explanations, trimmed)
            except OutOfTimeError as error:
                left = seconds - (time.monotonic() - start)
                fewer = self._trimmed(request, found, left / error.needed)
                if message.options.over_limit != "trim" or not fewer:
                    needed = spent + error.needed
                    raise _too_costly(needed, seconds, trimmable=bool(fewer)) from error
                trimmed |= fewer
                changes: dict[str, Any] = dict(fewer)
                request = replace(request, **changes)

    def _trimmed(self, request: ExplainRequest, found: Found, share: float) -> dict[str, int]:
        """Fields with which the request costs at most this share of what it does; none if there is
        nothing to be had by fewer boxes or masks."""
        share *= CAUTION
        evidence = evidence_of(request.method)
        if evidence is Evidence.MASKS:
            assert request.masks is not None  # _explain has filled it in
            fewer, name, now = int(request.masks * share), "masks", request.masks
        elif evidence is Evidence.CHANNELS_AS_MASKS or request.box or request.sum_boxes:
            return {}
        elif request.candidates:
            fewer, name, now = int(request.candidates * share), "candidates", request.candidates
        else:
            kept = found.kept.entries
            now = len(self.explainer.choose(kept.labels, kept.scores, request))
            fewer, name = int(now * share), "max_detections"
        return {name: fewer} if 0 < fewer < now else {}


def _observed(item: Item, answer: Answer) -> Observation:
    item.observation.status, item.observation.reason = answer.status, answer.reason
    return item.observation


def _in_time(reading: Future[Message | Answer], deadline: float) -> Message | Answer:
    """What was read. Raises what reading did, or TooCostlyError when the batch's time is over."""
    wait([reading], max(0.0, deadline - time.monotonic()))
    if not reading.done():
        reading.cancel()
        raise TooCostlyError(
            "there was no time left to read this picture, after others of its batch: ask again"
        )
    return reading.result()


def _too_costly(needed: float, seconds: float, trimmable: bool) -> TooCostlyError:
    advice = "choose a cheaper method or layer"
    if trimmable:
        advice = (
            "ask for fewer boxes or masks, or with over_limit=trim for as many as there is time"
        )
    return TooCostlyError(
        f"explaining this takes {needed:.3g} s or more, and there are {seconds:.3g} s for it:"
        f" {advice}"
    )
