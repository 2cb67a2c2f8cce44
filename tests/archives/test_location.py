from __future__ import annotations

from pathlib import Path

import pytest

from archives.errors import UnsafeError, UsageError
from archives.location import fetched
from archives.names import read_reference
from archives.registry.registry import Promotion, Registry
from archives.signatures.keys import PrivateKey
from archives.verify import verify
from tests.archives.small_archives import write_signature, write_small
from tests.conftest import put


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    return write_small(tmp_path / "demo.mar")


def published(place: str, archive: Path, signature: Path | None = None) -> Registry:
    registry = Registry.open(place)
    registry.publish(archive, signature)
    registry.promote(Promotion(read_reference("demo@1.0"), "production", "me", "why"))
    return registry


def test_a_file_is_used_as_it_is(archive: Path, tmp_path: Path) -> None:
    assert fetched(str(archive), tmp_path / "private") == (archive, None)
    signature = tmp_path / "demo.mar.sig"
    signature.write_bytes(b"signed")
    assert fetched(str(archive), tmp_path / "private") == (archive, signature)
    assert not (tmp_path / "private").exists()


def test_what_is_not_there_is_left_to_verify(tmp_path: Path) -> None:
    for text in (str(tmp_path / "none.mar"), "", "no@such.mar", "no/such@thing"):
        assert fetched(text, tmp_path / "private") == (Path(text), None)


@pytest.mark.parametrize("signed", [True, False])
def test_an_object_with_its_signature(
    archive: Path, bucket: str, tmp_path: Path, signed: bool
) -> None:
    put(bucket, {"a/demo.mar": archive.read_bytes()})
    if signed:
        put(bucket, {"a/demo.mar.sig": b"signed"})
    path, signature = fetched(f"{bucket}/a/demo.mar", tmp_path / "private")
    assert path.read_bytes() == archive.read_bytes()
    assert (signature.read_bytes() if signature else None) == (b"signed" if signed else None)
    assert len(list((tmp_path / "private").iterdir())) == 1 + signed


def test_an_object_that_is_not_there(bucket: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=f"there is no archive {bucket}/none.mar"):
        fetched(f"{bucket}/none.mar", tmp_path / "private")


@pytest.mark.parametrize("which", ["demo@production", "demo@1.0"])
def test_from_a_registry(
    which: str, place: str, archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = write_signature(tmp_path / "signature", archive, PrivateKey.generate())
    published(place, archive, written)
    path, signature = fetched(which, tmp_path / "given", place)
    assert verify(path) == verify(archive)
    assert signature is not None
    assert signature.read_bytes() == written.read_bytes()
    monkeypatch.setenv("WHYBOX_REGISTRY", place)
    assert verify(fetched(which, tmp_path / "environment").path) == verify(archive)


def test_a_file_goes_before_a_registry(
    archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("demo@production").write_bytes(b"a file")
    assert fetched("demo@production", tmp_path / "p", str(tmp_path / "none")).path == Path(
        "demo@production"
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("demo@production", "Give --registry, or set WHYBOX_REGISTRY"),
        ("demo@Production", "Give --registry"),
    ],
)
def test_without_a_registry(
    text: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("WHYBOX_REGISTRY", raising=False)
    with pytest.raises(UsageError, match=f"the archive {text}: .*{message}"):
        fetched(text, tmp_path)


def test_what_the_registry_refuses(archive: Path, tmp_path: Path) -> None:
    registry = published(str(tmp_path / "registry"), archive)
    for text in ("demo@2.0", "demo@two words", "none@production"):
        with pytest.raises(UsageError, match=f"the archive {text}: "):
            fetched(text, tmp_path / "p", str(tmp_path / "registry"))
    registry.store.write("demo/1.0/whybox.json", b"{}")
    with pytest.raises(UnsafeError):
        fetched("demo@1.0", tmp_path / "p", str(tmp_path / "registry"))
    registry.store.write("demo/1.0/whybox.json", verify(archive).to_json())
    registry.store.write("demo/1.0/demo.mar", b"no zip")
    with pytest.raises(
        UsageError, match=r"the archive demo@1\.0: .*registry/demo/1\.0/demo\.mar is"
    ):
        fetched("demo@1.0", tmp_path / "p", str(tmp_path / "registry"))
