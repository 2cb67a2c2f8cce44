"""The contact sheet of a run, and when there is none."""

from __future__ import annotations

from archives.stores.opening import open_store
from jobs.contact_sheet import write_contact_sheet
from jobs.inputs.plan import Plan
from tests.conftest import put, remove
from tests.jobs.conftest import MakeJob, contents, picture_bytes, record, sheet_size


def test_the_contact_sheet_leaves_out_pictures_that_are_gone(
    source: str, make_job: MakeJob
) -> None:
    job = make_job(source)
    job.run()
    assert sheet_size(job.output) == (4 * 328 + 8, 2 * 275 + 8)
    output = open_store(job.output)
    for number in range(2, 8):
        remove(source, f"{number}.png")
    assert write_contact_sheet(open_store(source), output, Plan(output, 3, 8))
    assert sheet_size(job.output) == (328 + 8, 275 + 8)


def test_pictures_that_became_private_leave_no_contact_sheet(place: str, make_job: MakeJob) -> None:
    put(f"{place}/in", {"a.png": picture_bytes(grey=100)})
    job = make_job(f"{place}/in", f"{place}/out", overlays="none")
    assert job.run() == 0
    assert "contact-sheet.jpg" in contents(job.output)
    assert job.run(pictures=False) == 0
    assert "contact-sheet.jpg" not in contents(job.output)
    assert record(job.output)["execution"]["pictures"] is False


def test_a_part_makes_pictures_private_too(source: str, make_job: MakeJob) -> None:
    job = make_job(source, overlays="none")
    assert job.run() == 0
    assert job.run(pictures=False, shard=(0, 2)) == 0  # `jobs report` goes by run.json
    assert "contact-sheet.jpg" not in contents(job.output)
    assert record(job.output)["execution"]["pictures"] is False
    assert record(job.output)["outputs"]["contact_sheet"] is False
