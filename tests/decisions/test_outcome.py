"""What a trial has shown, and what each sampler is told of it."""

from __future__ import annotations

import math
from typing import Any

import pytest
from optuna.trial import TrialState as OptunaState

from easyds_tune.decisions.outcome import Outcome, trial_outcome
from easyds_tune.decisions.rules import bounds_of, objectives_of
from easyds_tune.decisions.samplers import StatelessSearch
from easyds_tune.decisions.space import open_space
from easyds_tune.decisions.told import RAN, Told, tell, worst_values
from easyds_tune.journal.events import TrialState
from easyds_tune.spec.sweep import SweepSpec
from tests.decisions.histories import BETA, KL_BOUND, SEVERAL, History, a_spec

LOW, HIGH = "eval/kl>=0.05", "eval/kl<=0.2"


def outcome_of(
    spec: SweepSpec, reports: list[tuple[float, float]], state: TrialState = TrialState.COMPLETED
) -> Outcome:
    """What a trial has shown that reported (reward, KL) at steps 1, 2, ..."""
    history = History(spec)
    number = history.suggest(spec.default_params())
    for step, (reward, kl) in enumerate(reports, 1):
        history.report(number, step, reward, kl)
    if state != TrialState.RUNNING:
        history.finish(number, state)
    return trial_outcome(history.record.trials["000"], objectives_of(spec), bounds_of(spec))


def test_the_best_report_counts() -> None:
    outcome = outcome_of(a_spec(), [(1.0, 0.1), (3.0, 0.1), (2.0, 0.1)])
    assert (outcome.values, outcome.step, outcome.last_value) == ((3.0,), 2, 2.0)
    assert outcome.step_values == {1: 1.0, 2: 3.0, 3: 2.0}
    assert outcome.is_feasible
    assert outcome.margins == {}


def test_a_loss_counts_with_its_lowest() -> None:
    spec = a_spec(objective={"metric": "eval/kl", "mode": "min"})
    assert outcome_of(spec, [(0, 0.3), (0, 0.2), (0, 0.4)]).values == (0.2,)


def test_the_best_report_inside_the_bounds_counts_though_a_better_one_lies_outside() -> None:
    outcome = outcome_of(a_spec(bounds=KL_BOUND), [(1.0, 0.1), (2.0, 0.15), (9.0, 0.5)])
    assert (outcome.values, outcome.step) == ((2.0,), 2)
    assert outcome.margins == pytest.approx({LOW: -2 / 3, HIGH: -1 / 3})
    assert outcome.step_values == {1: 1.0, 2: 2.0}  # what lies outside is no score


def test_the_nearest_miss_counts_where_nothing_lies_inside() -> None:
    outcome = outcome_of(a_spec(bounds=KL_BOUND), [(9.0, 0.5), (1.0, 0.23)])
    assert (outcome.values, outcome.step, outcome.is_feasible) == ((1.0,), 2, False)
    assert outcome.margins == pytest.approx({LOW: -1.2, HIGH: 0.2})
    assert outcome.step_values == {1: 9.0, 2: 1.0}


def test_a_trial_that_broke_a_bound_counts_with_what_it_was_before() -> None:
    spec = a_spec(bounds=KL_BOUND)
    before = outcome_of(spec, [(1.0, 0.1), (9.0, 0.5)], TrialState.BOUNDED)
    assert (before.values, before.is_feasible) == ((1.0,), True)
    never = outcome_of(spec, [(1.0, 0.3), (9.0, 0.5)], TrialState.BOUNDED)
    assert (never.values, never.is_feasible) == ((1.0,), False)


def test_a_trial_that_failed_counts_with_its_last_report() -> None:
    spec = a_spec(bounds=KL_BOUND)
    outcome = outcome_of(spec, [(1.0, 0.1), (9.0, 0.5)], TrialState.DIVERGED)
    assert outcome.violation == pytest.approx(2.0)


