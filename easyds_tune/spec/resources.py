"""How many trials run at once and on what."""

from __future__ import annotations

import os
from pathlib import Path

from pydantic import Field, field_validator

from easyds_tune.spec.base import LARGEST, Spec


class ResourcesSpec(Spec):
    """The slot of one trial, and how many slots there are."""

    gpus_per_trial: float | None = Field(None, ge=0)
    """A whole GPU (1), a fraction (0.25), or none (0); null is 1 where a GPU is seen, else 0."""
    cpus_per_trial: int = Field(1, ge=1, le=LARGEST)
    """Processor cores of a trial; a worker computes with this many threads."""
    max_concurrent: int | None = Field(None, ge=1, le=LARGEST)
    """Trials that run at once; null is as many as the machine has room for."""
    hang_seconds: float = Field(300, gt=0, le=LARGEST)
    """A trial that gives no sign of life for this long is ended and tried again; one whose steps
    take long gets a multiple of the longest."""
    host_memory: float = Field(0.95, gt=0, le=1)
    """Share of the machine's or the container's memory; above it, the worker that holds the most is
    ended and its trial tried again with smaller micro-batches. 1 leaves it to the system."""

    @field_validator("gpus_per_trial")
    @classmethod
    def _one_rank(cls, gpus: float | None) -> float | None:
        if gpus is not None and gpus > 1:
            raise ValueError(
                f"must be at most 1, got {gpus:g}: a trial has one rank; "
                "several ranks come in a later version"
            )
        return gpus


def visible_gpus() -> int:
    """GPUs this process may use, counted without importing torch."""
    devices = len(list(Path("/dev").glob("nvidia[0-9]*")))
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is None:
        return devices
    return min(
        devices, len([part for part in visible.split(",") if part.strip() not in ("", "-1")])
    )


def usable_cpus() -> int:
    """Processor cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def gpus_of(resources: ResourcesSpec) -> float:
    """The GPU share of one trial, with the default filled in."""
    if resources.gpus_per_trial is None:
        return 1.0 if visible_gpus() else 0.0
    return resources.gpus_per_trial


def slot_count(resources: ResourcesSpec) -> int:
    """Trials that run at once on this machine."""
    gpus = gpus_of(resources)
    room = usable_cpus() // resources.cpus_per_trial
    if gpus:
        # No trial straddles two GPUs: at 0.4 each holds two, and a fifth of it stays empty.
        room = min(room, visible_gpus() * int(min(1 / gpus, LARGEST) + 1e-9))
    return max(1, min(room, resources.max_concurrent or room))


def resource_problems(resources: ResourcesSpec) -> list[str]:
    """What the spec asks for and this machine does not have."""
    problems = []
    gpus, have = gpus_of(resources), visible_gpus()
    if gpus > have:
        problems.append(
            f"resources.gpus_per_trial: asks for {gpus:g} GPU, this machine has {have}; "
            "set gpus_per_trial: 0 to train on the CPU"
        )
    if resources.cpus_per_trial > usable_cpus():
        problems.append(
            f"resources.cpus_per_trial: asks for {resources.cpus_per_trial} cores, "
            f"this machine has {usable_cpus()}; lower cpus_per_trial"
        )
    return problems
