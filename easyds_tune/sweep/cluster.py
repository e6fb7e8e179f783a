"""Start and stop the local Ray that a sweep runs on: its own, closed to others, quiet.

It listens on loopback alone, wants a token of whoever connects, has no dashboard, and keeps its
files and sockets where only this user may look.
"""

from __future__ import annotations

import functools
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from easyds_tune.errors import EasyDSError
from easyds_tune.spec.resources import ResourcesSpec, gpus_of, slot_count, visible_gpus
from easyds_tune.sweep.orphans import end_own_processes, private_folder
from easyds_tune.sweep.processes import MARK, own_mark
from easyds_tune.sweep.signals import handlers, no_other_handlers, set_handlers

LOOPBACK = "127.0.0.1"
ESSENTIAL = ("raylet", "gcs_server")
"""The processes without which Ray runs nothing; a raylet's death ends its workers, in time."""

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
def local_ray(resources: ResourcesSpec) -> Iterator[None]:
    """A Ray of this machine with exactly the sweep's slots; gone when the block ends.

    All its processes carry this driver's mark. Signals go to whom they went before.
    Raises EasyDSError where it would listen on more than loopback.
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
        try:
            with no_other_handlers():  # Ray's would end the process
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
            set_handlers(told)  # Ray's C++ has set one for SIGTERM
            address = ray.util.get_node_ip_address()  # type: ignore[no-untyped-call]
            if address != LOOPBACK:
                raise EasyDSError(f"Ray listens on {address}; it must on {LOOPBACK} alone")
            for name in ("ray.tune", "ray.air", "ray.train"):
                # A failed trial is in the journal and on the screen, its traceback in its folder.
                logging.getLogger(name).setLevel(logging.CRITICAL)
            yield
        finally:
            with suppress(Exception):  # its processes are ended, whatever it says
                ray.shutdown()
            set_handlers(told)
            end_own_processes()
            for name in (MARK, "RAY_AUTH_TOKEN"):
                os.environ.pop(name, None)


def check_ray() -> None:
    """Raise RayDied where a process has died that Ray cannot do without."""
    from ray._private import worker

    node = worker._global_node
    dead: list[str] = (
        [] if node is None else [name for name, _ in node.dead_processes() if name in ESSENTIAL]
    )
    if dead:
        raise RayDied(f"Ray's {' and '.join(dead)} died")


@functools.cache
def _token() -> str:
    """What a process shows to be let into this driver's Ray; Ray itself reads it once a process."""
    return secrets.token_hex(32)
