"""Notes on standard error."""

from __future__ import annotations

import pytest

from jobs.notes import say


@pytest.mark.parametrize(
    ("text", "line"), [("Jürgen's", "jobs: Jürgen's\n"), ("a\x1b[31mb", "jobs: a\\x1b[31mb\n")]
)
def test_notes_steer_no_terminal(text: str, line: str, capsys: pytest.CaptureFixture[str]) -> None:
    say(text)
    assert capsys.readouterr().err == line
