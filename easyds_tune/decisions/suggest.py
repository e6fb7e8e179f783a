"""What to try next: a pure function of the sweep's seed, the trial's number and its record.

A fresh `Suggester` proposes what one that has lived through the sweep does, so that a journal is
enough to go on from. What a live one keeps is only what it has worked out already.
"""

from __future__ import annotations

from typing import Any

from easyds_tune.decisions.outcome import Outcome, trial_outcome
from easyds_tune.decisions.rules import bounds_of, objectives_of
from easyds_tune.decisions.samplers import (
    STATEFUL,
    GridSearch,
    History,
    ReplayedSearch,
    SequenceSearch,
    StatelessSearch,
)
from easyds_tune.decisions.space import open_space
from easyds_tune.decisions.told import quiet_optuna
from easyds_tune.journal.replay import SweepRecord, TrialRecord
from easyds_tune.spec.sweep import SweepSpec


class Suggester:
    """Proposes the configurations of a sweep.

    Raises:
        SpecError: the space's file cannot be loaded, or the sampler cannot search the space.
    """

    def __init__(self, spec: SweepSpec) -> None:
        quiet_optuna()
        self._bounds = bounds_of(spec)
        self._objectives = objectives_of(spec)
        self._outcomes: dict[int, tuple[tuple[object, ...], Outcome]] = {}
        self._search = self._make_search(spec)

    def suggest(self, number: int, record: SweepRecord) -> dict[str, Any] | None:
        """The configuration of trial `number`, by dotted path; None where a grid has no more.

        number: larger than that of every trial in the record.

        Raises:
            SpecError: the space's file raised, or broke a rule.
        """
        history = self._history(record)
        if isinstance(self._search, SequenceSearch):
            # A trial that a repair of the journal lost had used its point too.
            lost = number - len(record.trials)
            used = sum(trial.source == "sampler" for trial, _ in history)
            return self._search.suggest(number, used + lost)
        return self._search.suggest(number, history)

    def _make_search(
        self, spec: SweepSpec
    ) -> StatelessSearch | ReplayedSearch | SequenceSearch | GridSearch:
        space = open_space(spec)
        if spec.search.sampler == "grid":
            return GridSearch(spec, space)
        if spec.search.sampler == "qmc":
            return SequenceSearch(spec, space)
        if spec.search.sampler in STATEFUL:
            return ReplayedSearch(spec, space, self._objectives)
        return StatelessSearch(spec, space, self._objectives)

    def _history(self, record: SweepRecord) -> History:
        """The trials of the search, by number; the finals train some again, and teach nothing."""
        trials = [trial for trial in record.trials.values() if trial.source != "finals"]
        trials.sort(key=lambda trial: trial.number)
        return [(trial, self._outcome(trial)) for trial in trials]

    def _outcome(self, trial: TrialRecord) -> Outcome:
        """Worked out once for what it depends on."""
        last = trial.reports[-1] if trial.reports else None
        key = (trial.state, trial.attempt, len(trial.reports), last)
        known = self._outcomes.get(trial.number)
        if known is None or known[0] != key:
            known = key, trial_outcome(trial, self._objectives, self._bounds)
            self._outcomes[trial.number] = known
        return known[1]
