"""Rolling back: what an alias stood for before is served again, and the alias moved back."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from archives.errors import CommandError
from archives.serving.deployment import Deployment, DeployOptions, deploy
from archives.serving.server import Server


class AliasNotMovedError(CommandError):
    """The server is rolled back, the alias is not: somebody moved it meanwhile, or the registry
    cannot be reached; the exit code is that error's."""

    def __init__(self, said: str, exit_code: int) -> None:
        super().__init__(said)
        self._exit_code = exit_code

    @property
    def exit_code(self) -> int:  # type: ignore[override]  # the error's, not the class's
        return self._exit_code


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
    looked up. Raises AliasNotMovedError where it fails, and what `deploy` raises, the alias
    untouched.
    """
    deployment = deploy(server, previous, options, tell)
    try:
        move_alias()
    except CommandError as error:
        now = deployment.now
        raise AliasNotMovedError(
            f"the server is rolled back and serves {now.name} {now.version}, but the alias is not:"
            f" {error}; look where it stands, then promote {now.name}@{now.version}, or deploy what"
            " it stands for now",
            error.exit_code,
        ) from error
    return deployment
