"""The demo, run as `make demo` runs it; tests/test_readme.py runs it to its end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.server


def processes_with(marker: str) -> list[str]:
    """Command lines of live processes whose environment holds the text."""
    found = []
    for folder in Path("/proc").iterdir():
        try:
            if folder.name.isdecimal() and marker.encode() in (folder / "environ").read_bytes():
                found.append((folder / "cmdline").read_text().replace("\0", " "))
        except OSError:
            continue  # it ended meanwhile, or is another user's
    return [line for line in found if line]


@pytest.mark.parametrize("step", ["[2/3]", "[3/3]"])
def test_ctrl_c_stops_all_that_was_started(step: str, demo_archive: Path, tmp_path: Path) -> None:
    marker = f"WHYBOX_TEST_MARKER={tmp_path}"
    command = [sys.executable, "-u", "-m", "jobs.demo", "--archive", str(demo_archive)]
    with subprocess.Popen(
        [*command, "--output", str(tmp_path / "out"), "--pictures", "40"],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, marker.split("=")[0]: str(tmp_path)},
        start_new_session=True,
    ) as demo:
        assert demo.stdout is not None
        for line in demo.stdout:
            if line.startswith(step):
                break
        assert len(processes_with(marker)) >= 3  # the demo, Java and a worker
        os.killpg(demo.pid, signal.SIGINT)  # as a terminal does
        assert demo.wait(60) == 130
    assert processes_with(marker) == []


def test_a_folder_with_other_files_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("work")
    done = subprocess.run(
        [sys.executable, "-m", "jobs.demo", "--output", str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "holds something else than a demo's output" in done.stderr
    assert (tmp_path / "precious").read_text() == "work"
