"""Where signing, registry, verify and deploy meet."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from archives.__main__ import main
from archives.commands import building, deploying
from archives.commands.signing import signers
from archives.serving import rollback
from archives.serving.deployment import Deployment
from archives.serving.served import Served
from archives.verify import verify
from tests.archives.small_archives import write_small


@pytest.fixture
def archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """demo 1.0, signed, in a folder that is not the registry's; keys are in tmp_path/keys."""
    monkeypatch.setenv("WHYBOX_REGISTRY", str(tmp_path / "registry"))
    path = write_small(tmp_path / "store/demo.mar", "1.0")
    for name in ("old", "new"):
        assert main(["keygen", "--output", str(tmp_path / "keys"), "--name", name]) == 0
    sign(path, tmp_path, "old")
    return path


def sign(path: Path, folder: Path, key: str) -> None:
    assert main(["sign", str(path), "--key", str(folder / f"keys/{key}-private.pem")]) == 0


def published(path: Path, *more: str) -> int:
    return main(["publish", str(path), *more])


def test_the_signature_of_an_older_build_is_not_published(archive: Path, tmp_path: Path) -> None:
    """`build --force` leaves the .sig of what was there; published with it a version is "signed"
    by nobody, and can never be signed."""
    write_small(archive, "1.1")
    published(archive)  # refused, or published without a signature
    sign(archive, tmp_path, "old")
    assert published(archive) == 0
    key = str(tmp_path / "keys/old-public.pem")
    assert main(["verify", "demo@1.1", "--static", "--public-key", key]) == 0


def test_keys_are_exchanged_in_the_registry(archive: Path, tmp_path: Path) -> None:
    """docs/production.md, "A new key": sign with the new one what is in use."""
    assert published(archive) == 0
    sign(archive, tmp_path, "new")
    assert published(archive) == 0
    key = str(tmp_path / "keys/new-public.pem")
    assert main(["verify", "demo@1.0", "--static", "--public-key", key]) == 0


@pytest.mark.parametrize("why", ["", "two\nlines", "x" * 501])
def test_rollback_refuses_before_it_deploys(
    why: str, archive: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    deployed: list[Path] = []

    def deploy(server: Any, path: Path, *_: Any) -> Deployment:
        deployed.append(path)
        manifest = verify(path)
        served = Served(manifest.name, manifest.version, manifest.digest, "0.mar")
        return Deployment(served, None, True, False, ())

    monkeypatch.setattr(rollback, "deploy", deploy)
    monkeypatch.setattr(deploying, "expect_running", lambda _: SimpleNamespace(served=()))
    assert published(archive, "--alias", "production", "--why", "the first") == 0
    (archive.parent / "demo.mar.sig").unlink()
    write_small(archive, "1.1")
    assert published(archive, "--alias", "production", "--why", "the second") == 0
    assert main(["rollback", "demo@production", "--why", why]) == 2
    assert deployed == []


def test_verify_loads_what_was_signed(
    archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    """Somebody who may write there exchanges the file after its signature was checked."""

    def exchanged(*arguments: Any) -> dict[Path, str]:
        found = signers(*arguments)
        write_small(archive, "6.6.6")
        return found

    loaded: list[str] = []
    monkeypatch.setattr(building, "signers", exchanged)
    monkeypatch.setattr(
        "archives.load_check.check_loads", lambda path, device: loaded.append(verify(path).version)
    )
    capsys.readouterr()
    key = str(tmp_path / "keys/old-public.pem")
    code = main(["verify", str(archive), "--public-key", key, "--json"])
    said = json.loads(capsys.readouterr().out)
    assert loaded in ([], ["1.0"])
    assert code or said["archives"][0]["version"] == "1.0"


def test_a_gate_that_names_no_file_is_no_leave(archive: Path) -> None:
    """--gate "$AUDIT" with AUDIT not set."""
    assert published(archive) == 0
    promote = ["promote", "demo@1.0", "--alias", "production", "--why", "audited", "--gate", ""]
    assert main(promote) != 0
