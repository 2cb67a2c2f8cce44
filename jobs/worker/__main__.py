"""The process that runs the archive's code: `python -P -m jobs.worker ORDER [EVENTS]`.

ORDER is a file with a WorkOrder. EVENTS, for `jobs explain` alone, is an open file descriptor for
what the worker tells; its orders come by stdin (see jobs.worker.messages).
"""

from __future__ import annotations

import importlib
import os
import shutil
import signal
import sys
import threading
from pathlib import Path
from queue import SimpleQueue
from types import FrameType
from typing import TYPE_CHECKING

from archives.errors import UnsafeError, UsageError
from jobs.commands.command import by_options
from jobs.commands.registry import COMMANDS
from jobs.errors import DONE, Interrupted, report
from jobs.options import JobOptions, PreviewOptions
from jobs.work_order import WorkOrder

if TYPE_CHECKING:
    from handlers.explainer import Explainer
    from handlers.schema import ExplainRequest


def main(order_file: str, events: str = "") -> int:
    """Runs the WorkOrder that lies, as JSON, in `order_file`; returns the exit code."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _interrupt)
    order = WorkOrder.from_json(Path(order_file).read_text())
    parent = Parent(order.folder)
    descriptor = int(events) if events else None
    # The parent says that it was interrupted, once for all workers.
    code = report(lambda: _work(order, parent, descriptor), tell_interruption=False)
    sys.stdout.flush()
    sys.stderr.flush()
    # Threads may still wait for a store that no longer answers; nothing is left that needs them.
    os._exit(code)


class Parent:
    """The process that holds the other end of stdin; its lines come by `lines`.

    If it is gone this process ends, and writes nothing: otherwise a killed job would go on unseen,
    beside the one that is started to replace it.
    """

    def __init__(self, folder: Path) -> None:
        self.lines: SimpleQueue[bytes] = SimpleQueue()
        self._folder = folder
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        with os.fdopen(0, "rb", closefd=False) as pipe:
            for line in pipe:
                self.lines.put(line)
        shutil.rmtree(self._folder.parent, ignore_errors=True)  # the parent no longer can
        os._exit(128 + signal.SIGTERM)


def _work(order: WorkOrder, parent: Parent, events: int | None) -> int:
    import handlers

    _check_origin(str(handlers.__file__), order.folder)
    from handlers.explainer import Explainer
    from handlers.manifest import ArchiveError
    from handlers.schema import RequestError
    from handlers.tap import NonFiniteError

    options = order.options
    try:
        # The archive was verified, and its own code is what runs here anyway.
        explainer = Explainer.from_archive(
            order.folder, options.device, options.precision, run_code=True
        )
        if isinstance(options, PreviewOptions):
            _print(explainer.preview(options.target or explainer.defaults.target_name))
            return DONE
        command, _ = by_options(COMMANDS)[type(options).__name__]
        if command.runs:
            module, _, function = command.runs.partition(":")
            # It imports handlers, so only after the check of origin.
            code: int = getattr(importlib.import_module(module), function)(options, explainer)
            return code
        assert isinstance(options, JobOptions)
        request = _request(options, explainer)
    except (ArchiveError, NonFiniteError, RequestError) as error:
        raise UsageError(str(error)) from error
    from jobs.worker.serve import serve

    assert events is not None
    return serve(explainer, request, options.batch_size, parent.lines, events)


def _request(options: JobOptions, explainer: Explainer) -> ExplainRequest:
    """A checked request; nothing has been read or written yet."""
    from handlers.schema import ExplainRequest

    request = ExplainRequest.from_fields(options.request, explainer.defaults)
    explainer.check(request)
    return explainer.resolved(request)  # so that the record says what was done


def _print(text: str) -> None:
    """Prints, also to a reader that stops early, as `head` does."""
    try:
        print(text, flush=True)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _check_origin(imported: str, folder: Path) -> None:
    """The same weights under other code would give numbers that nobody audited."""
    if not Path(imported).resolve().is_relative_to(folder.resolve()):
        raise UnsafeError(
            f"the archive brings no code of its own: handlers came from {imported}; build it again"
            " with `python -m archives build`"
        )


def _interrupt(number: int, frame: FrameType | None) -> None:
    # A terminal's Ctrl-C reaches this process twice, once through the parent.
    for each in (signal.SIGINT, signal.SIGTERM):
        signal.signal(each, signal.SIG_IGN)
    raise Interrupted(number)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
