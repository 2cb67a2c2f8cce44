"""Names of archives, versions and aliases, and NAME@ALIAS or NAME@VERSION: what they may be."""

from __future__ import annotations

import re
from typing import NamedTuple

from archives.errors import UsageError, shortened

# TorchServe puts the name into URLs, file names and its configuration's comma-separated lists.
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}")
VERSION = re.compile(r"[0-9]{1,18}(\.[0-9]{1,18}){0,3}")
# They begin with a letter, so that none looks like a version, and are safe as names of files.
ALIAS = re.compile(r"(?=.{1,50}\Z)[a-z][a-z0-9]*(-[a-z0-9]+)*")
SUFFIX = ".mar"
SIGNATURE_SUFFIX = ".sig"


class Reference(NamedTuple):
    """NAME@ALIAS or NAME@VERSION; one of `alias` and `version` is "" ."""

    name: str
    alias: str
    version: str

    def __str__(self) -> str:
        return f"{self.name}@{self.alias or self.version}"


def check_name(name: str) -> str:
    """The name. Raises UsageError if an archive cannot have it."""
    if not NAME.fullmatch(name):
        raise UsageError(
            f"name: got {shortened(name)!r}; expected letters, digits, '_', '-' and '.', up to 100,"
            " beginning with a letter or digit"
        )
    return name


def check_version(version: str) -> str:
    """The version. Raises UsageError if it is none."""
    if not VERSION.fullmatch(version):
        raise UsageError(
            f"version: got {shortened(version)!r}; expected numbers as in 1.0 or 2.1.3"
        )
    return version


def check_alias(alias: str) -> str:
    """The alias. Raises UsageError if it cannot be one."""
    if not ALIAS.fullmatch(alias):
        raise UsageError(
            f"alias: got {shortened(alias)!r}; expected lower-case words as production or"
            " customer-7, up to 50 letters"
        )
    return alias


def version_order(version: str) -> tuple[tuple[int, ...], str]:
    """What versions are sorted by: 1.10 comes after 1.9."""
    return tuple(map(int, version.split("."))), version


def looks_like_reference(text: str) -> bool:
    """Whether a text that names no file is meant as NAME@ALIAS or NAME@VERSION, if only nearly."""
    return "@" in text and "/" not in text and not text.endswith(SUFFIX)


def read_reference(text: str) -> Reference:
    """NAME@ALIAS or NAME@VERSION. Raises UsageError for anything else."""
    name, at, which = text.rpartition("@")
    if not at or not name or not which:
        raise UsageError(
            f"{shortened(text)!r}: expected NAME@ALIAS as demo@production, or NAME@VERSION as"
            " demo@1.2"
        )
    check_name(name)
    if VERSION.fullmatch(which):
        return Reference(name, "", which)
    if which[0].isdigit():
        check_version(which)
    return Reference(name, check_alias(which), "")
