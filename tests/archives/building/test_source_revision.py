from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from archives.building.source_revision import VARIABLE, source_revision
from archives.errors import UsageError

pytestmark = pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv(VARIABLE, raising=False)
    folder = tmp_path / "code" / "handlers"
    folder.mkdir(parents=True)
    (folder / "__init__.py").write_text("")
    (tmp_path / "code" / "other.py").write_text("")
    git(folder.parent, "init", "--quiet")
    git(folder.parent, "add", ".")
    git(folder, "commit", "--quiet", "--message", "first")
    return folder


def git(folder: Path, *words: str) -> str:
    who = ["-c", "user.name=a", "-c", "user.email=a@example.org"]
    done = subprocess.run(
        ["git", *who, *words], cwd=folder, capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


@pytest.mark.parametrize(
    ("file", "end"),
    [
        ("notes.txt", ""),
        ("../other.py", ""),
        ("__init__.py", "-dirty"),
        ("new.py", "-dirty"),
    ],
)
def test_it_is_dirty_where_packed_files_differ(file: str, end: str, package: Path) -> None:
    commit = git(package, "rev-parse", "HEAD")
    assert source_revision(package) == commit
    (package / file).write_text("changed = 1\n")
    assert source_revision(package) == commit + end


def test_a_repository_that_does_not_have_the_package_says_nothing(
    package: Path, tmp_path: Path
) -> None:
    (package.parent / ".gitignore").write_text("site-packages\n")
    installed = package.parent / "site-packages" / "handlers"
    shutil.copytree(package, installed)
    assert source_revision(installed) == ""
    (tmp_path / "bare").mkdir()
    assert source_revision(tmp_path / "bare") == ""


def test_what_is_said_goes_before(package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "v1.2")
    assert source_revision(package) == "v1.2"
    assert source_revision(package, "v1.3") == "v1.3"
    with pytest.raises(UsageError, match="source revision: got 'a b'; expected a commit"):
        source_revision(package, "a b")


def test_without_git(package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    assert source_revision(package) == ""
