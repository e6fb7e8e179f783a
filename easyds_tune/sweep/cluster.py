"""Start and stop the local Ray that a sweep runs on: its own, without dashboard, quiet."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from easyds_tune.spec.resources import ResourcesSpec, gpus_of, slot_count, visible_gpus

# Read by Ray in the driver, before and while it runs.
DRIVER_ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
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
    """A Ray of this machine with exactly the sweep's slots; gone when the block ends."""
    # Workers inherit the driver's environment; a runtime environment of Ray's would cost seconds.
    os.environ.update(DRIVER_ENVIRONMENT | worker_environment(resources.cpus_per_trial))
    import logging

    import ray

    slots = slot_count(resources)
    ray.init(
        address="local",  # never a cluster that happens to be there
        num_cpus=slots * resources.cpus_per_trial,
        num_gpus=visible_gpus() if gpus_of(resources) else 0,
        include_dashboard=False,
        log_to_driver=False,
        logging_level=logging.ERROR,
        configure_logging=True,
    )
    for name in ("ray.tune", "ray.air", "ray.train"):
        # A failed trial is in the journal and on the screen; its traceback is in its folder.
        logging.getLogger(name).setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        ray.shutdown()
