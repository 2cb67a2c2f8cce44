"""TorchServe's entry: one class, thin. Everything it does is done elsewhere in this package."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from ts.context import Context

from handlers import messages
from handlers.explainer import Explainer
from handlers.images import PictureError
from handlers.messages import Answer
from handlers.schema import ExplainRequest, RequestError

logger = logging.getLogger(__name__)


class ExplainHandler:
    """Answers predict, explain and describe requests, each item of a batch by itself.

    The exact three calls of TorchServe: construction, `initialize(context)` once, and
    `handle(data, context)` for every batch, with as many answers as items, in their order.
    """

    def __init__(self) -> None:
        self.initialized = False

    def initialize(self, context: Context) -> None:
        """Loads the archive that TorchServe unpacked into `model_dir`."""
        properties = context.system_properties
        device = "cpu"
        if properties.get("gpu_id") is not None:
            device = f"cuda:{properties['gpu_id']}"
        # TorchServe runs what the archive holds in any case; who deploys it has verified it.
        self.explainer = Explainer.from_archive(
            properties["model_dir"], device=device, run_code=True
        )
        self.initialized = True
        manifest = self.explainer.manifest
        assert manifest is not None  # from_archive always has one
        logger.info("%s %s is ready on %s", manifest.name, manifest.version, device)

    def handle(self, data: list[Mapping[str, Any]], context: Context) -> list[bytes]:
        """One answer for each item of `data`; a bad item gets its own 4xx with a JSON reason."""
        answers = []
        for index, item in enumerate(data):
            answer = self._answer(item, context.get_all_request_header(index))
            context.set_response_status(code=answer.status, idx=index)
            context.set_response_content_type(index, answer.content_type)
            answers.append(answer.body)
        return answers

    def _answer(self, item: Mapping[str, Any], headers: Mapping[str, str]) -> Answer:
        try:
            if headers.get("describe") == "True":
                return Answer(messages.to_json(self.describe()))
            message = messages.parse_message(item, self.explainer.defaults)
            self.explainer.check(message.request)
            if headers.get("explain") == "True":
                content_type, write = messages.WRITERS[message.format]
                request = self._affordable(message.request)
                explanations = self.explainer.explain([message.picture], request)[0]
                return Answer(write(message.picture, explanations), content_type)
            if message.format != "json":
                raise RequestError("format", message.format, "json, for predictions")
            if message.request.box or message.request.candidates:
                raise RequestError("box or candidates", "a prediction", "only in explanations")
            detections = self.explainer.detect([message.picture])[0]
            chosen = self.explainer.choose(detections.labels, detections.scores, message.request)
            return Answer(messages.detections_json(detections, chosen, self.explainer.categories))
        except (RequestError, PictureError) as error:
            return _error(400, error)
        except Exception as error:  # TorchServe would answer 503 to the whole batch
            logger.exception("a request failed")
            return _error(500, error)

    def _affordable(self, request: ExplainRequest) -> ExplainRequest:
        most = self.explainer.resolved(request).max_detections
        assert most is not None  # it is resolved
        if request.box or request.sum_boxes:
            most = 1
        return messages.affordable(request, request.candidates or most)

    def describe(self) -> dict[str, Any]:
        """What this endpoint is and what it can be asked."""
        manifest = self.explainer.manifest
        assert manifest is not None  # from_archive always has one
        background = int(self.explainer.detector.background)
        return {
            "name": manifest.name,
            "version": manifest.version,
            "architecture": manifest.architecture,
            "digest": manifest.digest,
            "categories": list(self.explainer.categories[background:]),
            "methods": self.explainer.methods,
            "targets": self.explainer.targets,
            "layers": self.explainer.layers,
            "defaults": asdict(self.explainer.defaults),
            "formats": list(messages.WRITERS),
            "torch": manifest.torch,
            "torchvision": manifest.torchvision,
            "whybox": manifest.whybox,
        }


def _error(status: int, error: Exception) -> Answer:
    reason = str(error) if status == 400 else "internal error; the server's log has it"
    body = {"error": {"type": type(error).__name__, "message": reason}}
    return Answer(messages.to_json(body), status=status)
