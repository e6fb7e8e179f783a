"""When the search ends before all of its trials have run."""

from __future__ import annotations

import re

from easyds_tune.journal.events import TrialState
from easyds_tune.journal.replay import SweepRecord, TrialRecord
from easyds_tune.results.ranking import improves, rank_trial
from easyds_tune.spec.stop import StopSpec

TOKENS = "train/num_tokens"
"""Tokens a trial has trained on so far."""


class Limits:
    """The limits of a search. Keeps nothing but what it has worked out of trials that ended."""

    def __init__(self, stop: StopSpec, gpus: float, record: SweepRecord) -> None:
        """gpus: of a slot."""
        self._stop = stop
        self._gpus = gpus
        self._record = record
        self._values: dict[str, float | None] = {}

    def reason(self, ran: float) -> str | None:
        """Why the search ends, in words; None while it does not. ran: see `used_up`."""
        return self.used_up(ran) or self._failed_alike()

    def used_up(self, ran: float) -> str | None:
        """Which limit is met, in words; None while there is none.

        ran: seconds for which drivers have run the sweep by now.
        """
        stop, record = self._stop, self._record
        if stop.tokens is not None and (used := tokens_used(record)) >= stop.tokens:
            return f"{used} tokens were trained on, the limit is {stop.tokens}"
        if stop.hours is not None:
            hours = ran / 3600
            if hours >= stop.hours:
                return f"the sweep ran for {hours:.3g} hours, the limit is {stop.hours:g}"
        if stop.gpu_hours is not None:
            hours = max(self._gpus, 1.0) * seconds_used(record, ran) / 3600
            if hours >= stop.gpu_hours:
                return f"{hours:.3g} GPU hours were used, the limit is {stop.gpu_hours:g}"
        if stop.no_improvement is not None:
            count = self.trials_without_improvement()
            if count >= stop.no_improvement:
                return f"{count} trials in a row were no better than the best"
        return None

    def _failed_alike(self) -> str | None:
        """Whether the newest trials to end all failed of one cause, as the next would too."""
        count = self._stop.identical_failures
        if not count:
            return None
        since = self._record.resumed_seq  # the cause may have been removed before
        ended = [trial for trial in self._ended() if (trial.ended_seq or 0) > since][-count:]
        if len(ended) < count or len({_cause(trial) for trial in ended}) > 1:
            return None
        error = ended[-1].error
        if error is None or ended[-1].state is not TrialState.FAILED:
            return None
        return f"{count} trials in a row failed alike: {error.type}: {error.message}"

    def _ended(self) -> list[TrialRecord]:
        """The trials of the search that are over, in the order they ended in."""
        ended = [
            trial
            for trial in self._record.trials.values()
            if trial.state.is_final and trial.source != "finals"
        ]
        return sorted(ended, key=lambda trial: trial.ended_seq or 0)

    def trials_without_improvement(self) -> int:
        """Trials that ended since the best feasible value last moved, by the order they ended in.

        One that waits at a rung has not had its chance yet, and does not count.
        """
        objective = self._record.objective
        best: float | None = None
        count = 0
        for trial in self._ended():
            value = self._value(trial)
            if value is not None and (best is None or improves(value, best, objective)):
                best, count = value, 0
            else:
                count += 1
        return count

    def _value(self, trial: TrialRecord) -> float | None:
        """The best feasible value of a trial that ended, which nothing changes any more."""
        if trial.id not in self._values:
            ranked = rank_trial(trial, self._record.objective, self._record.bounds)
            self._values[trial.id] = ranked.value if ranked.is_fit else None
        return self._values[trial.id]


def _cause(trial: TrialRecord) -> tuple[str, str] | None:
    """Why a trial failed, without numbers: names of trials, processes, seconds."""
    if trial.error is None:
        return None
    return trial.error.type, re.sub(r"\d", "", trial.error.message)


def tokens_used(record: SweepRecord) -> int:
    """Tokens that all trials of the search have trained on."""
    return int(
        sum(
            trial.reports[-1].get(TOKENS, 0.0)
            for trial in record.trials.values()
            if trial.reports and trial.source != "finals"
        )
    )


def seconds_used(record: SweepRecord, ran: float) -> float:
    """Seconds that slots were busy, running trials included; `ran` as for the limits."""
    total = 0.0
    for trial in record.trials.values():
        total += trial.seconds
        if trial.state is TrialState.RUNNING and trial.resumed is not None:
            total += max(0.0, ran - trial.resumed_ran)
    return total
