"""Why an archive is refused: a class for each reason, with the word that --json has for it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from archives.errors import CommandError, UnsafeError, shortened
from handlers.manifest import ArchiveError


class UnsafeArchiveError(ArchiveError, UnsafeError):
    """An archive that must not be loaded: tampered with, or made to do harm."""

    problem = "tampered"


class TruncatedArchiveError(UnsafeArchiveError):
    """Its end is missing."""

    problem = "truncated"


class PickleError(UnsafeArchiveError):
    """It holds a pickle, which can run code when it is read."""

    problem = "pickle"


class ZipBombError(UnsafeArchiveError):
    """It would unpack to far more than it is."""

    problem = "zip-bomb"


class EscapingPathError(UnsafeArchiveError):
    """An entry would be written outside of the archive's folder."""

    problem = "escaping-path"


class MissingWeightsError(ArchiveError):
    """It has no weights."""

    problem = "missing-weights"


class NoGoldenSampleError(ArchiveError):
    """It has no golden sample, or one that cannot be read."""

    problem = "no-golden-sample"


class DoesNotLoadError(ArchiveError):
    """Its own code fails to load it, or to explain its golden sample."""

    problem = "does-not-load"


class OtherResultsError(ArchiveError, UnsafeError):
    """Its golden sample comes out otherwise than it says."""

    problem = "other-results"


class WrongVersionsError(OtherResultsError):
    """The same, where torch or torchvision is not the version that it was built with."""

    problem = "wrong-versions"


@contextmanager
def naming(copies: Mapping[Path, str]) -> Iterator[None]:
    """Has errors about archives name what was asked for, by the files that it was copied to."""
    try:
        yield
    except (ArchiveError, CommandError) as error:
        text = str(error)
        for path, name in copies.items():
            text = text.replace(str(path), shortened(name))
        error.args = (text,)
        raise
