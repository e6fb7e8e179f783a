"""What becomes of a trial that failed: tried again, or over. A pure function of its record."""

from __future__ import annotations

from easyds_tune.journal.events import TrialError, TrialState
from easyds_tune.journal.replay import TrialRecord

RETRIES = 3
"""How often a trial is tried again after losing its worker, without a report in between."""
NOT_ITS_FAULT = ("Preempted", "DiskFull")
"""Failures that say nothing about the trial: it is tried again however often they come."""
LOST_ITS_WORKER = ("WorkerDied", "Hung")
"""Failures that may be the trial's own doing: it is tried again a few times."""
OUT_OF_MEMORY = ("OutOfMemoryError", "MemoryError", "HostMemory")
"""Failures for want of memory, of the device or of the machine."""


def state_after(
    trial: TrialRecord, state: TrialState, error: TrialError, can_be_smaller: bool
) -> TrialState:
    """What a trial that runs becomes when it fails: `INTERRUPTED` where it should go on.

    state: what the failure would make of it for good. can_be_smaller: after one more halving its
    micro-batch would still hold a record; running out of memory then costs no more than time.
    """
    if error.type in NOT_ITS_FAULT:
        return TrialState.INTERRUPTED
    if state is TrialState.OUT_OF_MEMORY:
        return TrialState.INTERRUPTED if can_be_smaller else state
    if error.type in LOST_ITS_WORKER and _in_a_row(trial, LOST_ITS_WORKER) < RETRIES:
        return TrialState.INTERRUPTED
    return state


def times_out_of_memory(trial: TrialRecord) -> int:
    """How often a trial was interrupted for want of memory: how often its micro-batch is halved."""
    return sum(failure.error.type in OUT_OF_MEMORY for failure in trial.failures)


def _in_a_row(trial: TrialRecord, types: tuple[str, ...]) -> int:
    """How often it failed so since its newest report."""
    count = 0
    for failure in reversed(trial.failures):
        if failure.step != trial.step or failure.error.type not in types:
            break
        count += 1
    return count
