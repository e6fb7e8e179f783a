from __future__ import annotations

from array import array

import pytest

from easyds_tune.decisions.retries import RETRIES, state_after, times_out_of_memory
from easyds_tune.journal.events import TrialError, TrialState
from easyds_tune.journal.replay import Interruption, Report, TrialRecord

FAILED, OUT_OF_MEMORY = TrialState.FAILED, TrialState.OUT_OF_MEMORY
INTERRUPTED = TrialState.INTERRUPTED


def trial(*failures: tuple[int, str], at: int = 0) -> TrialRecord:
    """A trial that runs at step `at`, after failures of a class at a step."""
    made = TrialRecord("000", 0, {}, "default", suggested=0.0)
    if at:
        made.reports = [Report(at, 0.0, (), array("d"))]
    made.failures = [Interruption(step, TrialError(kind, "")) for step, kind in failures]
    return made


def after(record: TrialRecord, kind: str, state: TrialState = FAILED, *, shrinks: bool = False):  # type: ignore[no-untyped-def]
    return state_after(record, state, TrialError(kind, ""), shrinks)


@pytest.mark.parametrize("kind", ["WorkerDied", "Hung"])
def test_a_lost_worker_is_replaced_three_times_without_progress(kind: str) -> None:
    for count in range(RETRIES):
        assert after(trial(*[(10, kind)] * count, at=10), kind) is INTERRUPTED
    assert after(trial(*[(10, kind)] * RETRIES, at=10), kind) is FAILED


def test_deaths_and_hangs_count_together() -> None:
    mixed = trial((10, "WorkerDied"), (10, "Hung"), (10, "WorkerDied"), at=10)
    assert after(mixed, "Hung") is FAILED


def test_progress_earns_new_retries() -> None:
    assert after(trial(*[(10, "WorkerDied")] * RETRIES, at=20), "WorkerDied") is INTERRUPTED


@pytest.mark.parametrize("kind", ["Preempted", "DiskFull"])
def test_what_is_not_its_fault_is_tried_again_for_ever(kind: str) -> None:
    assert after(trial(*[(0, kind)] * 50), kind) is INTERRUPTED


def test_a_bug_is_not_tried_again() -> None:
    assert after(trial(), "ValueError") is FAILED
    assert after(trial(), "DivergedError", TrialState.DIVERGED) is TrialState.DIVERGED


def test_out_of_memory_goes_on_while_the_micro_batch_can_shrink() -> None:
    assert after(trial(), "OutOfMemoryError", OUT_OF_MEMORY, shrinks=True) is INTERRUPTED
    assert after(trial(), "OutOfMemoryError", OUT_OF_MEMORY) is OUT_OF_MEMORY


def test_each_time_out_of_memory_halves_once_more() -> None:
    assert times_out_of_memory(trial()) == 0
    kinds = ("OutOfMemoryError", "WorkerDied", "HostMemory", "MemoryError")
    assert times_out_of_memory(trial(*((5, kind) for kind in kinds))) == 3
