from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest
from moto.core.models import DEFAULT_ACCOUNT_ID
from moto.s3.models import s3_backends

from archives.errors import CommandError, UsageError
from archives.stores.opening import open_store
from archives.stores.store import Entry
from jobs.inputs.listing import Listing, list_input
from tests.conftest import put


def keys(*uris: str, output: str = "/elsewhere") -> list[str]:
    with list_input(uris, output) as found:
        return [entry.key for entry in found.entries()]


def test_pictures_are_found_by_suffix_in_order_and_hidden_ones_left_out(place: str) -> None:
    names = ["b.JPG", "a.png", "c/z.webp", "c/a.tiff", "notes.txt", ".hidden.jpg", "c/.git/x.jpg"]
    put(place, dict.fromkeys(names, b"x"))
    assert keys(place) == keys(place + "/") == ["a.png", "b.JPG", "c/a.tiff", "c/z.webp"]


def test_keys_are_relative_to_the_folder_that_the_inputs_share(place: str) -> None:
    put(place, dict.fromkeys(["x/a.jpg", "x/b", "y/a.jpg", "y/z/c.jpg", "xy/d.jpg"], b"1"))
    assert keys(f"{place}/x") == ["a.jpg"]
    assert keys(f"{place}/x/b") == ["b"]
    assert keys(f"{place}/x/a.jpg", f"{place}/x/b") == ["a.jpg", "b"]
    assert keys(f"{place}/y/a.jpg", f"{place}/x") == ["x/a.jpg", "y/a.jpg"]
    assert keys(f"{place}/y", f"{place}/y/z/c.jpg") == ["a.jpg", "z/c.jpg"]
    with list_input([f"{place}/y/z", f"{place}/x"], "/elsewhere") as found:
        assert [found.store.read(entry.key) for entry in found.entries()] == [b"1", b"1"]


def test_what_the_job_itself_wrote_is_no_input(place: str) -> None:
    put(place, dict.fromkeys(["a.jpg", "out/shards/00000/overlays/a.jpg", "out/b.jpg"], b"1"))
    put(place, {"out/contact-sheet.jpg": b"1"})
    assert keys(place, output=f"{place}/out") == ["a.jpg", "out/b.jpg"]
    put(place, {"contact-sheet.jpg": b"1", "shards/00000/overlays/a.jpg.jpg": b"1"})
    assert keys(f"{place}", output=place)[0] == "a.jpg"


def test_what_other_jobs_wrote_is_no_input(place: str) -> None:
    written = ["run.json", "contact-sheet.jpg", "report/a.png", "shards/00000/overlays/a.jpg"]
    mine = ["a.jpg", "deep/b.jpg", "free/listing/c.jpg", "free/shards/c.jpg"]
    outputs = [f"deep/out/{name}" for name in [*written, "listing/a.jpg"]]
    put(place, dict.fromkeys([*mine, *outputs], b"1"))
    assert keys(place, output=f"{place}/out2") == mine
    assert keys(f"{place}/deep/out/report/a.png", f"{place}/a.jpg")[1:] == ["deep/out/report/a.png"]
    for output in ("/elsewhere", f"{place}/deep/out"):
        with pytest.raises(UsageError, match=r"all pictures in .*/out are a job's own output"):
            keys(f"{place}/deep/out", output=output)


def test_nothing_to_do_is_wrong_usage(place: str) -> None:
    put(place, {"notes.txt": b"1"})
    with pytest.raises(UsageError, match=r"no pictures in .*looked for names ending in \.jpg"):
        keys(place)
    with pytest.raises(UsageError, match=r"not there|no pictures"):
        keys(f"{place}/nowhere")
    with pytest.raises(UsageError, match="no input; give a folder"):
        keys()


def test_inputs_in_two_places_are_wrong_usage(tmp_path: Path, bucket: str) -> None:
    (tmp_path / "a.jpg").write_bytes(b"")
    with pytest.raises(CommandError, match="run one job for each"):
        keys(str(tmp_path), bucket)


def test_relative_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    put(".", {"a.jpg": b"1", "b/c.jpg": b"1"})
    assert keys("a.jpg") == ["a.jpg"]
    assert keys("a.jpg", "b") == ["a.jpg", "b/c.jpg"]


def test_names_that_are_not_utf8(tmp_path: Path) -> None:
    path = os.fsencode(tmp_path) + b"/caf\xe9.jpg"
    with open(path, "wb") as file:
        file.write(b"1")
    with list_input([str(tmp_path)], "/elsewhere") as found:
        assert [found.store.read(entry.key) for entry in found.entries()] == [b"1"]
        assert len(found.fingerprint) == 64


def test_a_bucket_of_several_pages_in_order(bucket: str) -> None:
    store = s3_backends[DEFAULT_ACCOUNT_ID]["aws"]  # the server's own, in this process
    names = [f"p/{number * 7919 % 1205:04d}.jpg" for number in range(1205)]
    for name in names:
        store.put_object(bucket.removeprefix("s3://"), name, b"12")
    with list_input([f"{bucket}/p"], "/elsewhere") as found:
        assert [f"p/{entry.key}" for entry in found.entries()] == sorted(names)
        assert (found.count, found.bytes, found.local) == (1205, 2410, False)
        assert found.store.uri == f"{bucket}/p"


def listing_of(*entries: Entry) -> Listing:
    return Listing.of(open_store("/"), True, entries)


def test_the_fingerprint_is_the_documented_digest_and_changes_with_any_part() -> None:
    entry = Entry("a.jpg", 3, "tag")
    fingerprint = listing_of(entry).fingerprint
    assert fingerprint == hashlib.sha256(b"a.jpg\x003\x00tag\n").hexdigest()
    others = [entry._replace(key="b.jpg"), entry._replace(size=4), entry._replace(tag="t")]
    assert fingerprint not in {listing_of(other).fingerprint for other in others}


def test_a_listing_can_be_read_again_counts_and_leaves_nothing_behind() -> None:
    before = len(os.listdir("/proc/self/fd"))
    entries = [Entry("a.jpg", 3, ""), Entry("b.jpg", -1, ""), Entry("c\udce9.jpg", 4, "")]
    with listing_of(*entries) as found:
        assert list(found.entries()) == list(found.entries()) == entries
        assert (found.count, found.bytes) == (3, 7)
    assert len(os.listdir("/proc/self/fd")) == before


@pytest.mark.parametrize("drawn", ["sanity.jpg", "shortcuts/cat%2C-right.jpg"])
def test_what_audits_drew_is_no_input(place: str, drawn: str) -> None:
    put(place, dict.fromkeys(["a.jpg", "out/run.json", f"out/{drawn}"], b"1"))
    assert keys(place, output=f"{place}/out") == ["a.jpg"]  # the same audit again
    assert keys(place) == ["a.jpg"]  # the next night's
