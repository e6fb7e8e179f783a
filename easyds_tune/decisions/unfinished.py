"""What a driver that died has left undone: a report without its decision, trials without an end."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from easyds_tune.decisions.decider import Verdict, decision_event
from easyds_tune.journal.events import Event, FinishEvent, TrialState
from easyds_tune.journal.replay import SweepRecord, TrialRecord


def unfinished_business(
    record: SweepRecord,
    on_report: Callable[[str, bool], Verdict],
    is_last: Callable[[TrialRecord], bool],
) -> Iterator[Event]:
    """The events that bring a record to where one stands that was interrupted in good order.

    Ask for the next only after the last was applied. on_report: of a decider that was made from
    this record, before anything was added to it. is_last: whether a trial has used its budget.

    The seconds that a trial ran were counted when the sweep was taken up.
    A report without its checkpoint is left as it is: the trial makes it again.
    """
    trial = record.trials.get(record.undecided or "")
    if trial is not None and trial.state is TrialState.RUNNING and trial.step in trial.checkpoints:
        verdict = on_report(trial.id, is_last(trial))
        event = decision_event(trial, verdict)
        if event is not None and event not in trial.decisions[-1:]:
            yield event
        if verdict.state is not None:
            yield FinishEvent(trial.id, verdict.state, trial.step, 0.0)
    for trial in record.trials.values():
        if trial.state is TrialState.RUNNING:
            is_done = trial.step in trial.checkpoints and is_last(trial)
            state = TrialState.COMPLETED if is_done else TrialState.INTERRUPTED
            yield FinishEvent(trial.id, state, trial.step, 0.0)
