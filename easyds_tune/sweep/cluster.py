"""Start and stop the local Ray that a sweep runs on: its own, closed to others, quiet.

It listens on loopback alone, wants a token of whoever connects, has no dashboard, and keeps its
files and sockets where only this user may look.
"""

from __future__ import annotations

import functools
import os
import secrets
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from easyds_tune.errors import EasyDSError
from easyds_tune.spec.resources import ResourcesSpec, gpus_of, slot_count, visible_gpus
from easyds_tune.sweep.last_words import LastWords, last_words_in
from easyds_tune.sweep.orphans import end_own_processes, private_folder
from easyds_tune.sweep.processes import MARK, children_of, own_mark, start_of
from easyds_tune.sweep.ray_watch import RayWatch
from easyds_tune.sweep.signals import blocked, handlers, no_other_handlers, set_handlers

LOOPBACK = "127.0.0.1"

# Read by Ray in the driver, before and while it runs.
DRIVER_ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    # A Ray of one machine alone: its servers listen on loopback.
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
    # The supervisor looks after memory; the error of Ray's own monitor would end Tune.
    "RAY_memory_monitor_refresh_ms": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_AIR_NEW_OUTPUT": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_AUTO_CALLBACK_SYNCER": "1",
    # A diverged trial reports no metric; that must not end the sweep.
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",
    # Interrupts are ours to handle: Ray would end with exit code 0.
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    "TUNE_WARN_THRESHOLD_S": "60",
    "TUNE_GLOBAL_CHECKPOINT_S": "3600",
}


_watches: list[RayWatch] = []
"""The watch over the Ray of this process while it runs, else none."""


class RayDied(BaseException):
    """A process of Ray's died. No Exception: Tune would wait for its workers on one."""


def worker_environment(threads: int) -> dict[str, str]:
    """Environment of a worker process: its share of threads, and no parallelism on the side."""
    return {
        "OMP_NUM_THREADS": str(threads),
        "MKL_NUM_THREADS": str(threads),
        "TOKENIZERS_PARALLELISM": "false",
        "TRANSFORMERS_VERBOSITY": "error",
        "TRL_EXPERIMENTAL_SILENCE": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "PYTHONWARNINGS": "ignore",
    }


@contextmanager
def local_ray(
    resources: ResourcesSpec, give_up: Callable[[str], object] = lambda what: None
) -> Iterator[None]:
    """A Ray of this machine with exactly the sweep's slots; gone when the block ends.

    All its processes carry this driver's mark and block SIGINT and SIGTERM, so that a signal to the
    whole process group reaches only the driver, whose handlers stay as they were.
    give_up: called in another thread when Ray has died and the main thread still waits for it; must
    end this process. Raises EasyDSError where it would listen on more than loopback.
    """
    # Workers inherit the driver's environment; a runtime environment of Ray's would cost seconds.
    os.environ.update(DRIVER_ENVIRONMENT | worker_environment(resources.cpus_per_trial))
    os.environ["RAY_AUTH_TOKEN"] = _token()
    os.environ.pop("RAY_AUTH_MODE", None)  # a new local Ray then asks for the token
    os.environ[MARK] = own_mark()
    import logging

    import ray
    from ray._private import ray_constants, worker

    # The same as in the environment, which Ray reads when it is imported: perhaps before this.
    ray_constants.ENABLE_RAY_CLUSTER = False
    # Ray would print what its processes say of each other's death, with the end of a log.
    worker.print_to_stdstream = lambda *args, **kwargs: None
    slots = slot_count(resources)
    told = handlers()
    with private_folder() as folder:
        watch = RayWatch(folder / "r" / "session_latest", give_up)
        _watches.append(watch)
        try:
            with blocked():  # Ray's processes and the thread inherit it
                watch.start()
                try:
                    # Ray's own handlers would end the process.
                    with (
                        no_other_handlers(),
                        watch.recording_processes(),
                        same_imports(folder),
                    ):
                        ray.init(
                            address="local",  # never a cluster that happens to be there
                            num_cpus=slots * resources.cpus_per_trial,
                            num_gpus=visible_gpus() if gpus_of(resources) else 0,
                            include_dashboard=False,
                            log_to_driver=False,
                            logging_level=logging.ERROR,
                            configure_logging=True,
                            _temp_dir=str(folder / "r"),
                        )
                finally:
                    set_handlers(told)  # Ray's C++ has set one for SIGTERM
            address = ray.util.get_node_ip_address()  # type: ignore[no-untyped-call]
            if address != LOOPBACK:
                raise EasyDSError(f"Ray listens on {address}; it must on {LOOPBACK} alone")
            for name in ("ray.tune", "ray.air", "ray.train"):
                # A failed trial is in the journal and on the screen, its traceback in its folder.
                logging.getLogger(name).setLevel(logging.CRITICAL)
            yield
        except Exception:
            check_ray()  # Ray says many things once a part of it is gone
            raise
        finally:
            with suppress(Exception):  # its processes are ended, whatever it says
                _end_at_once(worker._global_node, watch)
                ray.shutdown()
            watch.stop()
            _watches.remove(watch)
            set_handlers(told)
            end_own_processes()
            for name in (MARK, "RAY_AUTH_TOKEN"):
                os.environ.pop(name, None)


@contextmanager
def same_imports(folder: Path) -> Iterator[None]:
    """Within the block, start Ray so that its workers import what this process imports.

    Ray adds the driver's working directory to its workers' `sys.path` (ray 2.60,
    `_private/worker.py`, `connect`), so a datasets.py there would replace the library. The block
    runs in `folder`, which holds no modules, unless this process imports from the working directory
    itself. Relative entries of PYTHONPATH become absolute, as workers start in `folder`.
    """
    working = os.getcwd()
    if entries := os.environ.get("PYTHONPATH"):
        # An empty entry means the working directory.
        absolute = [os.path.abspath(entry) for entry in entries.split(os.pathsep)]
        os.environ["PYTHONPATH"] = os.pathsep.join(absolute)
    if any(os.path.abspath(entry) == working for entry in sys.path):
        yield
        return
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(working)


def _end_at_once(node: Any, watch: RayWatch) -> None:
    """Make `ray.shutdown` use SIGKILL, as Ray's processes block SIGTERM, and stop the watch first.

    Until then Ray's death may still block the shutdown, which the watch bounds.
    """
    if node is None:
        return
    end = node.kill_all_processes

    def kill(**how: Any) -> None:
        watch.stop()
        # Ray's agents overwrite their environment, and the mark in it, with a title.
        raylets = {info.process.pid for info in node.all_processes.get("raylet", [])}
        children = children_of(raylets)
        end(**(how | {"allow_graceful": False}))
        for pid, start in children.items():
            if start_of(pid) == start:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)

    node.kill_all_processes = kill


def check_ray() -> None:
    """Raise RayDied where a process has died that Ray cannot do without."""
    for watch in _watches:
        if what := watch.death():
            raise RayDied(what)


def last_words(pid: int) -> LastWords | None:
    """What a worker of the running Ray wrote to standard error; None where it wrote nothing."""
    for watch in _watches:
        return last_words_in(watch.logs, pid)
    return None


@functools.cache
def _token() -> str:
    """What a process shows to be let into this driver's Ray; Ray itself reads it once a process."""
    return secrets.token_hex(32)
