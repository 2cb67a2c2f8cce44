from __future__ import annotations

import io

import pytest

from jobs.progress import Progress, duration, speed


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class Clock:
    """Seconds that pass when a test says so."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_a_line_now_and_then(capsys: pytest.CaptureFixture[str]) -> None:
    clock = Clock()
    with Progress(total=20_000, done=1_000, clock=clock) as progress:
        progress.add(100, 0)
        clock.now += 10
        progress.waits(0.12, 0.001)
        progress.add(500, 4)
        clock.now += 9
        progress.add(100, 0)
        clock.now += 1
        progress.add(300, 0)
    assert capsys.readouterr().err.splitlines() == [
        "1,100 of 20,000 pictures done, 10.0 a second, about 32 min left; the detector waits: 12 %"
        " for pictures",
        "2,000 of 20,000 pictures done, 50.0 a second, 4 failed, about 6 min left",
    ]


def test_what_waits_is_weighed_by_its_time(capsys: pytest.CaptureFixture[str]) -> None:
    with Progress(total=10, done=0, seconds_between_lines=0) as progress:
        progress.seconds_between_lines = 10
        progress.waits(0.5, 0.0, seconds=3)
        progress.seconds_between_lines = 0
        progress.waits(0.1, 0.4, seconds=1)
    assert capsys.readouterr().err == (
        "0 of 10 pictures done; the detector waits: 40 % for pictures, 10 % for writing\n"
    )


def test_no_speed_before_the_first_picture(capsys: pytest.CaptureFixture[str]) -> None:
    with Progress(total=1, done=0, seconds_between_lines=0) as progress:
        progress.waits(0.0, 0.0, seconds=0.0)
    assert capsys.readouterr().err == "0 of 1 picture done\n"


@pytest.mark.parametrize(
    ("pictures", "seconds", "expected"),
    [
        (5, 2.0, "2.5 a second"),
        (1, 40.0, "40.0 s each"),
        (3, 0.0, "at once"),
        (9_000, 2.0, "4,500.0 a second"),
    ],
)
def test_speed(pictures: int, seconds: float, expected: str) -> None:
    assert speed(pictures, seconds) == expected


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        (0.4, "0 s"),
        (99, "99 s"),
        (110, "2 min"),
        (7200, "2 h"),
        (7800, "2 h 10 min"),
        (2 * 86400, "2 days"),
        (3 * 86400 + 4 * 3600, "3 days 4 h"),
    ],
)
def test_duration(seconds: float, expected: str) -> None:
    assert duration(seconds) == expected


def test_no_lines_in_a_quick_job(capsys: pytest.CaptureFixture[str]) -> None:
    with Progress(total=10, done=0, clock=Clock()) as progress:
        progress.add(10, 0)
        progress.waits(0.5, 0.5)
    assert capsys.readouterr().err == ""


def test_a_bar_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    monkeypatch.setenv("COLUMNS", "200")
    with Progress(total=1_000, done=4) as progress:
        progress.waits(0.25, 0.0)
        progress.add(996, 2)
    last = terminal.getvalue().split("\r")[-1]
    assert "1,000/1,000" in last
    assert "2 failed; the detector waits: 25 % for pictures" in last
