"""Jobs that run no archive but what a known key signed."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from archives.errors import UsageError
from archives.signatures.keys import write_keys
from archives.signatures.signing import MAX_SIGNATURE, read_private_key, sign, signature_of
from archives.verify import extract
from jobs import launch
from jobs.__main__ import main
from jobs.public_keys import public_keys_in
from tests.conftest import put
from tests.jobs.archive_stub import MESSAGE, write_archive
from tests.jobs.test_launch import failed

OTHER = "\ndef decode(data):\n    raise SystemExit('the other archive runs')\n"
COMMANDS = {
    "explain": ["--input", "in", "--output", "out"],
    "preview": ["--preview-model"],
    "sweep": ["--input", "in/a.jpg", "--output", "b.png", "--layers", "roi"],
    "features": ["--input", "in", "--output", "out"],
    "classify": ["--input", "in", "--output", "out"],
    "evaluate": ["--input", "in", "--output", "out"],
}


@pytest.fixture
def archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Signed by the key k; the key n has signed nothing. All of it lies in the working folder."""
    monkeypatch.chdir(tmp_path)
    put(str(tmp_path / "in"), {"a.jpg": b"first"})
    write_keys(tmp_path, "n")
    write_keys(tmp_path, "k")
    path = write_archive(tmp_path / "stub.mar")
    resign(path)
    return path


def resign(path: Path) -> None:
    signature_of(path).write_bytes(sign(path, read_private_key(Path("k-private.pem"))))


def explain(archive: Path | str, *more: str) -> int:
    return main(["explain", "--archive", str(archive), "--input", "in", "--output", "out", *more])


def test_what_a_known_key_signed_is_run(archive: Path) -> None:
    keys = ["--public-key", "n-public.pem", "--public-key", "k-public.pem"]
    assert explain(archive, *keys) == 3
    assert failed("out", 1) == [("a.jpg", MESSAGE)]


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("given", ["flag", "environment", "environment in lower case"])
def test_no_command_runs_what_nobody_signed(
    command: str,
    given: str,
    archive: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    name = "explain" if command == "preview" else command
    arguments = [name, "--archive", str(archive), *COMMANDS[command]]
    if given == "flag":
        arguments += ["--public-key", "n-public.pem"]
    else:
        variable = "WHYBOX_PUBLIC_KEY"
        monkeypatch.setenv(variable.lower() if "lower" in given else variable, "n-public.pem")
    assert main(arguments) == 5
    assert "stub.mar.sig was made by " in capfd.readouterr().err
    assert not Path("out").exists()


def test_keys_by_a_file_and_the_environment(archive: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("job.yaml").write_text("public_key: [n-public.pem]\n")
    assert explain(archive, "--config", "job.yaml") == 5
    monkeypatch.setenv("WHYBOX_PUBLIC_KEY", '["n-public.pem", "k-public.pem"]')
    assert explain(archive, "--config", "job.yaml") == 3
    assert explain(archive, "--config", "job.yaml", "--public-key", "n-public.pem") == 5


def without_signature(archive: Path) -> None:
    signature_of(archive).unlink()


def replaced(archive: Path) -> None:
    write_archive(archive, OTHER)


def no_zip(archive: Path) -> None:
    archive.write_bytes(b"no zip")


def huge(archive: Path) -> None:
    signature_of(archive).write_bytes(bytes(MAX_SIGNATURE + 1))


def not_there(archive: Path) -> None:
    archive.unlink()


REFUSED = [
    (without_signature, 5, "is not signed: there is no "),
    (replaced, 5, "it was changed or replaced since"),
    (no_zip, 5, "it was changed or replaced since"),
    (huge, 5, f"expected at most {MAX_SIGNATURE} bytes, found more"),
    (not_there, 2, "archive"),
]


@pytest.mark.parametrize(("change", "code", "message"), REFUSED)
def test_what_is_refused(
    change: Callable[[Path], None],
    code: int,
    message: str,
    archive: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    change(archive)
    assert explain(archive, "--public-key", "k-public.pem") == code
    said = capfd.readouterr().err
    assert message in said
    assert (said.startswith("jobs: "), said.count("\n"), "whybox-" in said) == (True, 1, False)


@pytest.mark.parametrize(("change", "code", "message"), [(None, 3, ""), *REFUSED])
def test_in_a_bucket(
    change: Callable[[Path], None] | None,
    code: int,
    message: str,
    archive: Path,
    bucket: str,
    capfd: pytest.CaptureFixture[str],
) -> None:
    if change is not None:
        change(archive)
    files = [each for each in (archive, signature_of(archive)) if each.exists()]
    put(bucket, {f"store/{each.name}": each.read_bytes() for each in files})
    assert explain(f"{bucket}/store/stub.mar", "--public-key", "k-public.pem") == code
    said = capfd.readouterr().err
    assert message in said
    assert code == 3 or f"{bucket}/store/stub.mar" in said


def test_a_key_that_cannot_be_used(archive: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert explain(archive, "--public-key", "none.pem") == 2
    assert "the key none.pem cannot be read" in capfd.readouterr().err
    assert explain(archive, "--public-key", "k-private.pem") == 2
    assert "a private key stays with whoever signs" in capfd.readouterr().err


def test_what_runs_is_what_was_checked(archive: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever replaces the archive after the check, with a right signature or none, is late."""

    def late(path: Path, folder: Path) -> Any:
        write_archive(archive, OTHER)
        return extract(path, folder)

    monkeypatch.setattr(launch, "extract", late)
    assert explain(archive, "--public-key", "k-public.pem") == 3
    assert failed("out", 1) == [("a.jpg", MESSAGE)]


def test_what_ray_sends_to_its_nodes_is_what_was_checked(
    archive: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checked, sent = archive.read_bytes(), []

    class RayWorkers:
        def __init__(self, order: Any, path: Path) -> None:
            write_archive(archive, OTHER)
            sent.append(path.read_bytes())
            raise UsageError("no Ray here")

    module = ModuleType("jobs.engines.ray_engine")
    module.RayWorkers = RayWorkers  # type: ignore[attr-defined]
    monkeypatch.setitem(__import__("sys").modules, "jobs.engines.ray_engine", module)
    assert explain(archive, "--engine", "ray", "--public-key", "k-public.pem") == 2
    assert sent == [checked]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", ()),
        ("a.pem", ("a.pem",)),
        (json.dumps(["a.pem", "b.pem"]), ("a.pem", "b.pem")),
        ("[a.pem", ("[a.pem",)),
    ],
)
def test_keys_in_the_environment(text: str, expected: tuple[str, ...]) -> None:
    assert public_keys_in({"WHYBOX_PUBLIC_KEY": text}) == expected


@pytest.mark.parametrize("text", ["[]", "[1]"])
def test_a_list_of_no_keys_is_no_leave_to_run_anything(
    text: str, archive: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("WHYBOX_PUBLIC_KEY", text)
    for command in ("explain", "features"):
        with pytest.raises(SystemExit):
            main([command, "--archive", str(archive), *COMMANDS[command]])
        assert "WHYBOX_PUBLIC_KEY: expected" in capfd.readouterr().err
