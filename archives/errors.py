"""Every way a command ends other than well that a person can act on, and its exit code."""

from __future__ import annotations

from typing import ClassVar

LONGEST_SHOWN = 200


class CommandError(Exception):
    """An end that a person or a scheduler can act on; its message is one clear line."""

    exit_code: ClassVar[int] = 1


class UsageError(CommandError):
    """Wrong options, or an input, output or archive that cannot be used."""

    exit_code = 2


class MissedError(CommandError):
    """A threshold was missed, or the report that should tell is not there."""

    exit_code = 4


class UnsafeError(CommandError):
    """Refused as unsafe: the archive is not what it says it is."""

    exit_code = 5


class ConflictError(CommandError):
    """What is there belongs to another run, or was changed by someone else meanwhile."""

    exit_code = 6


class StoreError(CommandError):
    """A store that did not do what it was asked."""

    exit_code = 2


class MissingObjectError(StoreError):
    """There is no such object or file."""


class DeniedObjectError(StoreError):
    """This object or file may not be read; others may."""


class StoreRefusedError(StoreError):
    """The bucket is not there, the credentials are wrong, or the place cannot be written."""


class NotPromisedError(StoreError):
    """The store knows no conditional writes: nothing was written."""


class StoreDownError(StoreError):
    """The store did not answer, or has no room, after all retries: worth another try later."""

    exit_code = 75


def one_line(error: BaseException, limit: int = 1000) -> str:
    """An exception's message without line breaks, at most `limit` characters."""
    return " ".join(str(error).split())[:limit]


def printable(text: str) -> str:
    """The text for a terminal: in ASCII, where some of it could steer that."""
    return text if text.isprintable() else ascii(text)[1:-1]


def shortened(text: str) -> str:
    """The text for a message: its middle left out where it is longer than a line should be."""
    if len(text) <= LONGEST_SHOWN:
        return text
    half = (LONGEST_SHOWN - 3) // 2
    return f"{text[:half]}...{text[-half:]}"
