"""S3 Inventory, as AWS documents it."""

from __future__ import annotations

import gzip
import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyarrow import orc

from archives.errors import UsageError
from archives.stores.store import Entry
from jobs.inputs.inventory import read_inventory
from jobs.inputs.listing import list_input
from tests.conftest import put

SOURCE = "the-pictures"
FOLDER = "lists/the-pictures/daily/"
CSV_SCHEMA = "Bucket, Key, VersionId, IsLatest, IsDeleteMarker, Size, LastModifiedDate, ETag"
PARQUET_SCHEMA = (
    "message s3.inventory { required binary bucket (UTF8); required binary key (UTF8); }"
)
# key, is latest, is a delete marker, size, tag
ROWS: list[tuple[str, bool, bool, int | None, str | None]] = [
    ("in/z b+é.jpg", True, False, 7, "tag-z"),
    ("in/a.jpg", False, False, 3, "old"),
    ("in/a.jpg", True, False, 5, "tag-a"),
    ("in/gone.jpg", True, True, None, None),
    ("in/notes.txt", True, False, 9, "n"),
    ("in/.hidden/a.jpg", True, False, 9, "h"),
    ("in/out/shards/0.jpg", True, False, 9, "o"),
    ("in/out/run.json", True, False, 9, "r"),
    ("inside.jpg", True, False, 11, "tag-i"),
]
BELOW = [Entry("a.jpg", 5, "tag-a"), Entry("z b+é.jpg", 7, "tag-z")]
WHOLE = [*(entry._replace(key=f"in/{entry.key}") for entry in BELOW)]
WHOLE.append(Entry("inside.jpg", 11, "tag-i"))


def as_csv(rows: list[Any]) -> bytes:
    def line(key: str, latest: bool, marker: bool, size: int | None, tag: str | None) -> str:
        name = key.replace("+", "%2B").replace(" ", "+").replace("é", "%C3%A9")
        flags = f'"{str(latest).lower()}","{str(marker).lower()}"'
        return f'"{SOURCE}","{name}","v1",{flags},"{size or ""}","2026-07-01","{tag or ""}"\n'

    return gzip.compress("".join(line(*row) for row in rows).encode())


def as_table(rows: list[Any]) -> pa.Table:
    keys, latest, markers, sizes, tags = zip(*rows, strict=True)
    flags = {"is_latest": latest, "is_delete_marker": markers}
    columns = {"bucket": [SOURCE] * len(rows), "key": keys, **flags, "size": sizes, "e_tag": tags}
    return pa.table({name: list(values) for name, values in columns.items()})


def as_parquet(rows: list[Any]) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(as_table(rows), sink)
    return bytes(sink.getvalue().to_pybytes())


def as_orc(rows: list[Any]) -> bytes:
    sink = pa.BufferOutputStream()
    orc.write_table(as_table(rows), sink)
    return bytes(sink.getvalue().to_pybytes())


KINDS: dict[str, tuple[str, Callable[[list[Any]], bytes]]] = {
    "CSV": (CSV_SCHEMA, as_csv),
    "Parquet": (PARQUET_SCHEMA, as_parquet),
    "ORC": ("struct<bucket:string,key:string>", as_orc),
}


def inventory(kind: str, lists: str, rows: list[Any] = ROWS, **changed: Any) -> dict[str, bytes]:
    """The objects of an inventory in two files, by their keys below the bucket `lists`."""
    schema, write = KINDS[kind]
    middle = len(rows) // 2
    parts = [write(rows[:middle]), write(rows[middle:])]
    names = [f"{FOLDER}data/{number}.{kind.lower()}" for number in range(2)]
    manifest = {
        "sourceBucket": SOURCE,
        "destinationBucket": f"arn:aws:s3:::{lists.removeprefix('s3://')}",
        "version": "2016-11-30",
        "creationTimestamp": "1514944800000",
        "fileFormat": kind,
        "fileSchema": schema,
        "files": [
            {"key": name, "size": len(data), "MD5checksum": hashlib.md5(data).hexdigest()}
            for name, data in zip(names, parts, strict=True)
        ],
        **changed,
    }
    objects = dict(zip(names, parts, strict=True))
    return {f"{FOLDER}2026-07-01T01-00Z/manifest.json": json.dumps(manifest).encode(), **objects}


def copied(folder: Path, objects: dict[str, bytes]) -> str:
    """The place of the manifest, with its data files beside it."""
    for key, data in objects.items():
        (folder / key.rpartition("/")[2]).write_bytes(data)
    return str(folder / "manifest.json")


def listed(inputs: list[str], manifest: str) -> list[Entry]:
    with list_input(inputs, "/elsewhere", manifest) as found:
        return list(found.entries())


