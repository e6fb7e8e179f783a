"""The faults a sweep must survive: what must happen, and who provokes each of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tests.benchmarks.faults import (
    damage,
    determinism,
    disk,
    drivers,
    memory,
    names,
    signals,
    values,
    workers,
)
from tests.benchmarks.faults.place import Outcome, Place

Script = Callable[[Place, int], Outcome]
"""(a folder of its own, a seed) -> what was seen. Raises Unseen where it did not get that far."""


@dataclass(frozen=True)
class Row:
    """One fault. seeds: how often it is provoked, each time at another moment or in another way."""

    number: int
    fault: str
    expected: str
    ours: Script
    ray: Script
    seeds: int = 1


ROWS = (
    Row(
        1, "SIGKILL of the driver mid-sweep, resume",
        "the same decisions as an uninterrupted run; with more slots the recorded order replays",
        drivers.killed_and_resumed, drivers.killed_and_restored_by_ray, 3,
    ),
    Row(
        2, "the same with trials of under a second",
        "each configuration completes once, no orphan folders",
        drivers.short_trials, drivers.short_trials_by_ray, 3,
    ),
    Row(
        3, "kill between a report and its persistence",
        "nothing told twice, nothing lost",
        drivers.between_report_and_journal, drivers.between_report_and_state_by_ray, 3,
    ),
    Row(
        4, "newest durable record cut or garbled",
        "repaired to the last whole event, said aloud",
        damage.damaged_record, damage.damaged_record_by_ray,
    ),
    Row(
        5, "newest derived table cut",
        "rebuilt",
        damage.truncated_table, damage.truncated_table_by_ray,
    ),
    Row(
        6, "every derived file deleted",
        "rebuilt from the journal",
        damage.derived_files_deleted, damage.derived_files_deleted_by_ray,
    ),
    Row(
        7, "SIGINT",
        "exit 130, INTERRUPTED, resumable",
        signals.interrupted, signals.interrupted_ray,
    ),
    Row(
        8, "SIGTERM",
        "flush, checkpoint, exit 143",
        signals.terminated, signals.terminated_ray,
    ),
    Row(
        9, "a worker kills itself with SIGKILL",
        "retried from its checkpoint",
        workers.killed_worker, workers.killed_ray_worker, 3,
    ),
    Row(
        10, "newest checkpoint cut, worker killed",
        "falls back to the one before",
        workers.damaged_checkpoint, workers.damaged_ray_checkpoint, 3,
    ),
    Row(
        11, "host memory threshold just above the base line",
        "only the greedy trial fails",
        memory.greedy_trial, memory.greedy_ray_trial,
    ),
    Row(
        12, "torch.OutOfMemoryError in a step",
        "smaller micro-batch, same effective batch, goes on; else OUT_OF_MEMORY, infeasible",
        memory.device_out_of_memory, memory.device_out_of_memory_in_ray,
    ),
    Row(
        13, "NaN reward or loss",
        "DIVERGED at once, the searcher told",
        values.not_a_number, values.not_a_number_in_ray,
    ),
    Row(
        14, "KL NaN or missing",
        "a broken bound, never feasible",
        values.no_kl, values.no_kl_in_ray,
    ),
    Row(
        15, "ENOSPC on a 3 MB file system",
        "pauses with a clear error; finished results readable",
        disk.full_disk, disk.full_disk_in_ray,
    ),
    Row(
        16, "two sweeps, one name",
        "the second refused",
        names.two_sweeps_of_one_name, names.two_ray_sweeps_of_one_name,
    ),
    Row(
        17, "orphans after SIGKILL",
        "gone before a relaunch takes their slot",
        drivers.orphans_gone, drivers.orphans_by_ray, 3,
    ),
    Row(
        18, "a trial hangs (sleep, SIGSTOP)",
        "a watchdog kills it, and it is retried",
        workers.hanging_trial, workers.hanging_ray_trial, 3,
    ),
    Row(
        19, "the same seed twice",
        "identical suggestions with one slot; with more, the recorded order replays",
        determinism.same_seed_twice, determinism.same_seed_twice_in_ray,
    ),
    Row(
        20, "a name ../x, absolute, empty, very long",
        "refused, exit 2",
        names.names_that_lead_elsewhere, names.ray_names_that_lead_elsewhere,
    ),
    Row(
        21, "a malicious pickle in the folder",
        "never unpickled",
        damage.malicious_pickle, damage.malicious_pickle_by_ray,
    ),
    Row(
        22, "a torn last line, then an append",
        "repaired",
        damage.torn_then_appended, damage.torn_then_appended_by_ray,
    ),
)  # fmt: skip
