"""The Ray of a sweep is closed to others: where it listens, whom it lets in, what it leaves."""

from __future__ import annotations

import ipaddress
import json
import os
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from easyds_tune.sweep.processes import all_processes, mark_of
from tests.sweep.children import Child, child, has_ended, line_of, wait_until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]

# Ray was imported before, and the shell it runs in says things that must not matter.
DRIVER = """
import json, os, sys, time, ray
from easyds_tune.spec.resources import ResourcesSpec
from easyds_tune.sweep.cluster import local_ray

@ray.remote(num_cpus=1)
class Worker:
    def environment(self):
        return dict(os.environ)

for _ in range(2):
    start = time.monotonic()
    with local_ray(ResourcesSpec(gpus_per_trial=0, max_concurrent=2)):
        worker = Worker.remote()
        context = ray.get_runtime_context()
        said = {
            "address": context.gcs_address,
            "session": ray._private.worker._global_node.get_session_dir_path(),
            "environment": ray.get(worker.environment.remote()),
            "seconds": time.monotonic() - start,
        }
        print(json.dumps(said), flush=True)
        sys.stdin.readline()
    print(json.dumps(sorted(os.environ)), flush=True)
"""
SHELL = {"RAY_AUTH_MODE": "disabled", "RAY_AUTH_TOKEN": "known to all", "RAY_ADDRESS": "1.2.3.4:5"}
# Ray takes loopback for the machine's own address, where nobody listens, unless it is told not to.
VISITS = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
VISITOR = """
import sys, ray
ray.init(address=sys.argv[1])
print(ray.cluster_resources()["CPU"])
"""


@dataclass(frozen=True)
class Cluster:
    """A driver with its Ray, as that Ray was while it ran."""

    driver: Child
    address: str
    session: Path
    environment: dict[str, str]

    @property
    def token(self) -> str:
        return self.environment["RAY_AUTH_TOKEN"]

    def processes(self) -> list[int]:
        mark = f":{self.driver.pid}:"
        return [pid for pid in all_processes() if mark in (mark_of(pid) or "")]

    def next(self) -> dict[str, object]:
        """Let the driver go on, and return what it says next."""
        print("go", file=self.driver.stdin, flush=True)
        said: dict[str, object] = json.loads(line_of(self.driver))
        return said


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with child(DRIVER, **SHELL) as driver:
        said = json.loads(line_of(driver))
        yield Cluster(driver, said["address"], Path(said["session"]), said["environment"])


def test_it_listens_on_loopback_alone_and_has_no_dashboard(cluster: Cluster) -> None:
    names, heard = set(), []
    for pid in [cluster.driver.pid, *cluster.processes()]:
        process = psutil.Process(pid)
        names.add(process.name())
        heard += [c.laddr for c in process.net_connections("inet") if c.status == "LISTEN"]
    assert {"raylet", "gcs_server"} < names
    assert len(heard) >= 4  # the driver, both servers and a worker
    for place in heard:
        address = ipaddress.ip_address(place.ip)
        assert (getattr(address, "ipv4_mapped", None) or address).is_loopback
        assert place.port != 8265


def test_who_has_no_token_is_refused(cluster: Cluster) -> None:
    for environment in (
        {"RAY_AUTH_MODE": "disabled"},
        {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "0" * 64},
    ):
        refused = subprocess.Popen(
            [sys.executable, "-c", VISITOR, cluster.address],
            env=VISITS | environment, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert refused.stderr is not None
        # Ray tries for 20 s; the first answer is enough.
        assert any("InvalidAuthToken" in line for line in refused.stderr)
        refused.kill()
        assert refused.communicate()[0] == ""


def test_who_has_the_token_is_let_in(cluster: Cluster) -> None:
    let_in = subprocess.run(
        [sys.executable, "-c", VISITOR, cluster.address],
        env=VISITS | {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": cluster.token},
        stdout=subprocess.PIPE, text=True, check=True,
    )  # fmt: skip
    assert let_in.stdout == "2.0\n"


def test_the_token_stands_in_no_command_line_and_no_file(cluster: Cluster) -> None:
    assert len(cluster.token) == 64
    assert cluster.token != SHELL["RAY_AUTH_TOKEN"]
    for pid in cluster.processes():
        assert cluster.token.encode() not in Path(f"/proc/{pid}/cmdline").read_bytes()
    files = [path for path in cluster.session.parent.parent.rglob("*") if path.is_file()]
    assert len(files) > 10
    for path in files:
        assert cluster.token.encode() not in path.read_bytes()


def test_only_this_user_may_look_at_its_files(cluster: Cluster) -> None:
    private = cluster.session.parent.parent
    assert stat.S_IMODE(private.stat().st_mode) == 0o700
    sockets = list((cluster.session / "sockets").iterdir())
    assert len(sockets) == 2


def test_memory_is_not_rays_to_look_after(cluster: Cluster) -> None:
    assert cluster.environment["RAY_memory_monitor_refresh_ms"] == "0"


def test_a_signal_to_all_of_it_ends_none_of_it(cluster: Cluster) -> None:
    processes = cluster.processes()
    for pid in processes:
        os.kill(pid, signal.SIGTERM)
        os.kill(pid, signal.SIGINT)
    time.sleep(1)
    assert [pid for pid in processes if has_ended(pid)] == []


def test_it_leaves_nothing_and_can_be_started_again(cluster: Cluster) -> None:
    # Ray's agents have no mark that can be read.
    children = psutil.Process(cluster.driver.pid).children(recursive=True)
    processes = [*cluster.processes(), *(process.pid for process in children)]
    names = cluster.next()
    wait_until(lambda: all(has_ended(pid) for pid in processes), 15, "the end of Ray")
    assert not cluster.session.parent.parent.exists()
    assert not {"EASYDS_TUNE_DRIVER", "RAY_AUTH_TOKEN"} & set(names)
    second = json.loads(line_of(cluster.driver))
    assert second["address"] != cluster.address
    start = time.monotonic()
    cluster.next()
    assert cluster.driver.wait(timeout=30) == 0
    assert time.monotonic() - start < 30
