"""The finals on Ray: one worker a slot, each judging one finalist's checkpoint at a time."""

from __future__ import annotations

import os
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import RayError

from easyds_tune import progress
from easyds_tune.decisions.retries import times_out_of_memory
from easyds_tune.errors import EasyDSError
from easyds_tune.journal.events import FinalistEvent, NoteEvent
from easyds_tune.journal.replay import SweepRecord
from easyds_tune.spec.micro_batch import smaller_micro_batch
from easyds_tune.spec.resources import slot_count
from easyds_tune.spec.sweep import trial_spec
from easyds_tune.sweep.actor import SweepSetting, open_workbench_of, watched_while_loading

FINALS_RECORDS = ("finals_prompts", "finals_held_out")
"""Names under which the records of the finals have their hashes."""
SECONDS_BETWEEN_TICKS = 0.5
ATTEMPTS = 3
"""So many workers may a finalist lose before it is left out."""


class FinalsJudge:
    """A Ray actor that keeps a workbench and judges checkpoints on it, one after another."""

    def __init__(self, setting: SweepSetting) -> None:
        self._setting = setting
        self._name = f".finals-{os.getpid()}"  # to the supervisor, each judge is a trial
        with watched_while_loading(setting, self._name):
            self._bench = open_workbench_of(setting)

    def judge(
        self, trial: str, params: dict[str, Any], checkpoint: str, halvings: int = 0
    ) -> tuple[dict[str, list[float]], dict[str, list[float]]]:
        """(values, weights) of a checkpoint, which is given relative to the sweep's folder."""
        from easyds_tune.trial.rejudge import rejudge

        setting = self._setting
        whole = trial_spec(setting.spec, trial, params, setting.train_records)
        spec = smaller_micro_batch(whole, halvings) or whole  # as it was judged while it trained
        progress.works_on(self._name)
        try:
            measured = rejudge(self._bench, spec, Path(setting.folder) / checkpoint)
        finally:
            progress.works_on(None)
        return measured.values, measured.weights


def run_finals(
    setting: SweepSetting,
    record: SweepRecord,
    finalists: Sequence[tuple[str, int]],
    tick: Callable[[], object] = lambda: None,
) -> Iterator[FinalistEvent | NoteEvent]:
    """Judge finalists, given as (trial, step), on the sweep's slots; an event for each, as it ends.

    One that cannot be judged is a note, and the others go on. Those that the record has already,
    and all where no records were kept for the finals, are left out. Needs a Ray with the sweep's
    slots, none of them taken. tick: called twice a second; what it raises ends the finals.
    """
    judged = {(event.trial, event.step) for event in record.finalists}
    waiting = deque(finalist for finalist in dict.fromkeys(finalists) if finalist not in judged)
    if not any(name in setting.hashes for name in FINALS_RECORDS):
        return
    resources = setting.spec.resources
    actor: Any = ray.remote(num_cpus=resources.cpus_per_trial, num_gpus=setting.gpus)(FinalsJudge)
    for finalist in list(waiting):
        if finalist[1] not in record.trials[finalist[0]].checkpoints:
            waiting.remove(finalist)
            yield NoteEvent(
                f"finals: trial {finalist[0]} at step {finalist[1]} could not be judged: "
                "its checkpoint is no longer there"
            )
    free: list[Any] = [
        actor.remote(setting) for _ in range(min(slot_count(resources), len(waiting)))
    ]
    running: dict[Any, tuple[Any, str, int, str]] = {}
    lost: Counter[tuple[str, int]] = Counter()
    try:
        while waiting or running:
            while waiting and free:
                trial, step = waiting.popleft()
                worker, checkpoint = free.pop(), record.trials[trial].checkpoints[step]
                params = record.trials[trial].params
                halvings = times_out_of_memory(record.trials[trial])
                task = worker.judge.remote(trial, params, checkpoint, halvings)
                running[task] = (worker, trial, step, checkpoint)
            done, _ = ray.wait(list(running), timeout=SECONDS_BETWEEN_TICKS)
            tick()
            for task in done:
                worker, trial, step, checkpoint = running.pop(task)
                try:
                    values, weights = ray.get(task)
                except Exception as error:
                    # Whatever is wrong with one checkpoint, the others deserve their finals.
                    is_sound = _is_sound(error)
                    if not is_sound:
                        ray.kill(worker)
                        lost[trial, step] += 1
                        if lost[trial, step] < ATTEMPTS:
                            waiting.append((trial, step))
                        worker = actor.remote(setting) if waiting else None
                    if is_sound or lost[trial, step] == ATTEMPTS:
                        yield NoteEvent(
                            f"finals: trial {trial} at step {step} could not be judged: "
                            f"{_why(error)}"
                        )
                else:
                    yield FinalistEvent(trial, step, checkpoint, values, weights)
                if worker is not None:
                    free.append(worker)
    finally:
        for worker in [*free, *(worker for worker, *_ in running.values())]:
            ray.kill(worker)


def _is_sound(error: Exception) -> bool:
    """Whether the worker can go on: it refused a checkpoint, and nothing broke."""
    return isinstance(getattr(error, "cause", error), EasyDSError)


def _why(error: Exception) -> str:
    """What happened, in a line."""
    cause = getattr(error, "cause", error)
    if isinstance(cause, EasyDSError):
        return str(cause).replace("\n", "; ")
    if isinstance(error, RayError) and cause is error:
        return "its worker died, perhaps for want of memory"
    first = (str(cause).strip().splitlines() or [""])[0]
    return f"{type(cause).__name__}: {first}"
