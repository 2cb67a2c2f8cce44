"""Every way a job ends other than well, and its exit code: the one place where codes are given."""

from __future__ import annotations

import signal
import sys
import traceback
from collections.abc import Callable

from archives.errors import CommandError, UsageError, one_line, printable

DONE = 0
DONE_WITH_FAILURES = 3


class DeviceLostError(CommandError):
    """The GPU failed, for whatever reason: worth another try in a new process."""

    exit_code = 75


class NothingToMeasureError(UsageError):
    """All is as it should be, but no box scores over the threshold: a quiet night."""

    exit_code = 7  # so that an audit, whose steps are other processes, can tell it from others


class Interrupted(BaseException):
    """SIGINT or SIGTERM came. Not an Exception: nothing that handles a picture may swallow it."""

    def __init__(self, number: int) -> None:
        super().__init__(f"signal {number}")
        self.exit_code = 128 + number


class KilledError(CommandError):
    """Worker processes were killed, and no picture was to blame."""

    def __init__(self, number: signal.Signals) -> None:
        super().__init__(
            f"the worker was killed ({number.name}), perhaps for want of memory: a smaller"
            " --batch-size needs less; finished shards are kept, the same command does the rest"
        )
        self.signal = number

    @property
    def exit_code(self) -> int:  # type: ignore[override]  # the signal's, not the class's
        return 128 + self.signal


class WorkersLostError(CommandError):
    """Actors died again and again, or there is no node for one: worth another try."""

    exit_code = 75


class ElsewhereError(CommandError):
    """What a worker on another machine has said, and its exit code."""

    def __init__(self, said: str, exit_code: int) -> None:
        super().__init__(said)
        self._exit_code = exit_code

    @property
    def exit_code(self) -> int:  # type: ignore[override]  # the worker's, not the class's
        return self._exit_code


class WorkerEndedError(Exception):
    """A worker ended with an exit code, and has said why."""

    def __init__(self, exit_code: int) -> None:
        super().__init__(f"a worker ended with {exit_code}")
        self.exit_code = exit_code


def report(main: Callable[[], int], tell_interruption: bool = True) -> int:
    """Runs `main` and returns the process's exit code; an error becomes one line on stderr.

    Only a bug, anything that is neither a CommandError nor an interruption, shows a traceback.
    """
    try:
        return main()
    except CommandError as error:
        # It may name keys, which others chose.
        print(f"jobs: {printable(one_line(error))}", file=sys.stderr, flush=True)
        return error.exit_code
    except WorkerEndedError as error:
        return error.exit_code
    except Interrupted as error:
        if tell_interruption:
            print(
                "jobs: interrupted; finished shards are kept, the same command does the rest",
                file=sys.stderr,
                flush=True,
            )
        return error.exit_code
    except Exception:
        traceback.print_exc()
        return CommandError.exit_code
