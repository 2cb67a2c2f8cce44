"""What TorchServe, and so an archive's code, is told of the environment."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from archives.serving.processes import ServerState
from archives.serving.server import Ports, _launch


def test_no_secrets_and_no_other_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\nexec env\n")
    python.chmod(0o700)
    (tmp_path / "logs").mkdir()
    monkeypatch.setattr(sys, "executable", str(python))
    for name in ("WHYBOX_SIGNING_KEY", "WHYBOX_SIGNING_PASSPHRASE", "CLASSPATH", "TS_CONFIG_FILE"):
        monkeypatch.setenv(name, "theirs")
    monkeypatch.setenv("SOMETHING", "else")
    _launch(tmp_path, tmp_path, ServerState("us", 0, Ports(), ()), 1)
    told = (tmp_path / "logs" / "console.log").read_text()
    assert "SOMETHING=else\n" in told
    assert "theirs" not in told
