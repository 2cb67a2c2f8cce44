"""The part of the Ray engine that runs on a node, without Ray."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from archives.errors import UnsafeError
from archives.verify import verify
from jobs.engines.ray_actor import END, Orders, Said, unpacked
from jobs.options import JobOptions
from jobs.work_order import ArchiveFacts, WorkOrder
from jobs.worker.messages import SHEET, Job, ShardOrder
from tests.jobs.archive_stub import write_archive

JOB = Job("in", "out", 8, 4, "none").to_line()


@pytest.fixture
def order(tmp_path: Path) -> WorkOrder:
    digest = verify(write_archive(tmp_path / "stub.mar")).digest
    options = JobOptions("stub.mar", ("in",), "out", device="cuda:1", workers=8)
    return WorkOrder(options, ArchiveFacts("stub", "1.0", digest), Path("elsewhere"))


@pytest.mark.parametrize("last", [SHEET, END])
def test_orders_are_exhausted_for_now_while_some_are_in_hand(last: bytes) -> None:
    orders = Orders()
    for number in (3, 1):
        orders.give(JOB, ShardOrder(number).to_line())
    assert orders.job() == Job.from_line(JOB)
    assert [order.number for order in orders] == [3, 1]
    assert list(orders) == []
    orders.give(JOB, ShardOrder(2).to_line())
    assert [order.number for order in orders] == [2]
    for _ in range(3):
        orders.committed()
    orders.give(JOB, last)
    assert (list(orders), list(orders)) == ([], [])  # and does not wait


def test_an_actor_verifies_the_archive_itself(order: WorkOrder, tmp_path: Path) -> None:
    data = (tmp_path / "stub.mar").read_bytes()
    private = tmp_path / "private"
    private.mkdir()
    own = unpacked(order, data, private)
    assert isinstance(own.options, JobOptions)
    assert (own.options.device, own.options.workers) == ("cuda", 1)
    assert own.folder.joinpath("handlers", "explainer.py").exists()
    assert [each.name for each in private.iterdir()] == ["archive"]


@pytest.mark.parametrize(
    ("changed", "message"), [("body", "tampered"), ("digest", "was changed since it was verified")]
)
def test_an_actor_refuses_another_archive(
    changed: str, message: str, order: WorkOrder, tmp_path: Path
) -> None:
    data = (tmp_path / "stub.mar").read_bytes()
    if changed == "body":
        data = data.replace(b"the archive's own", b"some other body's")
    else:
        order = replace(order, archive=replace(order.archive, digest="ab" * 32))
    private = tmp_path / "private"
    private.mkdir()
    with pytest.raises(UnsafeError, match=message):
        unpacked(order, data, private)


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("a warning\njobs: no room\n", "no room"),
        ("Traceback:\n  here\nValueError\n", "Traceback:\n  here\nValueError"),
        ("", "a worker ended and did not say why"),
    ],
)
def test_what_a_process_said_last(written: str, expected: str) -> None:
    before = os.dup(2)
    try:
        said = Said()
        subprocess.run([sys.executable, "-Sc", f"import os; os.write(2, {written.encode()!r})"])
        assert said.why() == expected
    finally:
        os.dup2(before, 2)
        os.close(before)
