from __future__ import annotations

import io

import pytest

from jobs.progress import Progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_line_now_and_then(capsys: pytest.CaptureFixture[str]) -> None:
    with Progress(total=10, done=4, seconds_between_lines=0) as progress:
        progress.add(3, 1)
        progress.add(3, 0)
    lines = capsys.readouterr().err.splitlines()
    assert [line.partition(",")[0] for line in lines] == ["7 of 10 pictures", "10 of 10 pictures"]
    assert lines[1].endswith("1 failed")


def test_no_lines_in_a_quick_job(capsys: pytest.CaptureFixture[str]) -> None:
    with Progress(total=10, done=0) as progress:
        progress.add(10, 0)
    assert capsys.readouterr().err == ""


def test_a_bar_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    with Progress(total=10, done=4) as progress:
        progress.add(6, 2)
    last = terminal.getvalue().split("\r")[-1]
    assert "10/10" in last
    assert "failed=2" in last
