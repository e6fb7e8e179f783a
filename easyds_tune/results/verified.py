"""Checkpoints that a sweep would hand over, verified on disk. Hashing only: no torch, no Ray."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path

from easyds_tune.errors import CheckpointError
from easyds_tune.journal.events import LostEvent
from easyds_tune.journal.replay import SweepRecord, TrialRecord
from easyds_tune.results.finals import find_best, settle
from easyds_tune.results.pareto import pareto_front
from easyds_tune.results.ranking import find_default, find_search_winner, rank, rivals_of
from easyds_tune.results.why import nearest_miss
from easyds_tune.trial.checkpoint import verify_checkpoint

Key = tuple[str, int]
"""A checkpoint: trial, step."""
RUNNERS_UP = 3
"""Runners-up that `best.json` names."""


def verified(record: SweepRecord, folder: Path) -> tuple[SweepRecord, list[LostEvent]]:
    """The record without contenders that are missing or damaged, and an event for each of these.

    Contenders are the finalists, else the search's best ones, and the front. Where one falls out,
    those that move up are verified too. The given record stays as it is.
    """
    whole: set[Key] = set()
    losses: list[LostEvent] = []
    while left := [key for key in dict.fromkeys(_contenders(record)) if key not in whole]:
        found = [loss for key in left if (loss := _loss(record, key, folder)) is not None]
        whole |= set(left)
        losses += found
        record = _without(record, found)
    return record, losses


def loss_notes(before: SweepRecord, after: SweepRecord, losses: list[LostEvent]) -> list[str]:
    """Which checkpoints do not verify and who takes their place, in words.

    before, after: the record with and without them.
    """
    old, new = find_best(before), find_best(after)
    notes = []
    for loss in losses:
        path = before.trials[loss.trial].checkpoints[loss.step]
        note = f"{path}: the checkpoint of trial {loss.trial} at step {loss.step} is {loss.problem}"
        if old is not None and (loss.trial, loss.step) == (old.trial.id, old.step):
            if new is None:
                note += "; no other checkpoint is fit to win"
            else:
                note += f"; trial {new.trial.id} at step {new.step} takes its place as the winner"
        notes.append(note)
    return notes


def problem_of(folder: Path, trial: TrialRecord, step: int) -> str | None:
    """What is wrong with a checkpoint that the journal names, after "is"; None where it verifies.

    One that was only simulated has no digest, and nothing on disk to verify.
    """
    digest = trial.digests[step]
    path = folder / trial.checkpoints[step]
    if not digest:
        return None
    if not path.is_dir():
        return "missing"
    # Without its trainer state a checkpoint has another manifest than the journal's.
    expected = None if step in trial.final_only else digest
    try:
        found = verify_checkpoint(path, digest=expected, trial=trial.id)
    except CheckpointError as error:
        return f"damaged ({str(error).removeprefix(f'{path}: ')})"
    return None if found.step == step else f"damaged (it is that of step {found.step})"


def _contenders(record: SweepRecord) -> Iterator[Key]:
    """The checkpoints that may be handed over or are named beside the winner."""
    settled = settle(record)
    if settled is not None:
        yield from ((finalist.trial.id, finalist.step) for finalist in settled.finalists)
    else:
        ranking = rank(record)
        winner = find_search_winner(record, ranking)
        named = [winner, find_default(ranking), nearest_miss(ranking)]
        named += rivals_of(ranking, winner)[:RUNNERS_UP]
        for ranked in named:
            if ranked is not None and ranked.step in ranked.trial.checkpoints:
                yield ranked.trial.id, ranked.step
    if len(record.objectives) > 1:
        yield from ((point.trial.id, point.step) for point in pareto_front(record))


def _loss(record: SweepRecord, key: Key, folder: Path) -> LostEvent | None:
    trial, step = record.trials[key[0]], key[1]
    problem = problem_of(folder, trial, step)
    return None if problem is None else LostEvent(trial.id, step, problem)


def _without(record: SweepRecord, losses: list[LostEvent]) -> SweepRecord:
    """A copy of the record in which these checkpoints are lost."""
    changed = copy.copy(record)
    changed.trials = dict(record.trials)
    for loss in losses:
        trial = copy.copy(changed.trials[loss.trial])
        for name in ("checkpoints", "sizes", "digests", "final_only", "lost"):
            setattr(trial, name, copy.copy(getattr(trial, name)))
        trial.lose(loss.step, loss.problem)
        changed.trials[loss.trial] = trial
    return changed
