"""Which aliases of a registry move only with an audit report that passes."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime
from typing import Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError

from archives.errors import ConflictError, MissingObjectError, UnsafeError
from archives.names import check_alias
from archives.registry.aliases import Line
from archives.stores.conditional import change
from archives.stores.store import Store

KEY = "gates.json"


class GateChange(BaseModel):
    """Who demanded a gate for an alias, or lifted it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str = Field(default_factory=lambda: uuid.uuid4().hex)
    when: AwareDatetime = Field(default_factory=lambda: datetime.now(UTC))
    who: Line
    alias: str
    required: bool
    why: Line


class Gates(BaseModel):
    """gates.json of one archive's folder. required: the aliases that have one."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_version: Literal[1] = 1
    required: tuple[str, ...] = ()
    history: tuple[GateChange, ...] = ()


def read_gates(store: Store) -> Gates:
    """The gates; `store` has the archive's folder as root. Raises UnsafeError for a file that
    Whybox did not write: who reads it wrong may let through what was to be stopped."""
    return _read(store)[0]


def set_gate(store: Store, asked: GateChange) -> tuple[Gates, bool]:
    """The gates after the change, and whether the store can promise that nobody else's was lost.

    Raises ConflictError if somebody else changed them at the same time.
    """
    check_alias(asked.alias)
    before, tag = _read(store)
    if (asked.alias in before.required) == asked.required:
        return before, True
    others = {each for each in before.required if each != asked.alias}
    after = Gates(
        required=tuple(sorted(others | ({asked.alias} if asked.required else set()))),
        history=(*before.history, asked),
    )
    won, promised = change(store, KEY, (after.model_dump_json(indent=1) + "\n").encode(), tag)
    if not won and asked.id not in {each.id for each in read_gates(store).history}:
        raise ConflictError(
            f"{store.uri}/{KEY} was changed by somebody else meanwhile; nothing was changed: run"
            " this again"
        )
    return after, promised


def _read(store: Store) -> tuple[Gates, str | None]:
    try:
        data, tag = store.read_tagged(KEY)
    except MissingObjectError:
        return Gates(), None
    try:
        return Gates.model_validate_json(data), tag
    except ValidationError as error:
        raise UnsafeError(
            f"{store.uri}/{KEY} is not as Whybox writes it; restore it: nothing is promoted before"
        ) from error
