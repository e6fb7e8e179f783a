"""The death of an essential process of Ray's is detected, reported with its cause, and bounded."""

from __future__ import annotations

import queue
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from easyds_tune.sweep.ray_watch import RayWatch
from tests.sweep.children import wait_until

pytestmark = pytest.mark.slow


@contextmanager
def started(watch: RayWatch, name: str) -> Iterator[subprocess.Popen[bytes]]:
    """A process that Ray starts, by this name."""
    from ray._private import services

    with watch.recording_processes():
        info = services.start_ray_process(["sleep", "60"], name, fate_share=True)
    process: subprocess.Popen[bytes] = info.process
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def test_it_gives_up_on_a_dead_ray_only_after_its_patience(tmp_path: Path) -> None:
    said: queue.Queue[str] = queue.Queue()
    watch = RayWatch(tmp_path, said.put, patience_seconds=0.5)
    watch.start()
    with started(watch, "gcs_server") as process:
        assert watch.death() is None
        process.kill()
        wait_until(watch.death, 10, "the death of the process")
        assert said.empty()
        assert said.get(timeout=10) == "Ray's gcs_server died"
    watch.stop()


def test_it_reports_nothing_once_it_is_stopped(tmp_path: Path) -> None:
    said: queue.Queue[str] = queue.Queue()
    watch = RayWatch(tmp_path, said.put, patience_seconds=0.0)
    watch.start()
    with started(watch, "raylet"):
        watch.stop()
    assert said.empty()


def test_a_process_that_ray_can_do_without_may_die(tmp_path: Path) -> None:
    watch = RayWatch(tmp_path, print)
    with started(watch, "dashboard") as process:
        process.kill()
        process.wait()
        assert watch.death() is None


def test_the_raylets_log_names_the_agent_that_ended_it(tmp_path: Path) -> None:
    log = tmp_path / "logs" / "raylet.out"
    log.parent.mkdir()
    log.write_text(
        "agent_manager.cc:90: The raylet exited immediately because one Ray agent failed, "
        "agent_name = runtime_env_agent.\n",
        encoding="utf-8",
    )
    watch = RayWatch(tmp_path, print)
    with started(watch, "raylet") as process:
        process.kill()
        process.wait()
        assert watch.death() == "Ray's raylet died because its runtime_env_agent died"
