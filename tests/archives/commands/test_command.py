"""With --json stdout is one JSON object, whatever happens."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from archives.__main__ import main
from archives.commands import serving
from archives.serving import page
from tests.archives.small_archives import write_small


def strict(text: str) -> Any:
    """The one JSON object that `text` is; NaN and Infinity are none."""

    def refused(name: str) -> None:
        raise AssertionError(f"{name} is not JSON")

    values = json.loads(text, parse_constant=refused)
    assert isinstance(values, dict)
    return values


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the commands run: with archives 1.mar and 2.mar."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WHYBOX_REGISTRY", str(tmp_path / "registry"))
    for name, value in (("1", 1), ("2", np.inf)):
        write_small(tmp_path / f"{name}.mar", tensors={"w": np.full(2, value, np.float32)})
    write_small(tmp_path / "strange.mar", config="a: [")
    return tmp_path


@pytest.mark.parametrize(
    ("line", "code", "found"),
    [
        ("verify --static 1.mar", 0, "archives"),
        ("diff 1.mar 2.mar", 0, "weights"),
        ("publish 1.mar", 0, "new"),
        ("list", 0, "archives"),
        ("ready", 75, "models"),
        ("stop", 0, "stopped"),
        ("verify --static no.mar", 2, "cannot be opened"),
        ("verify --static a\0b.mar", 2, "expected arguments without null bytes"),
        ("show demo@staging", 2, "demo"),
        ("diff 1.mar", 2, "arguments are required: NAME@WHICH"),
        ("page --port x", 2, "argument --port: invalid int value: 'x'"),
        ("page", 1, "no server runs"),
        ("list a b", 2, "unrecognized arguments: b"),
        ("nonsense", 2, "argument COMMAND: invalid choice: 'nonsense'"),
        ("diff 1.mar strange.mar", 2, "model-config.yaml is malformed"),
        ("", 2, "arguments are required: COMMAND"),
    ],
)
def test_one_object(
    line: str, code: int, found: str, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*line.split(" "), "--json"] if line else ["--json"]) == code
    printed = capsys.readouterr()
    values = strict(printed.out)
    if code in (0, 75):
        assert found in values
        return
    error = values["error"]
    assert found in error["message"]
    assert error["exit_code"] == code
    assert f"archives: {error['message']}" in printed.err


def test_usage_as_text(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["page", "--port", "x"]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("usage: python -m archives page [-h]")
    assert printed.err.endswith("\narchives: argument --port: invalid int value: 'x'\n")


def test_infinite_weights(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["diff", "1.mar", "2.mar", "--json"]) == 0
    assert strict(capsys.readouterr().out)["weights"]["changed"] == {"w": None}
    assert main(["diff", "1.mar", "2.mar"]) == 0
    assert "differs by no finite number" in capsys.readouterr().out


def test_page(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    server = SimpleNamespace(inference_url="http://127.0.0.1:1", header_file=Path)

    def interrupted(self: page.PageServer) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(page, "expect_running", lambda folder: server)
    monkeypatch.setattr(page.PageServer, "serve_forever", interrupted)
    assert main(["page", "--port", "0", "--json"]) == 130
    values = strict(capsys.readouterr().out)
    assert values["url"].startswith("http://127.0.0.1:")
    assert values["header_file"] == "inference"


def test_a_server_that_ends_by_itself(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    server = SimpleNamespace(
        models=("demo",), logs="logs", processes=list, stop=lambda: None, wait_ready=lambda _: None
    )
    monkeypatch.setattr(serving, "exit_on_signals", lambda: None)
    monkeypatch.setattr(serving, "start", lambda options: server)
    monkeypatch.setattr(serving, "_described", lambda server: {"served": []})
    monkeypatch.setattr(serving, "_instructions", lambda *_: "")
    assert main(["serve", "--archive", "1.mar", "--foreground", "--json"]) == 1
    printed = capsys.readouterr()
    assert strict(printed.out) == {"served": []}
    assert printed.err == "archives: TorchServe ended by itself; its logs are in logs\n"
