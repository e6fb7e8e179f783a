"""Verify the checkpoints that a sweep hands over, on disk. Hashing only: no torch, no Ray."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from easyds_tune.errors import CheckpointError
from easyds_tune.journal.events import LostEvent, RestoreEvent
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
_whole: dict[tuple[Path, str | None, str, int], tuple[int, int]] = {}
"""What verified in this process: path, digest, trial and step -> the state of its files then."""


def verified(record: SweepRecord, folder: Path) -> tuple[SweepRecord, list[LostEvent]]:
    """The record without contenders that are missing or damaged, and an event for each of these.

    Contenders are the checkpoints that `best.json` names: of the finalists, else of the search's
    best ones, and the front. Where one is lost, those that move up are verified too. The given
    record stays as it is.
    """
    whole: set[Key] = set()
    losses: list[LostEvent] = []
    while left := [key for key in dict.fromkeys(_contenders(record)) if key not in whole]:
        found = [loss for key in left if (loss := _loss(record, key, folder)) is not None]
        whole |= set(left)
        losses += found
        record = with_events(record, found)
    return record, losses


def verified_while_running(
    load: Callable[[], SweepRecord], folder: Path
) -> tuple[SweepRecord, SweepRecord, list[LostEvent]]:
    """As `verified`, of a sweep whose driver may delete checkpoints meanwhile.

    The driver writes to the journal before it deletes. So a loss counts only if the journal, read
    again after it was seen, still names the checkpoint as before.

    Args:
        load: reads the record from the journal.

    Returns:
        The record as loaded, the one without its losses, and the losses.
    """
    before = load()
    while True:
        after, losses = verified(before, folder)
        now = load() if losses else before
        if all(_named(now, loss) == _named(before, loss) for loss in losses):
            return before, after, losses
        before = now


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
    key = (path.resolve(), expected, trial.id, step)
    state = _state_of_files(path)
    if state is not None and _whole.get(key) == state:
        return None
    try:
        found = verify_checkpoint(path, digest=expected, trial=trial.id)
    except CheckpointError as error:
        return f"damaged ({str(error).removeprefix(f'{path}: ')})"
    if found.step != step:
        return f"damaged (it is that of step {found.step})"
    if state is not None:
        _whole[key] = state
    return None


def _state_of_files(path: Path) -> tuple[int, int] | None:
    """The newest change (ns) and the bytes of a folder's files; None where one is unreadable.

    ctime, unlike mtime, cannot be set back, and a rename changes it too.
    """
    try:
        stats = [entry.stat() for entry in (path, *path.rglob("*"))]
    except OSError:
        return None
    return max(stat.st_ctime_ns for stat in stats), sum(stat.st_size for stat in stats)


def _contenders(record: SweepRecord) -> Iterator[Key]:
    """The checkpoints that may be handed over or are named beside the winner."""
    settled = settle(record)
    if settled is not None:
        finalists = [settled.winner, settled.default, settled.runner_up, settled.nearest_miss]
        finalists += settled.rivals[:RUNNERS_UP]
        for finalist in finalists:
            if finalist is not None and finalist.step in finalist.trial.checkpoints:
                yield finalist.trial.id, finalist.step
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


def _named(record: SweepRecord, loss: LostEvent) -> tuple[str | None, bool]:
    """The digest that the journal has of a checkpoint, and whether its trainer state is deleted."""
    trial = record.trials[loss.trial]
    return trial.digests.get(loss.step), loss.step in trial.final_only


def with_events(record: SweepRecord, events: Iterable[LostEvent | RestoreEvent]) -> SweepRecord:
    """A copy of the record with these events; the given record stays as it is."""
    changed = copy.copy(record)
    changed.trials = dict(record.trials)
    for event in events:
        trial = copy.copy(changed.trials[event.trial])
        for name in ("checkpoints", "sizes", "digests", "final_only", "lost", "collected"):
            setattr(trial, name, copy.copy(getattr(trial, name)))
        if isinstance(event, LostEvent):
            trial.lose(event.step, event.problem)
        else:
            trial.restore(event)
        changed.trials[event.trial] = trial
    return changed
