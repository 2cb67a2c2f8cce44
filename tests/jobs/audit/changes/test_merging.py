"""Two runs read side by side."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from archives.errors import ConflictError
from jobs.audit.changes.merging import Noted, Pictures, merged, same_content
from jobs.saved_run import SavedPicture, SavedRun
from tests.conftest import put
from tests.jobs.conftest import CURSED_WIDTH, MakeJob, picture_bytes


def test_pictures_of_one_key_come_together(make_job: MakeJob, tmp_path: Path) -> None:
    runs = []
    for name, keys in (("one", "abcfx"), ("two", "bcdfx")):
        place = str(tmp_path / name)
        widths = {"x": CURSED_WIDTH, "f": CURSED_WIDTH if name == "two" else 12}
        put(place, {f"{key}\udcff.png": picture_bytes(widths.get(key, 12)) for key in keys})
        for path in Path(place).iterdir():
            os.utime(path, (1, 1))  # so that only sizes tell
        job = make_job(place, str(tmp_path / f"{name}-out"), shard_size=2, overlays="none")
        job.run()
        runs.append(SavedRun.open(job.output))
    pictures = Pictures()
    names = [(one.name, other.name) for one, other in merged(runs[0], runs[1], pictures)]
    assert names == [(r"b\xff.png", r"b\xff.png"), (r"c\xff.png", r"c\xff.png")]
    assert pictures == Pictures(
        compared=2,
        only_before=Noted(1, [r"a\xff.png"]),
        only_after=Noted(1, [r"d\xff.png"]),
        failed=Noted(2, [r"f\xff.png", r"x\xff.png"]),
    )


def listed(size: int, tag: str, width: int = 9) -> SavedPicture:
    row = {"width": width, "height": 5}
    return SavedPicture(
        "a", "a", (row,) if width else (), lambda _: pytest.fail("no map"), size, tag
    )


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        (listed(5, "123"), listed(5, "456"), True),  # a copy of a file
        (listed(5, "123"), listed(6, "123"), False),
        (listed(-1, ""), listed(6, "ab1"), True),  # a manifest's key
        (listed(5, "ab1"), listed(5, "ab2"), False),
        (listed(5, "ab1"), listed(5, "ab1"), True),
        (listed(5, "1", 9), listed(5, "2", 8), False),
        (listed(5, "1", 9), listed(5, "2", 0), True),
    ],
)
def test_what_listings_tell_of_a_picture(
    one: SavedPicture, other: SavedPicture, same: bool
) -> None:
    assert same_content(one, other) is same_content(other, one) is same


def test_a_listing_out_of_order_is_refused(
    make_job: MakeJob, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(str(tmp_path / "in"), {name: picture_bytes() for name in ("a.png", "b.png")})
    job = make_job(str(tmp_path / "in"), overlays="none")
    job.run()
    run = SavedRun.open(job.output)
    backwards = [*run.pictures()][::-1]
    monkeypatch.setattr(run, "pictures", lambda: iter(backwards))
    with pytest.raises(ConflictError, match=r"not in the order of its keys: a.png comes too late"):
        list(merged(run, SavedRun.open(job.output), Pictures()))
