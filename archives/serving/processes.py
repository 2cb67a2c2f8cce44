"""Which processes are a server's: a marker in their environment tells, never a name alone."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

from archives.private_file import write_private
from archives.serving.served import Served
from archives.serving.server_config import Ports

# Every process of a server carries this variable, so that stopping can never meet another's.
MARKER = "WHYBOX_SERVER"


@dataclass(frozen=True)
class ServerState:
    """What server.json says: marker value, process group, ports, and the archives served.

    deployable: whether archives may be exchanged while it runs. config: the properties it was
    started with, digests, public_keys: what may be served, and files of keys that vouch for it,
    besides those named there.
    """

    identity: str
    group: int
    ports: Ports
    served: tuple[Served, ...]
    deployable: bool = False
    config: str = ""
    digests: tuple[str, ...] = ()
    public_keys: tuple[str, ...] = ()

    def write(self, folder: Path) -> None:
        """Into the server's folder."""
        write_private(state_file(folder), json.dumps(asdict(self)))

    @classmethod
    def read(cls, folder: Path) -> ServerState:
        """From the server's folder. Raises OSError or ValueError where that has none."""
        values = json.loads(state_file(folder).read_bytes())
        served = tuple(Served(**each) for each in values["served"])
        changed = {"served": served, "ports": Ports(**values["ports"])}
        changed |= {name: tuple(values.get(name, ())) for name in ("digests", "public_keys")}
        return cls(**values | changed)

    def processes(self) -> list[int]:
        """Live processes of the group that carry the marker, by what /proc says."""
        found = []
        marker = f"{MARKER}={self.identity}".encode()
        for folder in Path("/proc").iterdir():
            if not folder.name.isdecimal():
                continue
            try:
                status = (folder / "stat").read_text(errors="replace").rpartition(")")[2].split()
                if status[0] in "ZX" or int(status[2]) != self.group:
                    continue
                if marker in (folder / "environ").read_bytes().split(b"\0"):
                    found.append(int(folder.name))
            except (FileNotFoundError, ProcessLookupError, PermissionError):
                continue  # It ended meanwhile, or belongs to another user.
        return sorted(found)


def state_file(folder: Path) -> Path:
    """Where a server's state is written."""
    return folder / "server.json"


def executable(process: int) -> str:
    """The name of the program that a process runs, "" if it has ended."""
    try:
        return Path(os.readlink(f"/proc/{process}/exe")).name
    except OSError:
        return ""
