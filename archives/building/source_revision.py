"""Which commit the code that is packed into an archive came from."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

from archives.errors import UsageError

VARIABLE = "WHYBOX_SOURCE_REVISION"
REVISION = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.+/-]{0,199}")


def source_revision(package: Path, given: str | None = None) -> str:
    """The commit of the folder `package`, with "-dirty" if its Python files differ from it.

    "" where git does not have it. given: what the user says instead, else the environment's
    WHYBOX_SOURCE_REVISION. Raises UsageError for one that is no name of a revision.
    """
    said = given if given is not None else os.environ.get(VARIABLE)
    if said:
        if not REVISION.fullmatch(said):
            raise UsageError(
                f"source revision: got {said!r}; expected a commit or a tag: letters, digits and"
                " '_.+/-'"
            )
        return said
    commit = _git(package, "rev-parse", "--verify", "HEAD")
    # A package that was installed may lie below a repository that knows nothing of it.
    if not commit or not _git(package, "ls-files", "__init__.py"):
        return ""
    changed = _git(package, "diff", "--no-ext-diff", "--name-only", "HEAD", "--", "*.py")
    added = _git(package, "ls-files", "--others", "--", "*.py")
    if changed is None or added is None:
        return ""
    return f"{commit}-dirty" if changed or added else commit


def _git(folder: Path, *words: str) -> str | None:
    """What git says; None where it fails or is not there."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("GIT_")}
    try:
        done = subprocess.run(
            ["git", *words], cwd=folder, env=environment, capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()
