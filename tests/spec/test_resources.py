"""Slots on machines of known size: GPUs and cores are counted as the functions are told."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from easyds_tune.spec import resources
from easyds_tune.spec.resources import ResourcesSpec, resource_problems, slot_count


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two GPUs and six cores."""
    monkeypatch.setattr(resources, "visible_gpus", lambda: 2)
    monkeypatch.setattr(resources, "usable_cpus", lambda: 6)


@pytest.mark.usefixtures("machine")
@pytest.mark.parametrize(
    ("spec", "slots"),
    [
        (ResourcesSpec(), 2),  # a whole GPU each
        (ResourcesSpec(gpus_per_trial=0.5), 4),
        (ResourcesSpec(gpus_per_trial=0.4), 4),  # two on each GPU, none on both
        (ResourcesSpec(gpus_per_trial=0.6), 2),
        (ResourcesSpec(gpus_per_trial=1 / 3), 6),
        (ResourcesSpec(gpus_per_trial=0.1), 6),  # 20 by the GPUs, 6 by the cores
        (ResourcesSpec(gpus_per_trial=5e-324), 6),  # 1 / it is more than any float
        (ResourcesSpec(gpus_per_trial=0.5, cpus_per_trial=3), 2),
        (ResourcesSpec(gpus_per_trial=0, cpus_per_trial=2), 3),
        (ResourcesSpec(gpus_per_trial=0, max_concurrent=2), 2),
        (ResourcesSpec(gpus_per_trial=0, max_concurrent=99), 6),
    ],
)
def test_slots_are_what_gpus_cores_and_the_limit_allow(spec: ResourcesSpec, slots: int) -> None:
    assert slot_count(spec) == slots
    assert resource_problems(spec) == []


@pytest.mark.usefixtures("machine")
def test_more_cores_than_there_are_are_a_problem() -> None:
    assert resource_problems(ResourcesSpec(cpus_per_trial=7)) == [
        "resources.cpus_per_trial: asks for 7 cores, this machine has 6; lower cpus_per_trial"
    ]


def test_a_machine_without_a_gpu_trains_on_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resources, "visible_gpus", lambda: 0)
    monkeypatch.setattr(resources, "usable_cpus", lambda: 2)
    assert slot_count(ResourcesSpec()) == 2
    [problem] = resource_problems(ResourcesSpec(gpus_per_trial=1))
    assert problem.startswith("resources.gpus_per_trial: asks for 1 GPU, this machine has 0; set")


@pytest.mark.parametrize("hidden", ["", "-1", ","])
def test_hidden_gpus_are_not_there(monkeypatch: pytest.MonkeyPatch, hidden: str) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", hidden)
    assert resources.visible_gpus() == 0


@pytest.mark.parametrize("gpus", [1.5, 2, -1])
def test_a_trial_has_one_gpu_at_most(gpus: float) -> None:
    with pytest.raises(ValidationError, match="gpus_per_trial"):
        ResourcesSpec(gpus_per_trial=gpus)


def test_a_hang_and_a_full_memory_have_limits() -> None:
    resources = ResourcesSpec()
    assert (resources.hang_seconds, resources.host_memory) == (300, 0.95)
    assert ResourcesSpec(hang_seconds=0.5, host_memory=1).host_memory == 1


@pytest.mark.parametrize(
    ("field", "value"),
    [("hang_seconds", 0), ("hang_seconds", None), ("host_memory", 0), ("host_memory", 95)],
)
def test_a_limit_that_is_none_is_refused(field: str, value: float | None) -> None:
    with pytest.raises(ValidationError, match=field):
        ResourcesSpec.model_validate({field: value})
