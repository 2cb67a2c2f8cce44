"""What the Ray engine asks of a cluster before anything is started there."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import pytest

from archives.errors import UsageError
from jobs.engines.ray_cluster import Cluster


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("127.0.0.1:1", "RAY_ADDRESS=127.0.0.1:1: no Ray cluster answers there"),
        ("here", "RAY_ADDRESS=here: no Ray cluster answers there"),
        ("ray://127.0.0.1:1", "or have `ray job submit` run it"),
        ("", "--engine ray needs Ray: python -m pip install 'whybox[ray]'"),
    ],
)
def test_no_cluster(address: str, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", address)
    if not address:
        monkeypatch.setitem(sys.modules, "ray", None)  # as if it were not installed
    with pytest.raises(UsageError) as raised, Cluster(0):
        pass
    assert message in str(raised.value)


def cluster(*nodes: dict[str, float]) -> Cluster:
    alive = [{"Alive": True, "Resources": each} for each in nodes]
    made = Cluster(0)
    made.ray = SimpleNamespace(nodes=lambda: [*alive, {"Alive": False, "Resources": {"GPU": 8.0}}])
    return made


@pytest.mark.parametrize(
    ("kind", "asked", "expected"),
    [("GPU", None, 3), ("GPU", 2, 2), ("CPU", None, 2), ("CPU", 5, 5)],
)
def test_as_many_workers_as_asked_for_or_as_fit(kind: str, asked: int, expected: int) -> None:
    some = cluster({"CPU": 4.0}, {"CPU": 2.0, "GPU": 1.0}, {"GPU": 2.0})
    assert some.workers(kind, asked) == expected


@pytest.mark.parametrize(
    ("kind", "asked", "message"),
    [
        ("GPU", None, "takes 1 GPU for 1 worker; the Ray cluster of this machine alone (2 nodes, "),
        ("CPU", 7, "takes 7 CPUs for 7 workers; the Ray cluster of this machine alone (2 nodes, "),
    ],
)
def test_a_cluster_without_room(
    kind: str, asked: int | None, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    with pytest.raises(UsageError) as raised:
        cluster({"CPU": 4.0}, {"CPU": 2.0}).workers(kind, asked)
    assert message in str(raised.value)
    assert str(raised.value).endswith(" (2 nodes, 6 CPUs) has " + ("0" if kind == "GPU" else "6"))
