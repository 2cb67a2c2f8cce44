"""From the command to the worker: verify the archive, unpack it, run the archive's own code."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from types import FrameType

from archives.envelope import SIGNATURE_SUFFIX
from archives.errors import MissingObjectError, UnsafeError, UsageError, shortened
from archives.stores.store import S3_SCHEME, open_root, split_uri
from archives.verify import UnsafeArchiveError, extract
from handlers.manifest import FORMAT_VERSION, ArchiveError
from jobs.engines.workers import LocalWorkers, end, environment
from jobs.errors import Interrupted, KilledError
from jobs.options import ArchiveFacts, JobOptions, Options, WorkOrder
from jobs.public_keys import checked_copy, write_signature


def launch(options: Options) -> int:
    """Verifies and unpacks the archive, has it run, and returns the exit code.

    SIGINT and SIGTERM end the workers, too. What was unpacked is removed at the end.
    Raises UsageError for an archive that cannot be used and UnsafeError for one that must not be:
    SignatureError where none of the options' public keys vouches for it.
    """
    before = {
        number: signal.signal(number, _interrupt) for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        with tempfile.TemporaryDirectory(prefix="whybox-", ignore_cleanup_errors=True) as private:
            archive, signature = _fetch(options, Path(private))
            # What is unpacked below, and what Ray sends to its nodes, is what was checked.
            archive = checked_copy(options, archive, signature, Path(private))
            order = _unpack(options, archive, Path(private))
            if not isinstance(options, JobOptions):
                return _run_worker(order)
            from jobs.run import run  # with numpy, which the other commands need not load here

            if options.engine == "ray":
                from jobs.engines.ray_engine import RayWorkers  # an extra

                with RayWorkers(order, archive) as engine:
                    return run(order, engine)
            with LocalWorkers(order) as workers:
                return run(order, workers)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _interrupt(number: int, frame: FrameType | None) -> None:
    for each in (signal.SIGINT, signal.SIGTERM):  # the end is short, and not to be ended itself
        signal.signal(each, signal.SIG_IGN)
    raise Interrupted(number)


def _run_worker(order: WorkOrder) -> int:
    """Runs a command of one process; returns its exit code."""
    order_file = order.folder.parent / "order.json"
    order_file.write_text(order.to_json())
    worker = subprocess.Popen(
        [sys.executable, "-P", "-m", "jobs.worker", str(order_file)],
        env=environment(order.folder, 1),
        stdin=subprocess.PIPE,  # kept open: its end tells the worker that this process is gone
    )
    try:
        code = worker.wait()
    except Interrupted as error:
        worker.send_signal(error.exit_code - 128)
        raise
    finally:
        end(worker)
    if code >= 0:
        return code
    raise KilledError(signal.Signals(-code))


def _unpack(options: Options, path: Path, private: Path) -> WorkOrder:
    folder = private / "archive"
    try:
        manifest = extract(path, folder)
    except ArchiveError as error:
        text = str(error)
        for each in (str(path), options.archive):  # a copy is not what a person named
            text = text.replace(each, shortened(options.archive))
        kind = UnsafeError if isinstance(error, UnsafeArchiveError) else UsageError
        raise kind(text) from error
    if manifest.format < FORMAT_VERSION:
        # It still serves: TorchServe runs nothing but its own code.
        raise UsageError(
            f"{shortened(options.archive)} has format {manifest.format}: its code is older than"
            f" these jobs, which need format {FORMAT_VERSION}; build it again"
        )
    return WorkOrder(
        options, ArchiveFacts(manifest.name, manifest.version, manifest.digest), folder
    )


def _fetch(options: Options, private: Path) -> tuple[Path, Path]:
    """The archive and its signature as local files, downloaded if they are objects; the signature
    need not be there."""
    archive = options.archive
    if not archive.startswith(S3_SCHEME):
        path = Path(archive)
        if "@" in path.name and path.suffix != ".mar" and not os.path.exists(path):
            raise UsageError(
                f"{shortened(archive)}: an archive by alias needs a registry, which this version"
                " does not support; give a .mar file or its s3:// URI"
            )
        return path, Path(f"{path}{SIGNATURE_SUFFIX}")
    root, key = split_uri(archive)
    store = open_root(root)
    try:
        data = store.read(key)
    except MissingObjectError as error:
        raise UsageError(f"there is no archive {shortened(archive)}") from error
    path = private / "archive.mar"
    path.write_bytes(data)
    signature = private / f"archive.mar{SIGNATURE_SUFFIX}"
    if options.public_keys:
        write_signature(store, key + SIGNATURE_SUFFIX, signature)
    return path, signature
