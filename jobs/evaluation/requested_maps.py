"""Which maps a command line asks to measure, as requests."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Protocol

from handlers.method_check import without_layer
from handlers.picture import reads_whole_picture
from handlers.schema import EMITTING, ExplainRequest, RequestError

if TYPE_CHECKING:
    from handlers.explainer import Explainer

# Of a request: what changes its map, and not which boxes it is about.
MAP_FIELDS = (
    *("method", "target", "layer", "fuse", "shared", "smooth", "center_prior"),
    *("ablation", "channels", "masks", "seed"),
)
# The map that the archive gives where a request says nothing.
DEFAULT = "default"


class Wanted(Protocol):
    """Options that name maps, as EvaluateOptions has them."""

    @property
    def methods(self) -> tuple[str, ...]: ...

    @property
    def layers(self) -> tuple[str, ...]: ...

    @property
    def maps(self) -> tuple[str, ...]: ...

    @property
    def target(self) -> str | None: ...


def requested(wanted: Wanted, explainer: Explainer) -> dict[str, ExplainRequest]:
    """The maps by name: each method on each layer, then the others.

    Raises RequestError for names that the detector does not know, and for a target that the boxes
    of a picture have together.
    """
    requests: dict[str, ExplainRequest] = {}
    for name, fields in _named(wanted.methods, wanted.layers, wanted.maps):
        target, method = wanted.target, explainer.defaults.method
        target = target or explainer.defaults.target_name
        if fields is None:
            request = replace(explainer.defaults, target=target)
        else:
            request = ExplainRequest.from_fields({"method": method, "target": target, **fields})
        explainer.check(request)
        if reads_whole_picture(request):
            raise RequestError("target", request.target_name, "one that each box has its own of")
        requests[name] = request
    return requests


def _named(
    methods: Sequence[str], layers: Sequence[str], maps: Sequence[str]
) -> Iterator[tuple[str, dict[str, str] | None]]:
    """The names of maps and the fields of their requests, None for the default one."""
    for method in methods:
        for layer in (EMITTING,) if without_layer(method) else layers:
            fuse = str("+" in layer).lower()
            fields = {"method": method, "layer": layer.replace("+", ","), "fuse": fuse}
            yield f"{method} {layer}", fields
    for name in maps:
        if name == DEFAULT:
            yield name, None
            continue
        pairs = [each.partition("=")[::2] for each in name.split()]
        fields = dict(pairs)
        if len(fields) < len(pairs) or not fields.keys() <= set(MAP_FIELDS):
            allowed = " ".join(f"{each}=..." for each in MAP_FIELDS)
            raise RequestError("maps", name, f"{DEFAULT}, or each at most once: {allowed}")
        yield name, fields