@pytest.mark.parametrize("kind", KINDS)
def test_an_inventory_lists_its_bucket_or_a_part(
    kind: str, bucket: str, aws: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    objects = inventory(kind, bucket)
    put(bucket, objects)
    assert listed([f"s3://{SOURCE}/in"], f"{bucket}/{next(iter(objects))}") == BELOW
    manifest = copied(tmp_path, objects)
    assert listed([f"s3://{SOURCE}/in/"], manifest) == BELOW
    assert listed([f"s3://{SOURCE}"], manifest) == WHOLE
    with list_input([], f"s3://{SOURCE}/in/out", manifest) as found:
        assert list(found.entries()) == WHOLE
        assert (found.store.uri, found.local) == (f"s3://{SOURCE}", False)


def test_without_versions_and_sizes_all_keys_are_taken(aws: Any, tmp_path: Path) -> None:
    data = gzip.compress(b'"the-pictures","b.jpg"\n"the-pictures","a.jpg"\n')
    objects = inventory(
        "CSV",
        "s3://lists",
        fileSchema="Bucket, Key",
        files=[{"key": "data/x.csv.gz", "MD5checksum": hashlib.md5(data).hexdigest().upper()}],
    )
    manifest = copied(tmp_path, {**objects, "data/x.csv.gz": data})
    assert listed([], manifest) == [Entry("a.jpg", -1, ""), Entry("b.jpg", -1, "")]


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        (["s3://another/in"], "is of s3://the-pictures, where the input s3://another/in does not"),
        (["/in"], "is of s3://the-pictures, where the input /in does not lie"),
        (["s3://the-pictures/in", "s3://the-pictures"], "give one --input"),
        (["s3://the-pictures/nothing"], "no pictures in s3://the-pictures/nothing"),
    ],
)
def test_inputs_outside_the_inventory(
    aws: Any, tmp_path: Path, inputs: list[str], message: str
) -> None:
    manifest = copied(tmp_path, inventory("CSV", "s3://lists"))
    with pytest.raises(UsageError, match=message):
        listed(inputs, manifest)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"fileFormat": "Avro"}, "has fileFormat 'Avro'; expected CSV, ORC, Parquet"),
        ({"sourceBucket": None}, "has no sourceBucket; expected AWS's manifest.json"),
        ({"fileSchema": ""}, "has no fileSchema"),
        ({"files": {}}, "has no list of files"),
        ({"files": ["a"]}, "a file of it, has no key"),
        ({"files": [{"key": "a"}]}, "a file of it, has no MD5checksum"),
        ({"files": [{"key": "a", "MD5checksum": "x"}]}, "inventory's file .*/a cannot be read: No"),
        ({"fileSchema": "Bucket, Size"}, r"0\.csv has no column of keys; its columns are Bucket"),
        ({"fileSchema": "Bucket, Key"}, r"0\.csv, line 1: 8 values, expected 2"),
        ({"fileSchema": CSV_SCHEMA.replace("ETag", "a").replace("LastModifiedDate", "Size")
          .replace("Size", "b", 1)}, r"0\.csv, line 1: the size is '2026-07-01'"),
    ],
)  # fmt: skip
def test_what_is_no_inventory_is_refused(
    aws: Any, tmp_path: Path, changed: dict[str, Any], message: str
) -> None:
    manifest = copied(tmp_path, inventory("CSV", "s3://lists", **changed))
    with pytest.raises(UsageError, match=message):
        listed([], manifest)


@pytest.mark.parametrize("data", [b"", b"[1]", b'{"a": 1}', b"\xff"])
def test_another_json_is_refused(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "m.json").write_bytes(data)
    with pytest.raises(UsageError, match=r"no JSON|has no fileFormat"):
        read_inventory(str(tmp_path / "m.json"))


@pytest.mark.parametrize("kind", KINDS)
def test_a_file_that_is_not_the_one_meant_is_refused(kind: str, aws: Any, tmp_path: Path) -> None:
    manifest = copied(tmp_path, inventory(kind, "s3://lists"))
    file = tmp_path / f"1.{kind.lower()}"
    data = file.read_bytes()
    file.write_bytes(data[:-1])
    with pytest.raises(UsageError, match=r"has MD5 [0-9a-f]{32}, expected .*fetch the inventory"):
        listed([], manifest)
    digest = hashlib.md5(data[:-1]).hexdigest()
    text = Path(manifest).read_text().replace(hashlib.md5(data).hexdigest(), digest)
    Path(manifest).write_text(text)
    with pytest.raises(UsageError, match="is damaged or of another format"):
        listed([], manifest)


def test_an_orc_file_that_cannot_be_read_here(
    aws: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pa, "orc", None)
    monkeypatch.setitem(__import__("sys").modules, "pyarrow.orc", None)
    monkeypatch.delattr(pa, "orc")
    with pytest.raises(UsageError, match="is ORC, which this pyarrow cannot read"):
        listed([], copied(tmp_path, inventory("ORC", "s3://lists")))
