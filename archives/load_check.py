"""Whether an archive loads, and still gives what its golden sample says."""

from __future__ import annotations

import importlib.metadata
import tempfile
from pathlib import Path

from archives import own_code
from archives.golden import differences, read_golden
from archives.refusals import (
    DoesNotLoadError,
    OtherResultsError,
    WrongVersionsError,
    naming,
)
from archives.verify import extract
from handlers.manifest import Manifest

# Archives of earlier formats have no golden sample.
FIRST_GOLDEN_FORMAT = 4
SHOWN = 3


def check_loads(path: Path, device: str = "cpu") -> None:
    """Verifies the .mar at `path`, runs its own code in another process, and compares what comes
    out for its golden sample. Only for an archive whose code you would run.

    Raises as `archives.verify.verify` does; DoesNotLoadError; NoGoldenSampleError;
    OtherResultsError, as WrongVersionsError where torch or torchvision differ from the build's.
    """
    with tempfile.TemporaryDirectory(prefix="whybox-check-") as scratch:
        folder = Path(scratch, "archive")
        manifest = extract(path, folder)
        try:
            if manifest.format < FIRST_GOLDEN_FORMAT:
                own_code.load(folder, device)
                return
            with naming({folder: str(path)}):
                golden = read_golden(folder)
            found = own_code.explain(folder, golden.picture, golden.request, device).answer
        except DoesNotLoadError as error:
            raise DoesNotLoadError(f"{path} does not load: {error}{_versions(manifest)}") from error
    different = differences(golden.expected, found)
    if different:
        versions = _versions(manifest)
        kind = WrongVersionsError if versions else OtherResultsError
        more = f"; and {len(different) - SHOWN} more" if len(different) > SHOWN else ""
        raise kind(
            f"{path} gives other results than its golden sample: {'; '.join(different[:SHOWN])}"
            + more
            + (versions or "; it was tampered with or was not built so: build it again")
        )


def _versions(manifest: Manifest) -> str:
    """Which of those it was built with are not those here, in words; "" for none."""
    several = []
    for name, built in (("torch", manifest.torch), ("torchvision", manifest.torchvision)):
        here = importlib.metadata.version(name)
        if built and _release(built) != _release(here):
            several.append(f"{name} {built}, here is {here}")
    return f"; it was built with {' and '.join(several)}" if several else ""


def _release(version: str) -> str:
    return version.partition("+")[0]
