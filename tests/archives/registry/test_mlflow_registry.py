"""Publishing to a real MLflow server and pulling back; what a lying server says is refused."""

from __future__ import annotations

import functools
import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from archives.__main__ import main
from archives.errors import ConflictError, MissingObjectError
from archives.registry.mlflow_registry import MlflowOptions, ModelVersion, publish, pull, set_alias
from archives.signatures.keys import PrivateKey
from archives.signatures.signing import OtherBytesError
from archives.verify import UnsafeArchiveError, verify
from handlers.manifest import MANIFEST_NAME
from tests.archives.small_archives import write_signature
from tests.jobs.archive_stub import write_archive

if TYPE_CHECKING:
    from tests.mlflow_server import Mlflow

pytest_plugins = ("tests.mlflow_server",)


@pytest.fixture
def options(mlflow_server: Mlflow, monkeypatch: pytest.MonkeyPatch) -> MlflowOptions:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", mlflow_server.uri)
    return MlflowOptions(mlflow_server.uri)


@pytest.fixture
def name(request: pytest.FixtureRequest) -> str:
    """A model's name of the test's own."""
    return f"model-{abs(hash(request.node.nodeid)) % 10**9}"


@pytest.fixture
def archive(name: str, tmp_path: Path) -> Path:
    return write_archive(tmp_path / "one.mar", name=name)


@functools.cache
def client(uri: str) -> Any:
    from mlflow import MlflowClient

    return MlflowClient(uri, uri)


def versions(options: MlflowOptions, name: str) -> list[str]:
    found = client(options.tracking_uri).search_model_versions(f"name='{name}'")
    return sorted(each.tags["whybox.version"] for each in found)


def stored(server: Mlflow, options: MlflowOptions, made: ModelVersion, file: str) -> Path:
    """Where the server keeps an artifact."""
    version = client(options.tracking_uri).get_model_version(made.name, made.number)
    return Path(server.artifacts, version.source.removeprefix("mlflow-artifacts:/"), file)


def test_publish_keeps_the_file_its_manifest_and_tags(
    archive: Path, name: str, options: MlflowOptions, mlflow_server: Mlflow
) -> None:
    made = publish(archive, None, options)
    manifest = verify(archive)
    assert (made.name, made.version, made.created) == (name, "1.0", True)
    assert stored(mlflow_server, options, made, f"{name}.mar").read_bytes() == archive.read_bytes()
    described = stored(mlflow_server, options, made, MANIFEST_NAME)
    assert described.read_bytes() == manifest.to_json()
    version = client(options.tracking_uri).get_model_version(name, made.number)
    assert version.tags == {
        "whybox.version": "1.0",
        "whybox.digest": manifest.digest,
        "whybox.sha256": made.sha256,
        "whybox.architecture": "none",
    }
    assert client(options.tracking_uri).get_run(version.run_id).info.status == "FINISHED"


def test_the_same_again_changes_nothing(archive: Path, name: str, options: MlflowOptions) -> None:
    first = publish(archive, None, options)
    again = publish(archive, None, options)
    assert (again.number, again.created, versions(options, name)) == (first.number, False, ["1.0"])


def test_other_bytes_under_the_same_version_are_refused(
    archive: Path, name: str, options: MlflowOptions, tmp_path: Path
) -> None:
    publish(archive, None, options)
    other = write_archive(tmp_path / "other.mar", name=name, hooks="# changed")
    with pytest.raises(ConflictError, match=r"has model-\d+ 1.0 with other bytes"):
        publish(other, None, options)
    assert main(["mlflow-publish", str(other)]) == 6
    assert versions(options, name) == ["1.0"]


def test_of_several_at_once_one_wins(name: str, options: MlflowOptions, tmp_path: Path) -> None:
    archives = [
        write_archive(tmp_path / f"{number}.mar", name=name, hooks=f"# {number}")
        for number in range(3)
    ]

    def attempt(path: Path) -> str | None:
        try:
            return publish(path, None, options).sha256
        except ConflictError:
            return None

    with ThreadPoolExecutor(3) as pool:
        told = list(pool.map(attempt, archives))
    assert sorted(map(bool, told)) == [False, False, True]
    assert versions(options, name) == ["1.0"]
    pulled = pull(name, "1.0", tmp_path / "out", options)
    assert pulled.read_bytes() == archives[told.index(max(filter(None, told)))].read_bytes()


