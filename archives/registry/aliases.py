"""Aliases of a registry: names such as production that stand for a version, and who moved them."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime
from typing import Annotated, Literal, NamedTuple

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    ConfigDict,
    Field,
    TypeAdapter,
    ValidationError,
)

from archives.errors import ConflictError, MissingObjectError, UnsafeError, UsageError, shortened
from archives.names import ALIAS, check_alias
from archives.stores.conditional import change
from archives.stores.store import Store

FOLDER = "aliases/"
SUFFIX = ".json"
# What --expect takes for an alias that is not there yet.
NOTHING = "none"


def _printable(text: str) -> str:
    # It is shown on terminals, which other signs may steer.
    if not text.isprintable() or not text.strip():
        raise ValueError("expected one line of plain text")
    return text.strip()


# Of the history: what people say.
Line = Annotated[str, Field(max_length=500), AfterValidator(_printable)]


class Move(BaseModel):
    """One change of an alias.

    id: this change's own, so that two who write the same know theirs apart.
    left: the version that it stood for, None for the first. digest: of the archive that it stands
    for since; None in what was written before digests were. back: as a rollback.
    audit: sha256 (hex) of the report that its gate wanted.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)

    id: str = Field(default_factory=lambda: uuid.uuid4().hex)
    when: AwareDatetime = Field(default_factory=lambda: datetime.now(UTC))
    who: Line
    left: str | None = Field(default=None, alias="from")
    to: str
    digest: str | None = None
    why: Line
    back: bool = False
    audit: str | None = None

    def __str__(self) -> str:
        left = f"from {self.left} " if self.left else ""
        when = self.when.astimezone(UTC)
        return f"{self.who} moved it {left}to {self.to} at {when:%Y-%m-%d %H:%M:%S} UTC: {self.why}"


def said_in_history(name: str, text: str) -> str:
    """The text of who or why for a history. Raises UsageError for none, or more than a line."""
    try:
        return TypeAdapter(Line).validate_python(text)
    except ValidationError as error:
        raise UsageError(
            f"{name}: got {shortened(text)!a}; expected a line of plain text, up to 500 letters"
        ) from error


class Alias(BaseModel):
    """An alias's file. digest: of the archive that it stands for. history: the oldest first."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_version: Literal[1] = 1
    alias: str
    version: str
    digest: str
    history: tuple[Move, ...] = Field(min_length=1)

    def previous(self) -> str | None:
        """The version before the current one; a rollback takes back what it left, so that another
        one goes further back rather than forth."""
        stood: list[str] = []
        for move in self.history:
            if move.back and move.to in stood:
                while stood[-1] != move.to:
                    stood.pop()
            else:
                stood.append(move.to)
        return stood[-2] if len(stood) > 1 else None


class Wanted(NamedTuple):
    """A change to be made: `move` for the alias, to the archive of this digest.

    expect: change nothing unless the alias stands for this version (NOTHING: is not there yet).
    """

    alias: str
    digest: str
    move: Move
    expect: str | None = None


class Moved(NamedTuple):
    """What came of it. changed: False if the alias stood there already. promised: False where the
    store cannot make sure that nobody else's change at the same moment was lost."""

    alias: Alias
    changed: bool
    promised: bool


class Aliases:
    """The aliases of one archive; `store` has its name's folder as root."""

    def __init__(self, store: Store, name: str) -> None:
        self.store = store
        self.name = name

    def find(self, alias: str) -> Alias | None:
        """The alias, or None. Raises UsageError for what cannot be one, UnsafeError for a file that
        Whybox did not write."""
        return self._find(alias)[0]

    def all(self) -> list[Alias]:
        """Every alias, by name."""
        try:
            keys = [each.key for each in self.store.entries(FOLDER)]
        except MissingObjectError:
            return []
        names = [key.removeprefix(FOLDER).removesuffix(SUFFIX) for key in keys]
        found = [self.find(name) for name in sorted(names) if ALIAS.fullmatch(name)]
        return [each for each in found if each]

    def move(self, wanted: Wanted) -> Moved:
        """Moves the alias. Raises ConflictError, saying who moved it where, if somebody else did so
        at the same time or it does not stand where it is expected."""
        before, tag = self._find(wanted.alias)
        self._check_expected(wanted, before)
        if before and before.version == wanted.move.to:
            return Moved(before, False, True)
        left = before.version if before else None
        move = wanted.move.model_copy(update={"left": left, "digest": wanted.digest})
        after = Alias(
            alias=wanted.alias,
            version=move.to,
            digest=wanted.digest,
            history=(*(before.history if before else ()), move),
        )
        text = after.model_dump_json(indent=1, by_alias=True, exclude_none=False) + "\n"
        won, promised = change(self.store, _key(wanted.alias), text.encode(), tag)
        if not won:
            now = self.find(wanted.alias)
            # Its own change may be there all the same: its answer was lost, and another came after.
            if now is None or move.id not in {each.id for each in now.history}:
                raise self._lost(wanted, now)
        return Moved(after, True, promised)

    def _check_expected(self, wanted: Wanted, before: Alias | None) -> None:
        if wanted.expect is None or wanted.expect == (before.version if before else NOTHING):
            return
        raise ConflictError(
            f"{self.name}@{wanted.alias} was expected to be {wanted.expect} and is"
            f" {before.version if before else 'not there'}"
            + (f"; {before.history[-1]}" if before else "")
            + "; nothing was changed"
        )

    def _lost(self, wanted: Wanted, now: Alias | None) -> ConflictError:
        said = str(now.history[-1]) if now else "somebody removed it"
        return ConflictError(
            f"{self.name}@{wanted.alias} was changed by somebody else meanwhile; {said}. It was not"
            f" moved to {wanted.move.to}: look at it, and run this again if it should be"
        )

    def _find(self, alias: str) -> tuple[Alias | None, str | None]:
        key = _key(check_alias(alias))
        try:
            data, tag = self.store.read_tagged(key)
        except MissingObjectError:
            return None, None
        try:
            found = Alias.model_validate_json(data)
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            raise UnsafeError(
                f"{self.store.uri}/{key} is no alias as Whybox writes it"
                f" ({'.'.join(map(str, first['loc']))}: {first['msg']}); restore it"
            ) from error
        last = found.history[-1]
        same = last.to == found.version and last.digest in (None, found.digest)
        if found.alias != alias or not same:
            raise UnsafeError(f"{self.store.uri}/{key} contradicts itself; restore it")
        return found, tag


def _key(alias: str) -> str:
    return f"{FOLDER}{alias}{SUFFIX}"


def previous(alias: Alias, name: str) -> str:
    """The version to roll back to. Raises UsageError if there is none."""
    version = alias.previous()
    if version is None:
        raise UsageError(
            f"{name}@{alias.alias} has stood for {alias.version} alone: there is nothing to roll"
            " back to; promote another version"
        )
    return version
