"""Rolling back: what an alias stood for before is served again, and the alias moved back."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from archives.errors import ConflictError
from archives.serving.deployment import Deployment, DeployOptions, deploy
from archives.serving.server import Server


class AliasNotMovedError(ConflictError):
    """The server is rolled back, the alias is not: somebody moved it meanwhile."""


def roll_back(
    server: Server,
    previous: Path,
    move_alias: Callable[[], object],
    options: DeployOptions,
    tell: Callable[[str], None],
) -> Deployment:
    """Deploys `previous`, the archive that the alias stood for before, fetched and verified, and
    then has the alias stand for it.

    move_alias: does so; it raises ConflictError if somebody moved the alias since `previous` was
    looked up. Raises AliasNotMovedError then, and what `deploy` raises, the alias untouched.
    """
    deployment = deploy(server, previous, options, tell)
    try:
        move_alias()
    except ConflictError as error:
        now = deployment.now
        raise AliasNotMovedError(
            f"the server is rolled back and serves {now.name} {now.version}, but the alias is not:"
            f" {error}; look who moved it and why, then promote {now.name}@{now.version}, or deploy"
            " what it stands for now"
        ) from error
    return deployment