def test_pull_by_alias_and_by_version(
    archive: Path, name: str, options: MlflowOptions, tmp_path: Path
) -> None:
    newer = write_archive(tmp_path / "newer.mar", name=name, version="1.1")
    publish(archive, None, options)
    publish(newer, None, options)
    out = tmp_path / "out"
    for version, expected in {"1.0": archive, "1.1": newer}.items():
        set_alias(name, "production", version, options)
        for wanted in ("production", version):
            path = pull(name, wanted, out, options, force=True)
            assert path == out / f"{name}.mar"
            assert path.read_bytes() == expected.read_bytes()
            assert (out / MANIFEST_NAME).read_bytes() == verify(expected).to_json()
    assert sorted(file.name for file in out.iterdir()) == [f"{name}.mar", MANIFEST_NAME]


def test_a_signature_travels_along(
    archive: Path, name: str, options: MlflowOptions, tmp_path: Path
) -> None:
    keys = [PrivateKey.generate(), PrivateKey.generate()]
    signature = write_signature(tmp_path / "a.sig", archive, keys[0])
    both = write_signature(tmp_path / "both.sig", archive, *keys)
    other = write_signature(tmp_path / "b.sig", archive, keys[1])
    publish(archive, None, options)
    publish(archive, signature, options)  # added to what is there
    publish(archive, None, options)
    with pytest.raises(ConflictError, match="another signature"):
        publish(archive, other, options)
    pull(name, "1.0", tmp_path / "out", options)
    assert (tmp_path / "out" / f"{name}.mar.sig").read_bytes() == signature.read_bytes()
    publish(archive, both, options)
    with pytest.raises(ConflictError, match="another signature"):
        publish(archive, signature, options)
    pull(name, "1.0", tmp_path / "out", options, force=True)
    assert (tmp_path / "out" / f"{name}.mar.sig").read_bytes() == both.read_bytes()
    newer = write_archive(tmp_path / "newer.mar", name=name, version="1.1")
    with pytest.raises(OtherBytesError):
        publish(newer, other, options)
    assert versions(options, name) == ["1.0"]
    new = write_signature(tmp_path / "new.sig", newer, keys[0])
    publish(newer, new, options)  # with it from the start
    pull(name, "1.1", tmp_path / "out", options, force=True)
    assert (tmp_path / "out" / f"{name}.mar.sig").read_bytes() == new.read_bytes()


@pytest.mark.parametrize("there", ["{}.mar", "{}.mar.sig", MANIFEST_NAME])
def test_what_is_there_is_replaced_by_force_alone(
    there: str, archive: Path, name: str, options: MlflowOptions, tmp_path: Path
) -> None:
    publish(archive, None, options)
    (tmp_path / "out").mkdir()
    path = tmp_path / "out" / there.format(name)
    path.write_text("mine")
    words = ["mlflow-pull", f"{name}@1.0", "--output", str(path.parent)]
    assert main(words) == 2
    assert [each.read_text() for each in path.parent.iterdir()] == ["mine"]
    assert main([*words, "--force"]) == 0
    assert verify(tmp_path / "out" / f"{name}.mar").version == "1.0"


