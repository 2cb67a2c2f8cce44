"""A server's folder: whose it is, its lock, and the logs that outlive a start."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from archives.serving.monitoring import REQUEST_LOG
from archives.serving.server_config import ServerConfigError

LOCK = "whybox.lock"


def claim(folder: Path) -> None:
    """Makes the folder, or finds that it is a server's: starting deletes what old ones left."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if any(folder.iterdir()) and not (folder / LOCK).exists():
        raise ServerConfigError(f"{folder} holds other files; give --folder a new folder")
    folder.chmod(0o700)


def begin_logs(folder: Path) -> None:
    """Empty, but for who asked for what: that outlives a crash and the start after it."""
    folder.mkdir(mode=0o700, exist_ok=True)
    for file in folder.iterdir():
        if not file.name.startswith(Path(REQUEST_LOG).stem):
            file.unlink()


@contextmanager
def locked(folder: Path) -> Iterator[Any]:
    """Two starts in one folder come one after the other."""
    with (folder / LOCK).open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield lock
