from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from archives.errors import UsageError
from archives.stores.opening import open_store
from archives.stores.store import Entry
from jobs.inputs.listing import list_input
from jobs.inputs.manifest import read_manifest
from tests.conftest import put

WANTED = [Entry("a.txt", 5, "t"), Entry("b/c, d.jpg", -1, "")]
CSV = b'Key,Size,ETag,other\r\na.txt,5,"""t""",x\r\n\r\n"b/c, d.jpg",,,\r\n'
JSON = b'{"file_name": "a.txt", "size": 5, "etag": "\\"t\\""}\n\n"b/c, d.jpg"\n'


def parquet(**columns: Any) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table(columns), sink)
    return bytes(sink.getvalue().to_pybytes())


PARQUET = parquet(path=["a.txt", "b/c, d.jpg"], size=[5, None], tag=["t", None])
BYTES = parquet(key=[b"a.txt", b"b/c, d.jpg"], size=[5.0, float("nan")], e_tag=["t", None])


def read(folder: Path, name: str, data: bytes, place: str | None = None) -> list[Entry]:
    (folder / name).write_bytes(data)
    return list(read_manifest(str(folder / name), place or "/home/me/pictures/"))


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("m.csv", CSV),
        ("m.CSV", b"\xef\xbb\xbf" + CSV.replace(b"\r", b"")),
        ("m.csv", b'other,path,tag,size\n,a.txt,t,5.0\n,"b/c, d.jpg",,\n'),
        ("m.csv.gz", gzip.compress(CSV, mtime=0)),
        ("m.jsonl", JSON),
        ("m.ndjson", b"\xef\xbb\xbf" + JSON),
        ("m.jsonl.gz", gzip.compress(JSON, mtime=0)),
        ("m.parquet", PARQUET),
        ("m.parquet", BYTES),
    ],
)
def test_every_format_gives_the_same(tmp_path: Path, name: str, data: bytes) -> None:
    assert read(tmp_path, name, data) == WANTED


def test_a_manifest_names_pictures_below_the_input_whatever_their_suffix(
    place: str, bucket: str, tmp_path: Path
) -> None:
    pictures = ["p/b.jpg", "p/a.txt", "p/not-named.jpg", "p/out/shards/0.jpg"]
    put(place, dict.fromkeys(pictures, b"12"))
    rows = [*"ba", f"{place}/p/c.jpg", "b", "out/shards/0.jpg", "other/shards/.hidden"]
    data = "key,size\n" + "".join(f"{row},{len(row)}\n" for row in rows)
    put(bucket, {"lists/m.csv.gz": gzip.compress(data.encode())})
    for uri in (f"{bucket}/lists/m.csv.gz", str(tmp_path / "m.csv")):
        (tmp_path / "m.csv").write_text(data)
        with list_input([f"{place}/p"], f"{place}/p/out", uri) as found:
            assert [entry.key for entry in found.entries()] == ["a", "b", "c.jpg", rows[-1]]
            assert found.store.uri == f"{place}/p"
            assert found.bytes == 1 + 1 + len(rows[2]) + len(rows[-1])
    with list_input([f"{place}/p"], "/elsewhere", uri) as found:
        assert "out/shards/0.jpg" in [entry.key for entry in found.entries()]


@pytest.mark.parametrize(
    ("key", "folder", "relative"),
    [
        ("./a//b.jpg", "/in/", "a/b.jpg"),
        ("/in//./a.jpg", "/in/", "a.jpg"),
        ("in/a.jpg", "/in/", "in/a.jpg"),
        ("in/a.jpg", "/", "in/a.jpg"),
        ("a//./b+%20.jpg", "s3://b/in/", "a//./b+%20.jpg"),
        ("s3://b/in//a", "s3://b/in/", None),
        ("s3://b/in/a", "s3://b/in/", "a"),
        ("s3://b/in/a", "s3://b/", "in/a"),
        ("caf\udce9.jpg", "/in/", "caf\udce9.jpg"),
    ],
)
def test_keys_are_relative_to_the_input(
    tmp_path: Path, key: str, folder: str, relative: str | None
) -> None:
    data = f"key\n{key}\n".encode(errors="surrogateescape")
    if relative is None:
        with pytest.raises(UsageError, match="leads out of the input"):
            read(tmp_path, "m.csv", data, folder)
    else:
        assert read(tmp_path, "m.csv", data, folder) == [Entry(relative, -1, "")]


@pytest.mark.parametrize("folder", ["/in/", "s3://b/in/"])
@pytest.mark.parametrize(
    ("key", "message"),
    [
        ("../a.jpg", "leads out of the input"),
        ("a/../../b.jpg", "leads out of the input"),
        ("/inside/a.jpg", "leads out of the input"),
        ("s3://b/other/a.jpg", "leads out of the input"),
        ("http://x/a.jpg", "leads out of the input"),
        ("/in/../a.jpg", "leads out of the input"),
        ("", "expected the name of a picture"),
        ("a/", "expected the name of a picture"),
        ("a\0b", "expected the name of a picture"),
        ("\ud800", "cannot be written as UTF-8"),
    ],
)
def test_keys_that_cannot_be_are_refused_with_their_line(
    tmp_path: Path, key: str, folder: str, message: str
) -> None:
    data = b'"a.jpg"\n' + json.dumps({"key": key}).encode()
    with pytest.raises(UsageError, match=r"m\.jsonl, line 2: .*" + message):
        read(tmp_path, "m.jsonl", data, folder)


