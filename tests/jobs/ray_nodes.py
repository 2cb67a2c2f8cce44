"""A Ray cluster on loopback for tests: `python -m tests.jobs.ray_nodes NODES`.

NODES: a JSON list of what each has, as {"num_cpus": 1}; the first is the head. Prints {"address":
..., "raylets": [process ids], "logs": FOLDER} once all are there, and ends them when stdin ends.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from jobs.engines.ray_cluster import ON_LOOPBACK, QUIET

# The second: as the driver that connects has to see the address.
ENVIRONMENT = {**QUIET, **ON_LOOPBACK, "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": 8 * "test"}


@dataclass(frozen=True)
class Nodes:
    """address: HOST:PORT of the head. raylets: each node's first process. logs: Ray's own."""

    address: str
    raylets: Sequence[psutil.Process]
    logs: Path

    @property
    def environment(self) -> dict[str, str]:
        """What a driver needs besides its own."""
        return {**ENVIRONMENT, "RAY_ADDRESS": self.address}

    def holds(self, node: int, pid: int) -> bool:
        """Whether a process runs on a node."""
        return self.raylets[node] in psutil.Process(pid).parents()

    def kill(self, node: int) -> None:
        """Every process of the node at once, as when a machine is gone."""
        raylet = self.raylets[node]
        raylet.suspend()  # it would start others
        for process in (*raylet.children(recursive=True), raylet):
            process.kill()


@contextmanager
def nodes(*resources: Mapping[str, int]) -> Iterator[Nodes]:
    """A cluster of one node for each; of it nothing is left at the end."""
    command = [sys.executable, "-m", "tests.jobs.ray_nodes", json.dumps(resources)]
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, env={**os.environ, **ENVIRONMENT}, **pipes) as process:
        assert process.stdout is not None
        told = json.loads(process.stdout.readline())
        raylets = [psutil.Process(pid) for pid in told["raylets"]]
        yield Nodes(told["address"], raylets, Path(told["logs"]))
        started = psutil.Process(process.pid).children(recursive=True)
        assert process.stdin is not None
        process.stdin.close()
        assert process.wait(30) == 0
        psutil.wait_procs(started, 5)
        for each in started:
            if each.is_running():  # Ray's agents look only now and then whether they are alone
                each.kill()


def main(resources: Sequence[dict[str, Any]]) -> None:
    from ray.cluster_utils import Cluster

    with tempfile.TemporaryDirectory(prefix="ray-", dir="/tmp", ignore_cleanup_errors=True) as logs:
        # Where it leaves its address; /tmp/ray, its choice, need not be there.
        os.environ["RAY_TMPDIR"] = logs
        Path(logs, "ray").mkdir()
        cluster: Any = Cluster()
        common = {"node_ip_address": "127.0.0.1", "temp_dir": logs, "include_dashboard": False}
        made = [cluster.add_node(**common, **each) for each in resources]
        raylets = [node.all_processes["raylet"][0].process.pid for node in made]
        told = {"address": cluster.address, "raylets": raylets, "logs": logs}
        print(json.dumps(told), flush=True)
        sys.stdin.read()
        cluster.shutdown()


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
