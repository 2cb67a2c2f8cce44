"""Keys of which one has to vouch for a job's archive: the setting and the check."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path

from archives.envelope import MAX_SIGNATURE
from archives.errors import UsageError, shortened
from archives.stores.store import Store
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


def write_signature(store: Store, key: str, path: Path) -> None:
    """Downloads a signature to `path`; where there is none, nothing, and of one that is too large
    for a signature no more than shows it."""
    entry = store.find(key)
    if entry is not None:
        path.write_bytes(
            store.read(key) if entry.size <= MAX_SIGNATURE else bytes(MAX_SIGNATURE + 1)
        )


def checked_copy(options: Options, archive: Path, signature: Path, private: Path) -> Path:
    """A copy of the archive in the folder `private`, for whose bytes one of the options' public
    keys vouches; where there are none the archive itself.

    archive, signature: where they are on this machine. Raises SignatureError, and UsageError for
    what cannot be read.
    """
    if not options.public_keys:
        return archive
    from archives.signing import SignatureError, check_signature, read_public_keys  # takes time

    keys = read_public_keys([Path(each) for each in options.public_keys])
    copy = private / "archive.mar"
    shown = shortened(options.archive)  # what was downloaded has no name that a person knows
    if archive != copy:  # what was downloaded lies there already
        try:
            shutil.copyfile(archive, copy)
        except OSError as error:
            raise UsageError(f"the archive {shown} cannot be opened: {error.strerror}") from error
    try:
        check_signature(copy, keys, signature)
    except SignatureError as error:
        raise type(error)(str(error).replace(str(copy), shown)) from error
    return copy
