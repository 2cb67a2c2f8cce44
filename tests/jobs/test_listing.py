from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from jobs.errors import JobError, UsageError
from jobs.listing import Listing, list_input
from jobs.store import Entry, open_store
from tests.jobs.conftest import put


def keys(*uris: str, output: str = "/elsewhere") -> list[str]:
    return [entry.key for entry in list_input(uris, output).entries]


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
    listing = list_input([f"{place}/y/z", f"{place}/x"], "/elsewhere")
    assert [listing.store.read(entry.key) for entry in listing.entries] == [b"1", b"1"]


def test_what_the_job_itself_wrote_is_no_input(place: str) -> None:
    put(place, dict.fromkeys(["a.jpg", "out/shards/00000/overlays/a.jpg", "out/b.jpg"], b"1"))
    put(place, {"out/contact-sheet.jpg": b"1"})
    assert keys(place, output=f"{place}/out") == ["a.jpg", "out/b.jpg"]
    put(place, {"contact-sheet.jpg": b"1", "shards/00000/overlays/a.jpg.jpg": b"1"})
    assert keys(f"{place}", output=place)[0] == "a.jpg"


def test_what_other_jobs_wrote_is_no_input(place: str) -> None:
    written = ["run.json", "contact-sheet.jpg", "report/a.png", "shards/00000/overlays/a.jpg"]
    mine = ["a.jpg", "deep/b.jpg", "free/shards/c.jpg"]
    put(place, dict.fromkeys([*mine, *(f"deep/out/{name}" for name in written)], b"1"))
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


def test_inputs_in_two_places_are_wrong_usage(tmp_path: Path, bucket: str) -> None:
    (tmp_path / "a.jpg").write_bytes(b"")
    with pytest.raises(JobError, match="run one job for each"):
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
    listing = list_input([str(tmp_path)], "/elsewhere")
    assert listing.store.read(listing.entries[0].key) == b"1"
    assert len(listing.fingerprint()) == 64


def listing_of(*entries: Entry) -> Listing:
    return Listing(open_store("/"), entries, local=True)


def test_shards_are_fixed_and_ordered() -> None:
    listing = listing_of(*(Entry(f"{number}.jpg", 1, "") for number in range(5)))
    assert [[each.key[0] for each in shard] for shard in listing.shards(2)] == [
        ["0", "1"],
        ["2", "3"],
        ["4"],
    ]


def test_the_fingerprint_is_the_documented_digest_and_changes_with_any_part() -> None:
    entry = Entry("a.jpg", 3, "tag")
    fingerprint = listing_of(entry).fingerprint()
    assert fingerprint == hashlib.sha256(b"a.jpg\x003\x00tag\n").hexdigest()
    others = [entry._replace(key="b.jpg"), entry._replace(size=4), entry._replace(tag="t")]
    assert fingerprint not in {listing_of(other).fingerprint() for other in others}
