"""From the command to the worker: verify the archive, unpack it, run the archive's own code."""

from __future__ import annotations

import signal
import subprocess
import sys
import tempfile
from pathlib import Path

from archives.errors import UnsafeError, UsageError, shortened
from archives.location import fetched
from archives.verify import UnsafeArchiveError, extract
from handlers.manifest import FORMAT_VERSION, ArchiveError
from jobs.engines.workers import LocalWorkers, end, environment
from jobs.errors import Interrupted, KilledError
from jobs.interruption import interruptible
from jobs.options import JobOptions, Options
from jobs.public_keys import checked_copy
from jobs.work_order import ArchiveFacts, WorkOrder


def launch(options: Options) -> int:
    """Verifies and unpacks the archive, has it run, and returns the exit code.

    SIGINT and SIGTERM end the workers, too. What was unpacked is removed at the end.
    Raises UsageError for an archive that cannot be used and UnsafeError for one that must not be:
    SignatureError where none of the options' public keys vouches for it.
    """
    with (
        interruptible(),
        tempfile.TemporaryDirectory(prefix="whybox-", ignore_cleanup_errors=True) as private,
    ):
        found = fetched(options.archive, Path(private, "fetched"), options.registry)
        # What is unpacked below, and what Ray sends to its nodes, is what was checked.
        archive = checked_copy(options, found, Path(private))
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