def test_a_key_of_a_bucket_is_utf8(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"line 2: .*cannot be written as UTF-8"):
        read(tmp_path, "m.csv", b"key\ncaf\xe9.jpg\n", "s3://b/")


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("m.csv", b"", "m.csv is empty"),
        ("m.csv", b"key\n\n", "m.csv names no pictures"),
        ("m.jsonl", b"\n", "m.jsonl names no pictures"),
        ("m.parquet", parquet(key=pa.array([], pa.string())), "names no pictures"),
        ("m.csv", b"a.jpg\nb.jpg\n", "has no column of keys; .*its columns are a.jpg"),
        ("m.parquet", parquet(name=["a"]), "has no column of keys; .*its columns are name"),
        ("m.csv", b"key,size\na.jpg,1\nb.jpg\n", "line 3: 1 values, expected 2"),
        ("m.csv", b"key,size\na.jpg,1,1\n", "line 2: 3 values, expected 2"),
        ("m.csv", b"key,size\na.jpg,1\n\nb.jpg,-4\n", "line 4: the size is '-4'"),
        ("m.csv", b"key,size\na.jpg,1.5\n", "line 2: the size is '1.5'; expected a number"),
        ("m.csv", b"key,size\na.jpg,9223372036854775808\n", "line 2: the size is"),
        ("m.csv", b"key,size\na.jpg,inf\n", "line 2: the size is 'inf'"),
        ("m.csv", b'key\n"a.jpg\n', "line 2: unexpected end of data"),
        ("m.csv", b"key\n" + b"a" * 2_000_000, "line 2: longer than"),
        ("m.jsonl", b'"a"\n{"key": "b"\n', "line 2: no JSON"),
        ("m.jsonl", b'"a"\n[1]\n', r"line 2: expected a text or an object with key .*got \[1\]"),
        ("m.jsonl", b'{"name": "a"}\n', "line 1: expected a text or an object"),
        ("m.jsonl", b'{"key": 3}\n', "line 1: the key is 3; expected text"),
        ("m.jsonl", b'{"key": "a", "size": true}\n', "line 1: the size is True"),
        ("m.jsonl", b'{"key": "a", "tag": [1]}\n', r"line 1: the tag is \[1\]"),
        ("m.jsonl", b"[" * 100_000, "line 1: no JSON"),
        ("m.parquet", parquet(key=["a", None]), "row 2: the key is None; expected text"),
        ("m.parquet", PARQUET[:-9], "m.parquet is damaged or of another format"),
        ("m.parquet", CSV, "m.parquet is damaged or of another format"),
        ("m.csv.gz", gzip.compress(CSV, mtime=0)[:-9], "m.csv.gz is damaged or of another format"),
        ("m.txt", b"a.jpg", r"is of no known format; expected a name ending in \.csv"),
    ],
)
def test_what_is_no_manifest_is_refused_in_one_line(
    tmp_path: Path, name: str, data: bytes, message: str
) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        read(tmp_path, name, data)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 1000


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ([], "a manifest needs --input"),
        (["{}", "{}"], "2 inputs with a manifest; give one --input"),
        (["{}/m.csv"], "is no folder"),
        (["{}/nowhere"], "is no folder"),
    ],
)
def test_a_manifest_needs_one_folder(tmp_path: Path, inputs: list[str], message: str) -> None:
    (tmp_path / "m.csv").write_bytes(b"key\na.jpg\n")
    places = [each.format(tmp_path) for each in inputs]
    with pytest.raises(UsageError, match=message):
        list_input(places, "/elsewhere", str(tmp_path / "m.csv"))


def test_a_manifest_that_is_not_there(place: str) -> None:
    with pytest.raises(UsageError, match=r"the manifest .*cannot be read: .*(No such|no object)"):
        list(read_manifest(f"{place}/m.csv", "/in/"))
    put(place, {"folder.csv/x": b""})
    with pytest.raises(UsageError, match="cannot be read"):
        list(read_manifest(f"{place}/folder.csv", "/in/"))


def test_nothing_but_outputs(tmp_path: Path) -> None:
    (tmp_path / "m.csv").write_bytes(b"key\nshards/a.jpg\n")
    with pytest.raises(UsageError, match="a job's own output"):
        list_input([str(tmp_path)], str(tmp_path), str(tmp_path / "m.csv"))


def test_an_object_is_fetched_in_parts_to_a_file(
    bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jobs.inputs.manifest_files.DOWNLOAD_CHUNK", 1000)
    monkeypatch.setattr(type(open_store(bucket)), "read", None)
    open_store(bucket).write("m.csv", b"key\n" + b"".join(b"%d\n" % n for n in range(2000)))
    found = [entry.key for entry in read_manifest(f"{bucket}/m.csv", "/in/")]
    assert found == [str(number) for number in range(2000)]
