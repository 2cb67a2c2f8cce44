from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from archives.building.build import BuildOptions, build
from archives.serving.served import copy_archives
from archives.serving.server_config import ServerConfigError
from archives.signatures.keys import PrivateKey
from archives.signatures.signing import MissingSignatureError, OtherBytesError, sign, signature_of
from archives.verify import UnsafeArchiveError, verify


@pytest.fixture(scope="module")
def later(options: BuildOptions, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(
        replace(
            options,
            version="1.3",
            golden_sample=False,
            export_path=tmp_path_factory.mktemp("later"),
        )
    )


def test_versions_of_one_name(archive: Path, later: Path, tmp_path: Path) -> None:
    served = copy_archives([archive, later], tmp_path)
    assert [(each.name, each.version, each.file) for each in served] == [
        ("small", "1.2", "0.mar"),
        ("small", "1.3", "1.mar"),
    ]
    assert [each.digest for each in served] == [verify(path).digest for path in (archive, later)]
    assert (tmp_path / "1.mar").read_bytes() == later.read_bytes()


def test_one_version_twice(archive: Path, tmp_path: Path) -> None:
    with pytest.raises(ServerConfigError, match=r"two archives are small 1\.2"):
        copy_archives([archive, archive], tmp_path)


def test_only_configured_digests(archive: Path, later: Path, tmp_path: Path) -> None:
    digest = verify(archive).digest
    assert len(copy_archives([archive], tmp_path, ["f" * 64, digest])) == 1
    with pytest.raises(UnsafeArchiveError, match=f"expected, as configured, {digest}"):
        copy_archives([archive, later], tmp_path, [digest])


def test_only_what_a_known_key_signed(archive: Path, tmp_path: Path) -> None:
    key, mine, store = PrivateKey.generate(), tmp_path / "mine.mar", tmp_path / "store"
    shutil.copyfile(archive, mine)
    store.mkdir()
    with pytest.raises(MissingSignatureError, match=rf"{mine} is not signed"):
        copy_archives([mine], store, (), [key.public])
    signature_of(mine).write_bytes(sign(mine, key))
    (served,) = copy_archives([mine], store, (), [PrivateKey.generate().public, key.public])
    assert served.digest == verify(archive).digest
    mine.write_bytes(b"no zip")
    with pytest.raises(OtherBytesError, match=rf"; {mine} has "):
        copy_archives([mine], store, (), [key.public])
