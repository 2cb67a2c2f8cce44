"""A copy of an archive that nobody else can change between its check and its use."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from archives.errors import shortened
from archives.refusals import naming
from archives.verify import verify
from handlers.manifest import ArchiveError, Manifest


@contextmanager
def verified_copy(archive: Path) -> Iterator[tuple[Path, Manifest]]:
    """The copy, of the same name, in a private folder that goes afterwards, and its manifest.

    Raises as `archives.verify.verify` does; nothing in the archive is loaded.
    """
    with tempfile.TemporaryDirectory(prefix="whybox-") as private:
        copy = Path(private, archive.name)
        try:
            shutil.copyfile(archive, copy)
        except OSError as error:
            raise ArchiveError(
                f"the archive {shortened(str(archive))} cannot be read: {error.strerror}"
            ) from error
        with naming({copy: str(archive)}):
            manifest = verify(copy)
        yield copy, manifest
