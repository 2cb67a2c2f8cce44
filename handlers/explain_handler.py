"""TorchServe's entry: one class, thin. Everything it does is done elsewhere in this package."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from typing import Any

from ts.context import Context
from ts.metrics.metric_cache_errors import MetricsCacheKeyError
from ts.metrics.metric_type_enum import MetricTypes

from handlers.endpoint.batch import Endpoint
from handlers.endpoint.caller import Caller
from handlers.endpoint.declared import METRICS
from handlers.endpoint.items import DESCRIBE, EXPLAIN, PREDICT, Item
from handlers.endpoint.json_log import FIELDS, log_as_json
from handlers.endpoint.measures import Measure, first_measures, measures
from handlers.endpoint.settings import Settings
from handlers.explainer import Explainer

# TorchServe loads this file under another name than the package's.
logger = logging.getLogger("handlers.explain_handler")


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
        manifest = explainer.manifest
        assert manifest is not None  # from_archive always has one
        self.model = (manifest.name, manifest.version)
        log_as_json(
            {"model": manifest.name, "version": manifest.version, "digest": manifest.digest}
        )
        settings = Settings.of(getattr(context, "model_yaml_config", None))
        self.endpoint = Endpoint(explainer, settings)
        self.endpoint.warm_up()
        self.measured = _declared(context)
        self._send(first_measures(manifest.digest), context)
        self.initialized = True
        logger.info("ready on %s", device)

    def handle(self, data: list[Mapping[str, Any]], context: Context) -> list[bytes]:
        """One answer for each item of `data`; a bad item gets its own 4xx with a JSON reason."""
        items = [_item(each, context, index) for index, each in enumerate(data)]
        reports = self.endpoint.report(items)
        for index, report in enumerate(reports):
            answer = report.answer
            context.set_response_status(code=answer.status, idx=index)
            context.set_response_content_type(index, answer.content_type)
            for name, value in answer.headers.items():
                context.set_response_header(index, name, value)
            logger.info("request", extra={FIELDS: report.entry()})
        self._send(measures(reports), context)
        return [report.answer.body for report in reports]

    def _send(self, several: Iterable[Measure], context: Context) -> None:
        if not self.measured:
            return
        for each in several:
            metric = context.metrics.get_metric(each.part, MetricTypes(each.kind))
            metric.add_or_update(each.value, [*self.model, *each.labels])


def _declared(context: Context) -> bool:
    """Whether the server knows our metrics, as one that `archives serve` started does."""
    try:
        for each in METRICS:
            for part in each.parts():
                context.metrics.get_metric(part, MetricTypes(each.server_kind))
    except (AttributeError, MetricsCacheKeyError):
        logger.warning("this server's metrics_config declares none of ours: nothing is counted")
        return False
    return True


def _item(fields: Mapping[str, Any], context: Context, index: int) -> Item:
    # TorchServe puts what describes a form's fields among the headers, under the fields' names.
    given = context.get_all_request_header(index)
    headers = {name: value for name, value in given.items() if isinstance(value, str)}
    # TorchServe's own headers are of lower case; a client's may be called Explain and say nothing.
    verb = PREDICT
    if headers.get("describe") == "True":
        verb = DESCRIBE
    elif headers.get("explain") == "True":
        verb = EXPLAIN
    accept = next((text for name, text in headers.items() if name.lower() == "accept"), "")
    caller = Caller.of(headers, context.get_request_id(index) or "")
    return Item(verb, fields, accept, caller)
