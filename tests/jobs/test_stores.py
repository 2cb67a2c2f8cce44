"""Whole runs on stores that are real, slow to anger or broken: moto and OpenStack Swift, behind a
proxy that makes a fifth of all requests fail."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

import boto3
import pytest

from archives.stores.opening import open_store
from jobs.__main__ import main
from tests.conftest import put
from tests.faulty import Faults, FaultyProxy
from tests.jobs.archive_stub import write_archive
from tests.jobs.conftest import rows
from tests.jobs.test_survival import command, pictures, start, stats, tables

if TYPE_CHECKING:
    from tests.swift import Swift

pytest_plugins = ("tests.swift",)


@pytest.fixture(params=["bucket", "swift_bucket"])
def any_bucket(request: pytest.FixtureRequest) -> str:
    return str(request.getfixturevalue(request.param))


def filled(bucket: str, folder: Path, count: int) -> tuple[str, Path]:
    """The same pictures in the bucket and in a folder: the folder, and an archive."""
    put(f"{bucket}/in", pictures(count))
    put(str(folder / "in"), pictures(count))
    return str(folder / "in"), write_archive(folder / "stub.mar")


def test_a_run_in_a_bucket_equals_one_in_a_folder(any_bucket: str, tmp_path: Path) -> None:
    source, archive = filled(any_bucket, tmp_path, 30)
    sizes = ("--shard-size", "8", "--coco")
    assert main(command(archive, source, str(tmp_path / "out"), *sizes)) == 3
    assert main(command(archive, f"{any_bucket}/in", f"{any_bucket}/out", *sizes)) == 3
    found, expected = tables(f"{any_bucket}/out"), tables(str(tmp_path / "out"))
    # The listing has the store's own tags.
    assert found.keys() == expected.keys()
    assert [name for name in found if found[name] != expected[name]] == ["listing/00000.parquet"]
    assert main(command(archive, f"{any_bucket}/in", f"{any_bucket}/out", *sizes)) == 3
    assert tables(f"{any_bucket}/out") == found


@pytest.mark.parametrize(
    "count", [20, pytest.param(1000, marks=[pytest.mark.full, pytest.mark.timeout(1200)])]
)
def test_a_fifth_of_all_requests_fails_and_nothing_is_lost(
    count: int, any_bucket: str, aws: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    source, archive = filled(any_bucket, tmp_path, count)
    sizes = ("--shard-size", "16")
    assert main(command(archive, source, str(tmp_path / "out"), *sizes)) == 3
    endpoint = boto3.client("s3").meta.endpoint_url
    aws.setenv("WHYBOX_S3_READ_SECONDS", "1")
    aws.delenv("AWS_MAX_ATTEMPTS", raising=False)
    faults = Faults(fault_share=0.2, hold_seconds=1.5, seed=count)
    with FaultyProxy(endpoint, faults) as proxy:
        aws.setenv("AWS_ENDPOINT_URL", proxy.url)
        assert main(command(archive, f"{any_bucket}/in", f"{any_bucket}/out", *sizes)) == 3
        assert sum(proxy.faults.values()) > proxy.requests / 10
    aws.setenv("AWS_ENDPOINT_URL", endpoint)
    for table in ("detections.parquet", "failures.parquet"):
        assert rows(f"{any_bucket}/out", table) == rows(str(tmp_path / "out"), table)
    assert stats(f"{any_bucket}/out") == stats(str(tmp_path / "out"))


def test_a_store_that_stays_down_and_comes_back(
    bucket: str, aws: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    source, _ = filled(bucket, tmp_path, 30)
    slow = write_archive(
        tmp_path / "slow.mar", "import time\n\ndef explain(grey):\n    time.sleep(0.1)"
    )
    endpoint = boto3.client("s3").meta.endpoint_url
    aws.setenv("AWS_MAX_ATTEMPTS", "2")
    with FaultyProxy(endpoint, Faults()) as proxy:
        aws.setenv("AWS_ENDPOINT_URL", proxy.url)
        arguments = command(slow, f"{bucket}/in", f"{bucket}/out", "--shard-size", "4")
        run = start(arguments)
        aws.setenv("AWS_ENDPOINT_URL", endpoint)
        output = open_store(f"{bucket}/out")
        while not output.find("shards/00001/stats.json"):
            time.sleep(0.05)
        proxy.down = True
        _, said = run.communicate(timeout=60)
        assert run.returncode == 75
        assert b"the store does not answer" in said
        proxy.down = False
        assert main(arguments) == 3
    assert main(command(slow, source, str(tmp_path / "out"), "--shard-size", "4")) == 3
    assert rows(f"{bucket}/out") == rows(str(tmp_path / "out"))


@pytest.mark.parametrize(
    ("user", "secret", "said"),
    [
        ("owner", "wrong", "the credentials are wrong"),
        ("reader", None, "not allowed with these credentials"),
    ],
)
def test_keys_that_are_wrong_or_may_only_read(
    user: str,
    secret: str | None,
    said: str,
    swift: Swift,
    swift_bucket: str,
    aws: pytest.MonkeyPatch,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    _, archive = filled(swift_bucket, tmp_path, 3)
    for name, value in swift.environment(getattr(swift, user)).items():
        aws.setenv(name, value)
    if secret:
        aws.setenv("AWS_SECRET_ACCESS_KEY", secret)
    assert main(command(archive, f"{swift_bucket}/in", f"{swift_bucket}/out")) == 2
    error = capfd.readouterr().err
    assert said in error
    assert error.count("\n") == 1


def test_a_bucket_that_is_not_there(
    any_bucket: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    _, archive = filled(any_bucket, tmp_path, 1)
    for source, output in (("no-such", any_bucket[5:]), (any_bucket[5:], "no-such")):
        assert main(command(archive, f"s3://{source}/in", f"s3://{output}/out")) == 2
        assert "there is no bucket 'no-such'" in capfd.readouterr().err
