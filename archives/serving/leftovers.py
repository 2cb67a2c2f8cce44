"""What a deploy that was interrupted has left on a server, and putting that in order.

server.json says what is to be served. A version that TorchServe has besides is either its default,
then the deploy got so far and the version is taken up; or it is not, and is ended.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from archives.errors import ConflictError
from archives.serving.draining import drained
from archives.serving.management import RegisteredVersion
from archives.serving.served import Served
from archives.serving.server import Server
from archives.verify import verify

# TorchServe waits so long for a worker's end.
END_SECONDS = 120.0


class LeftoverError(ConflictError):
    """The server has a model that no deploy has brought."""


def exchanged(
    served: Sequence[Served], new: Served, old: Served | None, keep: bool
) -> tuple[Served, ...]:
    """What is served when `new` takes the place of `old`, which stays if `keep`; last where there
    is no old one."""
    if old is None:
        return (*served, new)
    found: list[Served] = []
    for each in served:
        if each == old:
            found += [new, old] if keep else [new]
        elif each != new:
            found.append(each)
    return tuple(found)


def end_version(server: Server, version: Served) -> None:
    """Unregisters it and removes its file. Raises ManagementError."""
    server.management.unregister(version.name, version.version, END_SECONDS)
    file = server.model_store / version.file
    if version.file and file.is_file():
        file.unlink()


def settle(
    server: Server, drain_seconds: Callable[[Served], float], tell: Callable[[str], None]
) -> None:
    """Has TorchServe and server.json agree, as far as nobody's request is lost by that.

    drain_seconds: that a version may take to answer what it has. tell: is told what was done.
    Raises LeftoverError, ManagementError, and for a file that was changed UnsafeArchiveError.
    """
    management = server.management
    registered = [each for name in management.names() for each in management.versions(name, "all")]
    served = tuple(each for each in server.served if _find(each, registered))
    for name in dict.fromkeys(each.name for each in served):
        [default] = management.versions(name)
        first, *others = (each for each in served if each.name == name)
        known = next((each for each in (first, *others) if each.version == default.version), None)
        if known != first:
            new = known or _taken_up(server, default)
            tell(f"{name} {default.version} is the default since a deploy that was interrupted")
            served = exchanged(served, new, first, keep=known is not None)
    if served != server.served:
        server.record(served)
    kept = {each.file for each in served}
    for left in registered:
        if any((each.name, each.version) == (left.name, left.version) for each in served):
            continue
        version = Served(left.name, left.version, "", Path(left.file).name)
        # Of one that is still loading nobody has asked anything.
        idle = not left.ready and not left.pending
        if idle or drained(server, left.name, left.version, drain_seconds(version)):
            end_version(server, version)
            tell(f"{left.name} {left.version} is ended, which an interrupted deploy had left")
        else:
            kept.add(version.file)
            tell(f"{left.name} {left.version}, left by a deploy before, is still asked: it stays")
    for file in server.model_store.glob("*.mar"):
        if file.name not in kept:
            file.unlink()


def _find(served: Served, registered: Sequence[RegisteredVersion]) -> bool:
    return any((each.name, each.version) == (served.name, served.version) for each in registered)


def _taken_up(server: Server, default: RegisteredVersion) -> Served:
    file = server.model_store / default.file
    if file.parent != server.model_store or not file.is_file():
        raise LeftoverError(
            f"{default.name} {default.version} was registered by somebody else, from"
            f" {default.file}; unregister it, or restart the server"
        )
    manifest = verify(file)
    return Served(manifest.name, manifest.version, manifest.digest, default.file)