@pytest.mark.parametrize("kl", [math.nan, math.inf])
def test_what_is_not_finite_is_far_outside_and_never_a_number(kl: float) -> None:
    outcome = outcome_of(a_spec(bounds=KL_BOUND), [(math.nan, 0.1), (1.0, kl)])
    assert outcome.values == (1.0,)
    assert all(math.isfinite(margin) for margin in outcome.margins.values())
    assert outcome.violation >= 10
    nothing = outcome_of(a_spec(bounds=KL_BOUND), [(math.nan, kl)])
    assert (nothing.values, nothing.step_values, nothing.is_feasible) == ((), {}, False)


def test_several_objectives_count_with_the_last_report_inside() -> None:
    spec = a_spec(objective=SEVERAL, scheduler={"type": "none"})
    assert outcome_of(spec, [(3.0, 0.1), (2.0, 0.3)]).values == (2.0, 0.3)
    bounded = a_spec(objective=SEVERAL, scheduler={"type": "none"}, bounds=KL_BOUND)
    assert outcome_of(bounded, [(3.0, 0.1), (2.0, 0.3)]).values == (3.0, 0.1)


def told(sampler: str, state: TrialState, outcome: Outcome) -> Told:
    return tell(sampler, state, outcome, (-7.0,), constrained=True)


PRUNED_AT_3 = Outcome((2.0,), 2, {1: 1.0, 2: 2.0, 3: 1.5}, {HIGH: -0.5})
OUTSIDE = Outcome((9.0,), 3, {3: 9.0}, {HIGH: 0.5})
NOTHING = Outcome((), 0, {}, {HIGH: 10.0})
COMPLETE, PRUNED = OptunaState.COMPLETE, OptunaState.PRUNED


@pytest.mark.parametrize(
    ("sampler", "state", "outcome", "wanted"),
    [
        ("tpe", TrialState.COMPLETED, PRUNED_AT_3, (COMPLETE, (2.0,))),
        ("gp", TrialState.COMPLETED, PRUNED_AT_3, (COMPLETE, (2.0,))),
        ("cmaes", TrialState.COMPLETED, PRUNED_AT_3, (COMPLETE, (2.0,))),
        ("cmaes", TrialState.COMPLETED, OUTSIDE, (PRUNED, None)),
        ("tpe", TrialState.COMPLETED, NOTHING, (PRUNED, None)),
        ("tpe", TrialState.PRUNED, PRUNED_AT_3, (PRUNED, None)),
        ("tpe", TrialState.PAUSED, PRUNED_AT_3, (PRUNED, None)),
        ("gp", TrialState.PAUSED, PRUNED_AT_3, (COMPLETE, (1.5,))),
        ("nsga2", TrialState.PRUNED, PRUNED_AT_3, (COMPLETE, (1.5,))),
        ("cmaes", TrialState.PRUNED, PRUNED_AT_3, (PRUNED, None)),
        ("tpe", TrialState.BOUNDED, OUTSIDE, (COMPLETE, (9.0,))),
        ("tpe", TrialState.BOUNDED, PRUNED_AT_3, (COMPLETE, (2.0,))),
        ("gp", TrialState.BOUNDED, PRUNED_AT_3, (COMPLETE, (2.0,))),
        ("cmaes", TrialState.BOUNDED, OUTSIDE, (PRUNED, None)),
        ("tpe", TrialState.DIVERGED, PRUNED_AT_3, (PRUNED, None)),
        ("gp", TrialState.DIVERGED, PRUNED_AT_3, (COMPLETE, (-7.0,))),
        ("nsga2", TrialState.OUT_OF_MEMORY, NOTHING, (COMPLETE, (-7.0,))),
        ("cmaes", TrialState.OUT_OF_MEMORY, NOTHING, (PRUNED, None)),
        ("tpe", TrialState.FAILED, PRUNED_AT_3, (OptunaState.FAIL, None)),
        ("gp", TrialState.RUNNING, PRUNED_AT_3, (OptunaState.RUNNING, None)),
        ("tpe", TrialState.INTERRUPTED, PRUNED_AT_3, (OptunaState.RUNNING, None)),
    ],
)
def test_each_sampler_is_told_in_the_words_it_understands(
    sampler: str, state: TrialState, outcome: Outcome, wanted: tuple[OptunaState, Any]
) -> None:
    found = told(sampler, state, outcome)
    assert (found.state, found.values) == wanted
    if found.state == PRUNED:
        assert found.step_values == outcome.step_values


