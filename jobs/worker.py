"""The process that runs the archive's code: `python -P -m jobs.worker ORDER`, started by launch."""

from __future__ import annotations

import os
import shutil
import signal
import sys
import threading
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

from jobs.errors import Interrupted, UnsafeError, UsageError, report
from jobs.options import WorkOrder

if TYPE_CHECKING:
    from handlers.explainer import Explainer
    from handlers.schema import ExplainRequest


def main(order_file: str) -> int:
    """Runs the WorkOrder that lies, as JSON, in `order_file`; returns the exit code."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _interrupt)
    order = WorkOrder.from_json(Path(order_file).read_text())
    threading.Thread(target=_end_with_parent, args=(order.folder,), daemon=True).start()
    code = report(lambda: _work(order))
    sys.stdout.flush()
    sys.stderr.flush()
    # Threads may still wait for a store that no longer answers; nothing is left that needs them.
    os._exit(code)


def _work(order: WorkOrder) -> int:
    explainer, request = _prepare(order)
    from jobs.run import run  # imports handlers, so only after the check in _prepare

    return run(order, explainer, request)


def _prepare(order: WorkOrder) -> tuple[Explainer, ExplainRequest]:
    """The archive's explainer and a checked request; nothing has been read or written yet."""
    import handlers

    _check_origin(str(handlers.__file__), order.folder)
    from handlers.explainer import Explainer
    from handlers.manifest import ArchiveError
    from handlers.schema import ExplainRequest, RequestError

    options = order.options
    try:
        explainer = Explainer.from_archive(order.folder, options.device, options.precision)
        request = ExplainRequest.from_fields(options.request, explainer.defaults)
        explainer.check(request)
    except (ArchiveError, RequestError) as error:
        raise UsageError(str(error)) from error
    return explainer, request


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


def _end_with_parent(folder: Path) -> None:
    """Ends this process if the parent is gone: it holds the other end of stdin and writes nothing.

    Otherwise a killed job would go on unseen, beside the one that is started to replace it.
    """
    while os.read(0, 1):
        pass
    shutil.rmtree(folder.parent, ignore_errors=True)  # the parent no longer can
    os._exit(128 + signal.SIGTERM)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
