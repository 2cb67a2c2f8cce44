"""What an endpoint has to know of the server that it runs in."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

# TorchServe's own.
DEFAULT_TIMEOUT = 120.0
DEFAULT_RESPONSE_SIZE = 6_553_500
MOST_SECONDS = 3600.0
# `python -m archives serve` sets it to what its configuration says.
RESPONSE_SIZE_VARIABLE = "WHYBOX_MAX_RESPONSE_SIZE"
# Of model-config.yaml, where the server leaves what it does not know to the handler.
OWN_BLOCK = "whybox"
# Of the time after which the server ends the worker: the rest is for reading and writing.
USABLE = 0.8


@dataclass(frozen=True)
class Settings:
    """timeout: seconds after which the server gives up a batch, and the worker with it.
    max_response_size: bytes that an answer may have; a larger one costs the worker its life.
    buckets: whose objects a request may name as its picture."""

    timeout: float = DEFAULT_TIMEOUT
    max_response_size: int = DEFAULT_RESPONSE_SIZE
    buckets: tuple[str, ...] = ()

    @classmethod
    def of(
        cls, model_config: Mapping[str, Any] | None, environment: Mapping[str, str] | None = None
    ) -> Settings:
        """From an archive's model-config.yaml, as the server read it, and the environment (None for
        this process's). Raises ValueError for what is no number above zero."""
        given = (model_config or {}).get("responseTimeout", DEFAULT_TIMEOUT)
        variables = os.environ if environment is None else environment
        size = variables.get(RESPONSE_SIZE_VARIABLE, str(DEFAULT_RESPONSE_SIZE))
        if not size.isdecimal():
            raise ValueError(f"{RESPONSE_SIZE_VARIABLE}: got {size!r}; expected a number of bytes")
        own = (model_config or {}).get(OWN_BLOCK) or {}
        found = cls(float(given), int(size), tuple(own.get("buckets", ())))
        if not found.timeout > 0 or found.max_response_size <= 0:
            raise ValueError(
                f"responseTimeout and {RESPONSE_SIZE_VARIABLE}: got {given} and {size}; expected"
                " numbers above zero"
            )
        return found

    @property
    def seconds(self) -> float:
        """That a batch has for explaining."""
        return self.timeout * USABLE