def test_all_finished_trials_carry_all_constraints_and_failed_ones_break_one() -> None:
    for sampler in ("tpe", "gp", "nsga2"):
        keys = [
            set(told(sampler, state, outcome).constraints)
            for state in TrialState
            if state not in (TrialState.RUNNING, TrialState.INTERRUPTED, TrialState.FAILED)
            for outcome in (PRUNED_AT_3, OUTSIDE, NOTHING)
        ]
        assert all(found == {HIGH, RAN} for found in keys)
        for state in (TrialState.DIVERGED, TrialState.OUT_OF_MEMORY):
            assert told(sampler, state, PRUNED_AT_3).constraints[RAN] > 0
        for state in (TrialState.COMPLETED, TrialState.PAUSED, TrialState.BOUNDED):
            assert told(sampler, state, PRUNED_AT_3).constraints[RAN] <= 0
    assert told("cmaes", TrialState.DIVERGED, NOTHING).constraints == {}


def test_the_worst_value_is_that_of_the_objectives_own_direction() -> None:
    spec = a_spec(objective=SEVERAL, scheduler={"type": "none"})
    outcomes = [Outcome((1.0, 0.1)), Outcome(()), Outcome((3.0, 0.4))]
    assert worst_values(outcomes, objectives_of(spec)) == (1.0, 0.4)
    assert worst_values([], objectives_of(spec)) == (0.0, 0.0)


def test_tpe_is_shown_the_whole_record() -> None:
    """With bounds: number, state, values by step and constraints of every kind of trial."""
    spec = a_spec({BETA: {"low": 0.0, "high": 1.0}}, bounds=KL_BOUND)
    history = History(spec)
    for state in TrialState:
        history.add({BETA: 0.1}, 1.0, state=state, step=9)
    history.add({BETA: 2.0}, 1.0)  # outside the space
    search = StatelessSearch(spec, open_space(spec), objectives_of(spec))
    trials = [
        (trial, trial_outcome(trial, objectives_of(spec), bounds_of(spec)))
        for trial in history.record.trials.values()
    ]
    shown = search.show(trials)
    assert [trial.number for trial in shown] == list(range(1, len(TrialState) + 1))
    by_state = dict(zip(TrialState, shown, strict=True))
    paused = by_state[TrialState.PAUSED]
    assert (paused.state, paused.last_step, paused.intermediate_values) == (PRUNED, 9, {9: 1.0})
    assert paused.constraints == pytest.approx({LOW: -1 / 3, HIGH: -2 / 3, RAN: -1.0})
    assert by_state[TrialState.RUNNING].constraints == {}
    again = search.show(trials)
    assert all(one is other for one, other in zip(shown, again, strict=True))


def test_a_bound_from_a_later_step_is_told_as_kept_until_the_trial_is_there() -> None:
    """A lower bound on the KL means "not learning", which nobody can say of a young trial."""
    spec = a_spec(bounds={"eval/kl": [{"min": 0.05, "from_step": 3}, {"max": 0.2}]})
    young = outcome_of(spec, [(2.0, 0.02), (1.0, 0.02)], TrialState.PAUSED)
    assert young.is_feasible
    assert young.values == (2.0,)
    assert young.margins == pytest.approx({LOW: -1.0, HIGH: -0.9})
    grown = outcome_of(spec, [(2.0, 0.02), (1.0, 0.02), (1.0, 0.04)])
    assert not grown.is_feasible
    assert grown.margins == pytest.approx({LOW: 0.2, HIGH: -0.8})
