"""New tokens for a server that runs.

    valid_until = rotate(running(Path(".serve")), nginx_include=Path("/etc/whybox/token.conf"))

TorchServe makes them, and refuses the old ones from that moment on. Whoever sends them reads the
new ones from files: curl from the server's header files, nginx from one of its configuration.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

from archives.private_file import write_private
from archives.serving.server import Server, ServerConfigError, ServerError

# In this order: nginx, which has the last one, is to be told soon.
KINDS = ("management", "inference")
PATIENCE = 10.0  # seconds
# What may go into nginx's configuration: it reads the file as root, the server writes the token.
TOKEN = re.compile(r"[A-Za-z0-9_-]{8,128}={0,2}")
RESTART = "only a restart makes a new one: python -m archives stop, then serve"


def rotate(
    server: Server, kinds: Sequence[str] = KINDS, nginx_include: Path | None = None
) -> datetime:
    """Has the server make new tokens and writes them into its header files; until when TorchServe
    takes them.

    kinds: which, of KINDS.
    nginx_include: a file that sets the header Authorization for nginx, written anew; nginx reads it
        when it is told to reload. For the inference token only.

    Raises ServerConfigError before anything is changed, and ServerError where the server gives no
    token.
    """
    if nginx_include is not None:
        _check_include(nginx_include, kinds)
    with _as_owner(server.folder), _alone(server.folder):
        found = [_renewed(server, kind) for kind in KINDS if kind in kinds]
    if nginx_include is not None:
        token = found[-1]["key"]
        write_private(nginx_include, f'proxy_set_header Authorization "Bearer {token}";\n')
    return min(datetime.fromisoformat(each["expiration time"]) for each in found)


def _check_include(file: Path, kinds: Sequence[str]) -> None:
    if "inference" not in kinds:
        raise ServerConfigError(
            f"nginx gets the inference token only, got kind {' '.join(kinds)}: a proxy passes no"
            " request to the management address"
        )
    # A token that cannot be written would be lost to nginx, and the old one is refused already.
    if file.is_dir() or not os.access(file.parent, os.W_OK | os.X_OK):
        raise ServerConfigError(f"{file} cannot be written; the server's tokens are as they were")


def _renewed(server: Server, kind: str) -> dict[str, str]:
    """The new key and its expiration time, when the header file has it."""
    _renew(server, kind)
    entry = _keys(server)[kind]
    if not TOKEN.fullmatch(str(entry["key"])):
        raise ServerError(f"{server.key_file} holds no token of TorchServe's; {RESTART}")
    write_private(server.header_file(kind), f"Authorization: Bearer {entry['key']}\n")
    return dict(entry)


def _renew(server: Server, kind: str) -> None:
    request = urllib.request.Request(
        f"{server.management_url}/token?type={kind}",
        headers={"Authorization": f"Bearer {_keys(server)['API']['key']}"},
    )
    # Without proxies: the key stays on this machine.
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        direct.open(request, timeout=PATIENCE).close()
    except urllib.error.HTTPError as error:
        raise ServerError(
            f"TorchServe gives no new token (status {error.code}): the API key in"
            f" {server.key_file} is not its own, or it cannot write that file; {RESTART}"
        ) from error
    except OSError as error:
        raise ServerError(
            f"{server.management_url} does not answer ({error}); the server may be starting"
        ) from error


def _keys(server: Server) -> dict[str, Any]:
    try:
        keys = json.loads(server.key_file.read_bytes())
        for name in (*KINDS, "API"):
            keys[name]["key"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ServerError(
            f"{server.key_file} cannot be read ({error!r}); it holds the key with which new tokens"
            f" are asked for, and {RESTART}"
        ) from error
    return dict(keys)


@contextmanager
def _as_owner(folder: Path) -> Iterator[None]:
    """Root, who may write nginx's file, is the server's user here: the files remain that user's,
    and no link that lies here leads root astray."""
    owner, user, group = folder.stat(), os.geteuid(), os.getegid()
    if user != 0:
        yield
        return
    os.setegid(owner.st_gid)
    os.seteuid(owner.st_uid)
    try:
        yield
    finally:
        os.seteuid(user)
        os.setegid(group)


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Two rotations at once would leave the first one's token in the second one's file."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