@pytest.mark.parametrize("file", ["archive", "manifest", "signature"])
def test_what_was_changed_on_the_server_is_refused(
    file: str, archive: Path, name: str, options: MlflowOptions, mlflow_server: Mlflow,
    tmp_path: Path, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    write_signature(tmp_path / "a.sig", archive, PrivateKey.generate())
    made = publish(archive, tmp_path / "a.sig", options)
    names = {"archive": f"{name}.mar", "manifest": MANIFEST_NAME, "signature": f"{name}.mar.sig"}
    path = stored(mlflow_server, options, made, names[file])
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    out = tmp_path / "out"
    assert main(["mlflow-pull", f"{name}@1.0", "--output", str(out)]) == 5
    assert names[file] in capsys.readouterr().err
    assert list(out.iterdir()) == []


def test_tags_of_another_archive_are_refused(
    archive: Path, name: str, options: MlflowOptions, tmp_path: Path
) -> None:
    made = publish(archive, None, options)
    tag = client(options.tracking_uri).set_model_version_tag
    tag(name, made.number, "whybox.version", "1.1")
    assert main(["mlflow-pull", f"{name}@1.1", "--output", str(tmp_path / "out")]) == 5
    tag(name, made.number, "whybox.version", "1.0")
    tag(name, made.number, "whybox.digest", "0" * 64)
    assert main(["mlflow-pull", f"{name}@1.0", "--output", str(tmp_path / "out")]) == 5


def test_a_lost_artifact_is_named(
    archive: Path, name: str, options: MlflowOptions, mlflow_server: Mlflow, tmp_path: Path
) -> None:
    made = publish(archive, None, options)
    stored(mlflow_server, options, made, f"{name}.mar").unlink()
    with pytest.raises(MissingObjectError, match=rf"{name}.mar: 404 Not Found"):
        pull(name, "1.0", tmp_path / "out", options)


def test_an_archive_that_fails_verify_is_not_published(
    name: str, options: MlflowOptions, tmp_path: Path
) -> None:
    path = write_archive(tmp_path / "bad.mar", name=name)
    path.write_bytes(path.read_bytes().replace(b"def load", b"def lOad"))
    with pytest.raises(UnsafeArchiveError):
        publish(path, None, options)
    assert versions(options, name) == []


@pytest.fixture(scope="module")
def known(mlflow_server: Mlflow, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A model with 1.0 as `production`, and `foreign`, whose tags someone removed."""
    name, options = "known", MlflowOptions(mlflow_server.uri)
    folder = tmp_path_factory.mktemp("known")
    for version, alias in {"1.0": "production", "1.1": "foreign"}.items():
        archive = write_archive(folder / f"{version}.mar", name=name, version=version)
        made = publish(archive, None, options)
        set_alias(name, alias, version, options)
    client(mlflow_server.uri).delete_model_version_tag(name, made.number, "whybox.digest")
    return name


WRONG = {
    "known": "expected NAME@ALIAS or NAME@VERSION",
    "unknown@production": "Registered Model with name=unknown not found",
    "unknown@1.0": "it has none that Whybox published",
    "known@staging": "has no alias staging; it has foreign, production",
    "known@2.0": "has no known 2.0; it has 1.0",
    "known@a/b": "alias: expected letters",
    "x' or name!='@1.0": "is no archive's name",
    "../known@1.0": "is no archive's name",
    "known@foreign": "which mlflow-publish did not make",
}


@pytest.mark.parametrize("reference", WRONG)
@pytest.mark.usefixtures("known", "options")
def test_wrong_references(
    reference: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["mlflow-pull", reference, "--output", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert WRONG[reference] in error
    assert error.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_commands(
    archive: Path, name: str, options: MlflowOptions, tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    beside = archive.with_name("one.mar.sig")
    write_signature(beside, archive, PrivateKey.generate())  # found beside the archive
    assert main(["mlflow-publish", str(archive), "--alias", "staging", "--json"]) == 0
    told = json.loads(capfd.readouterr().out)
    assert (told["version"], told["alias"], told["created"]) == ("1.0", "staging", True)
    assert len(told["signature"]) == 64
    assert main(["mlflow-publish", str(archive)]) == 0
    assert f"was there already: {name} 1.0" in capfd.readouterr().out
    out = tmp_path / "out"
    assert main(["mlflow-pull", f"{name}@staging", "--output", str(out), "--json"]) == 0
    told = json.loads(capfd.readouterr().out)
    assert told["archive"] == str(out / f"{name}.mar")
    assert told["digest"] == verify(archive).digest


@pytest.mark.parametrize("alias", ["latest", "v2", "17", "a b", ""])
def test_an_alias_that_cannot_be_publishes_nothing(
    alias: str, archive: Path, name: str, options: MlflowOptions
) -> None:
    assert main(["mlflow-publish", str(archive), "--alias", alias]) == 2
    assert versions(options, name) == []


def test_commands_load_neither_mlflow_nor_torch() -> None:
    code = "import archives.__main__, sys; print({'mlflow', 'torch'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
