from __future__ import annotations

import io

import pytest

from jobs.progress import Progress, speed


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_line_now_and_then(capsys: pytest.CaptureFixture[str]) -> None:
    with Progress(total=10, done=4, seconds_between_lines=0) as progress:
        progress.add(3, 1)
        progress.add(3, 0)
    lines = capsys.readouterr().err.splitlines()
    assert [line.partition(",")[0] for line in lines] == [
        "7 of 10 pictures done",
        "10 of 10 pictures done",
    ]
    assert lines[1].endswith(" a second, 1 failed")


def test_no_speed_before_the_first_picture(capsys: pytest.CaptureFixture[str]) -> None:
    with Progress(total=1, done=0, seconds_between_lines=0) as progress:
        progress.add(0, 0)
    assert capsys.readouterr().err == "0 of 1 picture done\n"


@pytest.mark.parametrize(
    ("pictures", "seconds", "expected"),
    [(5, 2.0, "2.5 a second"), (1, 40.0, "40.0 s each"), (3, 0.0, "at once")],
)
def test_speed(pictures: int, seconds: float, expected: str) -> None:
    assert speed(pictures, seconds) == expected


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
