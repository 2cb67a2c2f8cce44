"""Keys of which one has to vouch for a job's archive: the setting and the check."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path

from archives.errors import UsageError, shortened
from archives.location import Fetched
from jobs.options import Options

VARIABLE = "WHYBOX_PUBLIC_KEY"


def public_keys_in(environment: Mapping[str, str]) -> tuple[str, ...]:
    """Of WHYBOX_PUBLIC_KEY: one file, or several as JSON, as `jobs.settings` reads it, which loads
    too much for the commands that have no other settings. Raises UsageError for other JSON."""
    found = (value for name, value in environment.items() if name.upper() == VARIABLE and value)
    text = next(found, "")
    if not text.lstrip().startswith("["):
        return (text,) if text else ()
    try:
        several = json.loads(text)
    except ValueError:
        return (text,)  # a name may begin so, too
    if not several or not all(isinstance(each, str) for each in several):
        raise UsageError(f"{VARIABLE}: expected one or several files, got {shortened(text)}")
    return tuple(several)


def checked_copy(options: Options, archive: Fetched, private: Path) -> Path:
    """A copy of the archive in the folder `private`, for whose bytes one of the options' public
    keys vouches; where there are none the archive itself.

    archive: where it is on this machine. Raises SignatureError, and UsageError for what cannot be
    read.
    """
    if not options.public_keys:
        return archive.path
    from archives.signatures.signing import (  # takes time
        SignatureError,
        check_signature,
        read_public_keys,
    )

    keys = read_public_keys([Path(each) for each in options.public_keys])
    copy = private / "archive.mar"
    shown = shortened(options.archive)  # what was downloaded has no name that a person knows
    try:
        shutil.copyfile(archive.path, copy)
    except OSError as error:
        raise UsageError(f"the archive {shown} cannot be opened: {error.strerror}") from error
    try:
        check_signature(copy, keys, archive.signature)
    except SignatureError as error:
        text = str(error)
        for each in (copy, archive.path):
            text = text.replace(str(each), shown)
        raise type(error)(text) from error
    return copy
