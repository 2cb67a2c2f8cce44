"""The container files: linted, since there is no engine here that could build them, and read."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from fnmatch import fnmatch
from pathlib import Path

import pytest

from archives.__main__ import command_line as archives_parser
from tests.test_cluster import BATCH, JOBS

ROOT = Path(__file__).parent.parent
CONTAINERS = ROOT / "docs/containers"
FILES = sorted(CONTAINERS.glob("*.Dockerfile"))
HADOLINT = Path(sys.executable).parent / "hadolint"
everywhere = pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)


def lint(*arguments: str | Path, text: str | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [HADOLINT, "--no-color", *arguments],
        input=text,
        capture_output=True,
        text=True,
        check=False,
    )


def instructions(file: Path) -> list[tuple[str, str]]:
    """(FROM, ...), (COPY, ...), in order: comments left out, lines joined."""
    text = re.sub(r"^\s*#.*\n", "", file.read_text(), flags=re.MULTILINE)
    lines = text.replace("\\\n", " ").splitlines()
    split = (line.split(maxsplit=1) for line in lines if line.strip())
    return [(name, " ".join(rest.split())) for name, rest in split]


def all_of(file: Path, name: str) -> list[str]:
    return [rest for each, rest in instructions(file) if each == name]


def test_both_are_here() -> None:
    assert [file.name for file in FILES] == ["jobs.Dockerfile", "torchserve.Dockerfile"]


@everywhere
def test_hadolint_finds_nothing(file: Path) -> None:
    done = lint("--failure-threshold", "style", "--disable-ignore-pragma", file)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("FROM python\n", "DL3006"),
        ("FROM python:3.11\nRUN pip install torch\n", "DL3013"),
        ("FROM python:3.11\nCMD python -m jobs\n", "DL3025"),
        ("FROM python:3.11\nRUN test $1\n", "SC2086"),
        ("FROM python:3.11\nRAN true\n", "unexpected 'R'"),
    ],
)
def test_hadolint_finds_what_is_wrong(text: str, rule: str) -> None:
    done = lint("-", text=text)
    assert done.returncode != 0
    assert rule in done.stdout + done.stderr


@everywhere
def test_what_they_promise(file: Path) -> None:
    (base,) = all_of(file, "FROM")
    assert re.fullmatch(r"python:3\.11\.\d+-slim-\w+", base)
    (install,) = all_of(file, "RUN")
    assert "--constraint constraints.txt" in install
    assert "--uid 10001" in install
    assert "OMP_WAIT_POLICY=passive" in " ".join(all_of(file, "ENV"))
    names = [name for name, _ in instructions(file)]
    # Root until all is installed, and never again; by number, as runAsNonRoot wants it.
    assert all_of(file, "USER") == ["10001:10001"]
    assert names.index("USER") > max(i for i, name in enumerate(names) if name in ("RUN", "COPY"))
    assert not {"EXPOSE", "ADD", "ENTRYPOINT"} & set(names)
    assert not re.search(r"secret|password|credential|token|https?://", file.read_text(), re.I)


def copied(file: Path) -> list[str]:
    words = [shlex.split(rest) for rest in all_of(file, "COPY")]
    return [each for several in words for each in several[:-1] if not each.startswith("--")]


@everywhere
def test_what_is_copied_is_here_and_not_ignored(file: Path) -> None:
    """By Docker's rules: the last line that fits a path decides."""
    lines = file.with_name(f"{file.name}.dockerignore").read_text().splitlines()
    rules = [line for line in lines if line and not line.startswith("#")]
    assert rules[0] == "*"
    assert {rule[1:] for rule in rules if rule.startswith("!")} == set(copied(file))
    for path in copied(file):
        assert (ROOT / path).exists()
        deciding = [rule for rule in rules if fnmatch(path, rule.removeprefix("!"))]
        assert deciding[-1] == f"!{path}"


@everywhere
def test_what_is_copied_is_all_that_is_needed(file: Path) -> None:
    needed = {"pyproject.toml", "constraints.txt", "README.md", "handlers", "archives"}
    more = {"jobs": {"jobs", "docs/containers/whybox-job"}, "torchserve": {"config.properties"}}
    assert set(copied(file)) == needed | more[file.stem]
    if file.stem == "torchserve":
        for module in [*ROOT.glob("archives/**/*.py"), *ROOT.glob("handlers/**/*.py")]:
            assert not re.search(r"^\s*(from|import) jobs\b", module.read_text(), re.M), module


def test_the_server_stays_in_the_foreground() -> None:
    file = CONTAINERS / "torchserve.Dockerfile"
    python, m, module, *arguments = _words(all_of(file, "CMD")[0])
    assert [python, m, module] == ["python", "-m", "archives"]
    options = archives_parser().parse_args(arguments)
    assert options.foreground is True
    (health,) = all_of(file, "HEALTHCHECK")
    ready = archives_parser().parse_args(_words(health.partition(" CMD ")[2])[3:])
    assert ready.folder == options.folder


def _words(text: str) -> list[str]:
    return re.findall(r'"([^"]*)"', text)


def test_users_are_those_of_the_manifests() -> None:
    for job in JOBS.values():
        user = job["template"]["spec"]["securityContext"]
        assert f"{user['runAsUser']}:{user['runAsGroup']}" == "10001:10001"
    for values in BATCH.values():
        assert values.get("containerProperties", {}).get("user", "10001:10001") == "10001:10001"
