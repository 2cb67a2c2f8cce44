"""From the command to the worker: verify the archive, unpack it, run the archive's own code."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from types import FrameType

from archives.verify import UnsafeArchiveError, extract
from handlers.manifest import FORMAT_VERSION, ArchiveError
from jobs.errors import Interrupted, MissingObjectError, UnsafeError, UsageError
from jobs.names import shortened
from jobs.options import ArchiveFacts, Options, WorkOrder
from jobs.store import S3_SCHEME, open_root, split_uri

PROJECT = Path(__file__).resolve().parent.parent


def launch(options: Options) -> int:
    """Verifies and unpacks the archive, runs the worker, and returns the worker's exit code.

    SIGINT and SIGTERM are passed on to it. What was unpacked is removed at the end.
    Raises UsageError for an archive that cannot be used and UnsafeError for one that must not be.
    """
    worker: subprocess.Popen[bytes] | None = None

    def pass_on(number: int, frame: FrameType | None) -> None:
        if worker is None:
            raise Interrupted(number)
        worker.send_signal(number)

    before = {number: signal.signal(number, pass_on) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        with tempfile.TemporaryDirectory(prefix="whybox-", ignore_cleanup_errors=True) as private:
            order = _unpack(options, Path(private))
            order_file = Path(private, "order.json")
            order_file.write_text(order.to_json())
            worker = _start(order, order_file)
            return _exit_code(worker)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _unpack(options: Options, private: Path) -> WorkOrder:
    path = _fetch(options.archive, private)
    folder = private / "archive"
    try:
        manifest = extract(path, folder)
    except UnsafeArchiveError as error:
        raise UnsafeError(str(error)) from error
    except ArchiveError as error:
        text = str(error).replace(options.archive, shortened(options.archive))
        raise UsageError(text) from error
    if manifest.format < FORMAT_VERSION:
        # It still serves: TorchServe runs nothing but its own code.
        raise UsageError(
            f"{shortened(options.archive)} has format {manifest.format}: its code is older than"
            f" these jobs, which need format {FORMAT_VERSION}; build it again"
        )
    return WorkOrder(
        options, ArchiveFacts(manifest.name, manifest.version, manifest.digest), folder
    )


def _fetch(archive: str, private: Path) -> Path:
    """The archive as a local file, downloaded if it is an object."""
    if not archive.startswith(S3_SCHEME):
        path = Path(archive)
        if "@" in path.name and path.suffix != ".mar" and not os.path.exists(path):
            raise UsageError(
                f"{shortened(archive)}: an archive by alias needs a registry, which this version"
                " does not support; give a .mar file or its s3:// URI"
            )
        return path
    root, key = split_uri(archive)
    try:
        data = open_root(root).read(key)
    except MissingObjectError as error:
        raise UsageError(f"there is no archive {shortened(archive)}") from error
    path = private / "archive.mar"
    path.write_bytes(data)
    return path


def _start(order: WorkOrder, order_file: Path) -> subprocess.Popen[bytes]:
    """The worker, which imports `handlers` from the archive and everything else from here.

    PYTHONPATH replaces the user's: nothing of theirs may shadow the archive's code.
    """
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(order.folder), str(PROJECT)]),
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    return subprocess.Popen(
        [sys.executable, "-P", "-m", "jobs.worker", str(order_file)],
        env=environment,
        stdin=subprocess.PIPE,  # kept open: its end tells the worker that this process is gone
    )


def _exit_code(worker: subprocess.Popen[bytes]) -> int:
    code = worker.wait()
    if worker.stdin is not None:
        worker.stdin.close()
    if code >= 0:
        return code
    if -code not in (signal.SIGINT, signal.SIGTERM):
        print(
            f"jobs: the worker was killed ({signal.Signals(-code).name}), perhaps for want of"
            " memory; finished shards are kept, the same command does the rest",
            file=sys.stderr,
        )
    return 128 - code
