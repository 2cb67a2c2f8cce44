"""TorchServe's entry: one class, thin. Everything it does is done elsewhere in this package."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from ts.context import Context

from handlers.endpoint.batch import Endpoint
from handlers.endpoint.items import DESCRIBE, EXPLAIN, PREDICT, Item
from handlers.endpoint.settings import Settings
from handlers.explainer import Explainer

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
        explainer = Explainer.from_archive(properties["model_dir"], device=device, run_code=True)
        settings = Settings.of(getattr(context, "model_yaml_config", None))
        self.endpoint = Endpoint(explainer, settings)
        self.endpoint.warm_up()
        self.initialized = True
        manifest = explainer.manifest
        assert manifest is not None  # from_archive always has one
        logger.info("%s %s is ready on %s", manifest.name, manifest.version, device)

    def handle(self, data: list[Mapping[str, Any]], context: Context) -> list[bytes]:
        """One answer for each item of `data`; a bad item gets its own 4xx with a JSON reason."""
        items = [
            _item(each, context.get_all_request_header(index)) for index, each in enumerate(data)
        ]
        answers = self.endpoint.answer(items)
        for index, answer in enumerate(answers):
            context.set_response_status(code=answer.status, idx=index)
            context.set_response_content_type(index, answer.content_type)
            for name, value in answer.headers.items():
                context.set_response_header(index, name, value)
        return [answer.body for answer in answers]


def _item(fields: Mapping[str, Any], headers: Mapping[str, str]) -> Item:
    # TorchServe's own headers are of lower case; a client's may be called Explain and say nothing.
    verb = PREDICT
    if headers.get("describe") == "True":
        verb = DESCRIBE
    elif headers.get("explain") == "True":
        verb = EXPLAIN
    accept = next((text for name, text in headers.items() if name.lower() == "accept"), "")
    return Item(verb, fields, accept)
