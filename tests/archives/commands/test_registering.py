"""The registry's commands as they are typed, and what they print."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from archives.__main__ import main
from archives.commands import deploying
from archives.signatures.keys import PrivateKey
from archives.verify import verify
from tests.archives.small_archives import write_signature, write_small


@pytest.fixture
def registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a registry that the environment names."""
    monkeypatch.setenv("WHYBOX_REGISTRY", str(tmp_path / "registry"))
    monkeypatch.setenv("LOGNAME", "alice")
    return tmp_path / "registry"


@pytest.fixture
def filled(registry: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    """With demo 1.9, in production, and demo 1.10, in staging; and half of 2.0."""
    for version, alias in (("1.9", "production"), ("1.10", "staging")):
        tensors = {"w": np.full(2, len(version), np.float32), "same": np.ones(1, np.float32)}
        archive = write_small(tmp_path / f"{version}.mar", version, tensors=tensors)
        assert main(["publish", str(archive), "--alias", alias, "--why", f"put {version}"]) == 0
    (registry / "demo/2.0").mkdir()
    write_small(registry / "demo/2.0/demo.mar", "2.0")
    capsys.readouterr()
    return registry


def told(capsys: pytest.CaptureFixture[str], *arguments: str) -> Any:
    assert main([*arguments, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def said(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert main(list(arguments)) == 0
    return capsys.readouterr().out


def refused(capsys: pytest.CaptureFixture[str], code: int, *arguments: str) -> str:
    assert main(list(arguments)) == code
    error = capsys.readouterr().err
    assert error.startswith("archives: ")
    assert error.count("\n") == 1
    return error


def test_publish(registry: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    archive = write_small(tmp_path / "a.mar")
    digest = verify(archive).digest
    assert said(capsys, "publish", str(archive)).splitlines() == [
        "published demo@1.0, not signed",
        f"  at      {registry}/demo/1.0/demo.mar",
        f"  digest  {digest}",
    ]
    write_signature(tmp_path / "a.mar.sig", archive, PrivateKey.generate())
    found = told(capsys, "publish", str(archive), "--alias", "staging", "--why", "first")
    assert (found["new"], found["signed"], found["promised"]) == (True, True, True)
    assert found["promotion"] == {
        "alias": "staging",
        "from": None,
        "to": "1.0",
        "digest": digest,
        "changed": True,
        "promised": True,
    }
    assert "was published already: demo@1.0, signed" in said(capsys, "publish", str(archive))


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--alias", "staging"], "expected --why TEXT"),
        (["--alias", "Staging", "--why", "x"], "alias: got 'Staging'"),
        (["--why", "x"], "are for the history of an --alias"),
    ],
)
def test_publish_refuses_before_it_writes(
    more: list[str],
    message: str,
    registry: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    archive = write_small(tmp_path / "a.mar")
    assert message in refused(capsys, 2, "publish", str(archive), *more)
    assert not registry.exists()


def test_list(filled: Path, capsys: pytest.CaptureFixture[str]) -> None:
    short = {each: verify(filled / f"demo/{each}/demo.mar").digest[:12] for each in ("1.9", "1.10")}
    assert main(["require-gate", "demo", "--alias", "production", "--why", "x"]) == 0
    capsys.readouterr()
    assert said(capsys, "list").splitlines() == [
        "demo",
        f"  1.9   {short['1.9']}  not signed  production (gate)",
        f"  1.10  {short['1.10']}  not signed  staging",
        f"  2.0   {12 * ' '}              begun, never finished",
    ]
    found = told(capsys, "list", "demo")["archives"]
    assert [each["version"] for each in found[0]["versions"]] == ["1.9", "1.10"]
    assert (found[0]["begun"], found[0]["gates"]) == (["2.0"], ["production"])
    assert "there is no other in the registry" in refused(capsys, 2, "list", "other")


def test_a_damaged_version_is_listed_among_others(
    filled: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (filled / "demo/1.9/whybox.json").write_text("{\x1b[2J")
    lines = said(capsys, "list").splitlines()
    assert lines[1].startswith(f"  1.9   {12 * ' '}  damaged     production ({filled}/demo/1.9: ")
    assert lines[2].endswith("  not signed  staging")
    bad, good = told(capsys, "list", "demo")["archives"][0]["versions"]
    assert (bad["digest"], bad["signed"], bad["aliases"]) == (None, None, ["production"])
    assert "whybox.json is not JSON" in bad["damaged"]
    assert (good["version"], good["damaged"]) == ("1.10", None)


def signed(archive: Path, folder: Path, name: str) -> str:
    """Signs it with a new key; the public one."""
    assert main(["keygen", "--output", str(folder), "--name", name]) == 0
    assert main(["sign", str(archive), "--key", str(folder / f"{name}-private.pem")]) == 0
    return str(folder / f"{name}-public.pem")


def holds(which: str, key: str) -> bool:
    return main(["verify", which, "--static", "--public-key", key]) == 0


def test_the_signature_of_an_older_build_is_not_published(registry: Path, tmp_path: Path) -> None:
    archive = write_small(tmp_path / "demo.mar", "1.0")
    signed(archive, tmp_path, "old")
    write_small(archive, "1.1")
    assert main(["publish", str(archive)]) == 5
    assert not registry.exists()
    key = signed(archive, tmp_path, "new")
    assert main(["publish", str(archive)]) == 0
    assert holds("demo@1.1", key)


def test_keys_are_exchanged_in_a_registry(registry: Path, tmp_path: Path) -> None:
    archive = write_small(tmp_path / "demo.mar", "1.0")
    for name in ("old", "new"):
        key = signed(archive, tmp_path, name)
        assert main(["publish", str(archive)]) == 0
        assert holds("demo@1.0", key)
    assert holds("demo@1.0", str(tmp_path / "old-public.pem"))


def test_a_gate_that_names_no_file_is_no_leave(filled: Path) -> None:
    """--gate "$AUDIT" with AUDIT not set."""
    words = ["--alias", "production", "--why", "audited", "--gate", ""]
    assert main(["promote", "demo@staging", *words]) != 0


def test_rollback_refuses_other_bytes_before_it_deploys(
    filled: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deploying, "expect_running", lambda _: None)
    assert main(["promote", "demo@1.10", "--alias", "production", "--why", "newer"]) == 0
    archive = write_small(filled / "demo/1.9/demo.mar", "1.9", categories=("cat",))
    (filled / "demo/1.9/whybox.json").write_bytes(verify(archive).to_json())
    error = refused(capsys, 5, "rollback", "demo@production", "--why", "x")
    assert "demo@production stood for 1.9 with digest" in error


def test_an_empty_registry(registry: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "has no archives yet" in said(capsys, "list")


def test_show(filled: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["promote", "demo@staging", "--alias", "production", "--why", "it holds", "--who", "bob"])
    capsys.readouterr()
    text = said(capsys, "show", "demo@production")
    for line in (
        "demo@1.10",
        "  signature   none",
        "  aliases     production, staging",
        "  categories  2: disc, ring",
    ):
        assert line in text.splitlines()
    last = text.splitlines()[-1].split()
    assert last[2:] == ["bob", "production", "1.9", "->", "1.10", "no", "audit", "it", "holds"]
    found = told(capsys, "show", "demo@1.9")
    assert [(each["who"], each["from"], each["to"]) for each in found["history"]] == [
        ("alice", None, "1.9"),
        ("bob", "1.9", "1.10"),
    ]


def test_a_history_cannot_steer_the_terminal(
    filled: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    archive = write_small(filled.parent / "odd.mar", "3.0", categories=("\x1b[2Jcat",))
    assert main(["publish", str(archive)]) == 0
    capsys.readouterr()
    assert r"1: \x1b[2Jcat" in said(capsys, "show", "demo@3.0")


def test_diff(filled: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = said(capsys, "diff", "demo@1.9", "demo@staging").splitlines()
    assert "  ~  w                       differs by up to 1" in text
    assert "  =  1 tensors are the same" in text
    assert "  version  1.9 -> 1.10" in text
    assert text[-1] == "the same: categories, options, defaults, model-config.yaml"
    found = told(capsys, "diff", "demo@1.9", "demo@staging")
    assert found["weights"]["changed"] == {"w": 1.0}
    assert "the same archive" in said(capsys, "diff", "demo@1.9", "demo@production")


def test_fetch(filled: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ("fetch", "demo@staging", "--output", str(tmp_path / "got"))
    assert told(capsys, *command)["file"] == str(tmp_path / "got/demo.mar")
    assert verify(tmp_path / "got/demo.mar").version == "1.10"
    assert "give --force to replace it" in refused(capsys, 2, *command)
    assert "demo 1.10, digest" in said(capsys, *command, "--force")


def test_promote(filled: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ("promote", "demo@1.10", "--alias", "production", "--why", "x")
    assert "expected to be 1.8 and is 1.9; alice moved it to 1.9" in refused(
        capsys, 6, *words, "--expect", "1.8"
    )
    assert "there is no audit report at none.json" in refused(
        capsys, 4, *words, "--gate", "none.json"
    )
    assert said(capsys, *words) == "demo@production now stands for 1.10, before 1.9\n"
    assert "stands for 1.10 already" in said(capsys, *words)
    assert told(capsys, *words)["changed"] is False


def test_require_gate(filled: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ("require-gate", "demo", "--alias", "production", "--why", "auditors")
    assert told(capsys, *words)["required"] == ["production"]
    promotion = ("promote", "demo@1.10", "--alias", "production", "--why", "x")
    assert "demo@production has a gate" in refused(capsys, 4, *promotion)
    assert told(capsys, *words, "--lift")["required"] == []
    assert main(list(promotion)) == 0


@pytest.mark.parametrize("which", ["demo@production", "demo@1.9"])
def test_verify_takes_names(which: str, filled: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert said(capsys, "verify", "--static", which).startswith(f"{which}: demo 1.9, ")


def test_verify_names_what_was_asked_for(
    bucket: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from tests.conftest import put

    put(bucket, {"bad.mar": b"no zip"})
    error = refused(capsys, 2, "verify", f"{bucket}/bad.mar")
    assert error.startswith(f"archives: {bucket}/bad.mar is not a .mar archive")


def test_no_command_of_a_registry_loads_torch(filled: Path) -> None:
    code = (
        "import sys; from archives.__main__ import main;"
        "main(['list']); main(['show', 'demo@production']); "
        "main(['diff', 'demo@1.9', 'demo@1.10']);"
        "print({'torch', 'boto3'} & sys.modules.keys())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.endswith("set()\n")


def test_serve_names_what_it_refuses(filled: Path, capsys: pytest.CaptureFixture[str]) -> None:
    damaged = filled / "demo/1.9/demo.mar"
    damaged.write_bytes(damaged.read_bytes().replace(b"never run", b"now I run"))
    words = ("--folder", str(filled.parent / "serve"), "--free-ports")
    error = refused(capsys, 5, "serve", "--archive", "demo@production", *words)
    assert error.startswith(f"archives: {damaged} was tampered with")
    assert "versions: 1.9, 1.10" in refused(capsys, 2, "serve", "--archive", "demo@3.0", *words)
