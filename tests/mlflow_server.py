"""The real MLflow server on loopback: SQLite, and artifacts that it serves from a folder.

`make .venv/.mlflow` installs it into a folder of its own, since it wants other versions of some
packages than ours. A test module that wants it says `pytest_plugins = ("tests.mlflow_server",)`.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.swift import end, free_ports

INSTALLED = Path(sys.prefix) / "mlflow"
START_SECONDS = 120.0


@dataclass(frozen=True)
class Mlflow:
    """A running server.

    uri: its address. artifacts: the folder in which it keeps them.
    """

    uri: str
    artifacts: Path


@pytest.fixture(scope="session")
def mlflow_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mlflow]:
    """One server for all tests; whoever uses it publishes under names of its own."""
    with running_mlflow(tmp_path_factory.mktemp("mlflow")) as server:
        yield server


@contextlib.contextmanager
def running_mlflow(folder: Path) -> Iterator[Mlflow]:
    """A server that keeps everything in `folder`; raises RuntimeError with its log if it does not
    come up."""
    if not (INSTALLED / "mlflow").is_dir():
        raise RuntimeError("the MLflow server is not installed; make .venv/.mlflow does it")
    port = free_ports(1)[0]
    server = Mlflow(f"http://127.0.0.1:{port}", folder / "artifacts")
    with (folder / "log").open("wb") as log:
        # As `mlflow server` itself starts it, less the processes beside it.
        process = subprocess.Popen(
            [sys.executable, "-m", "uvicorn", "--host=127.0.0.1", f"--port={port}",
             "mlflow.server.fastapi_app:app"],
            stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=folder,
            env=environment(folder, server.artifacts), start_new_session=True,
        )  # fmt: skip
    try:
        wait_for(server, process, folder / "log")
        yield server
    finally:
        process.terminate()
        end(process)


def environment(folder: Path, artifacts: Path) -> dict[str, str]:
    kept = {
        name: value
        for name, value in os.environ.items()
        # Without compiled files each start takes ten seconds more.
        if not name.startswith("MLFLOW_") and name != "PYTHONDONTWRITEBYTECODE"
    }
    return kept | {
        "PYTHONPATH": str(INSTALLED),
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "_MLFLOW_SGI_NAME": "uvicorn",
        "_MLFLOW_SERVER_FILE_STORE": f"sqlite:///{folder}/mlflow.db",
        "_MLFLOW_SERVER_SERVE_ARTIFACTS": "true",
        "_MLFLOW_SERVER_ARTIFACT_ROOT": "mlflow-artifacts:/",
        "_MLFLOW_SERVER_ARTIFACT_DESTINATION": str(artifacts),
    }


def wait_for(server: Mlflow, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        with contextlib.suppress(OSError):
            urllib.request.urlopen(f"{server.uri}/health", timeout=10).close()
            return
        time.sleep(0.1)
    raise RuntimeError(f"MLflow did not come up:\n{log.read_text(errors='replace')[-2000:]}")
