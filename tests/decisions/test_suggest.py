"""Suggestions are a pure function of seed, number and record, whatever the sampler."""

from __future__ import annotations

import math
import statistics
from typing import Any

import pytest

from easyds_tune.decisions.suggest import Suggester
from easyds_tune.journal.events import TrialState
from tests.benchmarks.decisions.suggestion_cost import measure
from tests.decisions.histories import (
    BETA,
    CONDITIONAL,
    KL_BOUND,
    LEARNING_RATE,
    LOSS,
    PLAIN,
    RANK,
    SEVERAL,
    SMOOTHING,
    SPACE,
    History,
    a_spec,
    live_through,
)

SAMPLERS = ["tpe", "gp", "random", "cmaes", "nsga2", "qmc"]


@pytest.mark.parametrize("bounds", [{}, KL_BOUND], ids=["free", "bounded"])
@pytest.mark.parametrize("space", [SPACE, CONDITIONAL], ids=["flat", "conditional"])
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_fresh_suggester_proposes_what_one_that_lived_through_the_sweep_does(
    sampler: str, space: dict[str, Any], bounds: dict[str, Any]
) -> None:
    num_trials = 9 if sampler == "gp" else 30
    spec = a_spec(space, sampler=sampler, num_trials=num_trials, bounds=bounds)
    history, proposed = live_through(spec, seed=3)
    assert len({trial.state for trial in history.record.trials.values()}) >= 5
    assert live_through(spec, seed=3, forgetful=True)[1] == proposed


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_another_seed_is_another_sweep(sampler: str) -> None:
    spec = a_spec(SPACE, sampler=sampler, num_trials=8, bounds=KL_BOUND)
    other = spec.model_copy(update={"seed": 1})
    assert live_through(other, seed=1)[1] != live_through(spec, seed=1)[1]


@pytest.mark.parametrize("sampler", ["cmaes", "nsga2"])
def test_a_question_that_was_asked_already_gets_the_same_answer(sampler: str) -> None:
    spec = a_spec(SPACE, sampler=sampler, num_trials=20)
    history, _ = live_through(spec)
    suggester = Suggester(spec)
    first = suggester.suggest(20, history.record)
    assert suggester.suggest(20, history.record) == first
    history.add(spec.default_params(), 5.0)  # the record went another way than was proposed
    suggester.suggest(21, history.record)
    assert suggester.suggest(22, history.record) == Suggester(spec).suggest(22, history.record)


@pytest.mark.parametrize("clock", ["stands still", "runs back"])
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_no_clock_changes_what_is_proposed(sampler: str, clock: str) -> None:
    spec = a_spec(SPACE, sampler=sampler, num_trials=7 if sampler == "gp" else 24)
    _, proposed = live_through(spec, seed=2)
    tick = 0.0 if clock == "stands still" else -1.0
    assert live_through(spec, seed=2, tick=tick, forgetful=True)[1] == proposed


@pytest.mark.parametrize("sampler", [*SAMPLERS, "grid"])
def test_a_record_that_lost_trials_still_gets_suggestions(sampler: str) -> None:
    """A repaired journal has holes in its numbers; what is left is what counts."""
    space = {**SPACE, LEARNING_RATE: [1e-5, 1e-4, 1e-3], BETA: [0.1, 0.2]}
    spec = a_spec(space, sampler=sampler, num_trials=20)
    history, _ = live_through(spec)
    for number in (0, 3, 4, 11):
        del history.record.trials[f"{number:03d}"]
    number = history.record.next_number
    assert number == 20
    suggester = Suggester(spec)
    first = suggester.suggest(number, history.record)
    assert first is not None
    assert first == Suggester(spec).suggest(number, history.record)
    history.add(first, 1.0)
    second = suggester.suggest(number + 1, history.record)
    assert second == Suggester(spec).suggest(number + 1, history.record)


def test_qmc_tries_no_point_again_that_a_lost_trial_had() -> None:
    spec = a_spec(PLAIN, sampler="qmc", num_trials=12)
    history, proposed = live_through(spec)
    for number in (3, 4):
        del history.record.trials[f"{number:03d}"]
    suggester = Suggester(spec)
    fresh = suggester.suggest(history.record.next_number, history.record)
    assert fresh not in proposed
    whole, _ = live_through(spec)
    assert fresh == suggester.suggest(12, whole.record)


@pytest.mark.parametrize("sampler", ["cmaes", "nsga2"])
def test_the_stateful_ones_learn(sampler: str) -> None:
    spec = a_spec(PLAIN, sampler=sampler, num_trials=60, startup_trials=1, seed=1)
    history, suggester = History(spec), Suggester(spec)
    for number in range(60):
        params = suggester.suggest(number, history.record)
        assert params is not None
        history.add(params, -abs(math.log10(params[LEARNING_RATE]) + 4.5) - params[BETA])
    late = [history.record.trials[f"{n:03d}"].params for n in range(40, 60)]
    near = [p for p in late if abs(math.log10(p[LEARNING_RATE]) + 4.5) < 0.5 and p[BETA] < 0.5]
    assert len(near) > 8  # a quarter of the space, so five by chance


def test_tpe_keeps_to_what_was_good() -> None:
    spec = a_spec(SPACE, num_trials=40)
    history, suggester = History(spec), Suggester(spec)
    for number in range(40):
        params = suggester.suggest(number, history.record)
        assert params is not None
        history.add(params, -abs(math.log10(params[LEARNING_RATE]) + 4))
    late = [history.record.trials[f"{n:03d}"].params[LEARNING_RATE] for n in range(20, 40)]
    assert sum(abs(math.log10(rate) + 4) < 0.5 for rate in late) >= 15


@pytest.mark.parametrize("sampler", [*SAMPLERS, "grid"])
def test_suggestions_lie_in_the_space_keep_their_types_and_their_order(sampler: str) -> None:
    space = {**SPACE, BETA: {"low": 0.05, "high": 0.52, "step": 0.05}}
    if sampler == "grid":
        del space[LEARNING_RATE]
    spec = a_spec(space, sampler=sampler, num_trials=7 if sampler == "gp" else 12)
    for params in live_through(spec)[1]:
        assert list(params) == list(space)
        assert 1e-5 <= params.get(LEARNING_RATE, 1e-5) <= 1e-3
        assert 0.05 <= params[BETA] <= 0.5 + 1e-9
        assert params[BETA] * 20 == pytest.approx(round(params[BETA] * 20))
        assert params[RANK] in (4, 8, 16)
        assert type(params["training.gradient_accumulation_steps"]) is int


@pytest.mark.parametrize("sampler", [*SAMPLERS, "grid"])
def test_a_field_is_proposed_where_its_condition_holds_and_nowhere_else(sampler: str) -> None:
    space = dict(CONDITIONAL)
    if sampler == "grid":
        # Its one sigmoid is the default, which trial 0 tried.
        space = {SMOOTHING: {**space[SMOOTHING], "low": 0.1, "step": 0.1}, LOSS: space[LOSS]}
    spec = a_spec(space, sampler=sampler, num_trials=8 if sampler == "gp" else 16)
    proposed = [params for params in live_through(spec)[1] if params is not None]
    found = {params[LOSS] for params in proposed}
    assert found == ({"exo_pair"} if sampler == "grid" else {"sigmoid", "exo_pair"})
    for params in proposed:
        assert (SMOOTHING in params) == (params[LOSS] == "exo_pair")


def test_a_grid_gives_each_combination_once_and_then_none() -> None:
    space = {
        RANK: [4, 8],
        LOSS: ["sigmoid", "exo_pair"],
        SMOOTHING: {"low": 0.1, "high": 0.3, "step": 0.1, "when": {LOSS: "exo_pair"}},
    }
    spec = a_spec(space, sampler="grid", num_trials=40)
    proposed = live_through(spec)[1]
    # 2 ranks x (sigmoid, or exo_pair with three smoothings), less the default: rank 8, sigmoid
    found = [tuple(params.values()) for params in proposed if params is not None]
    assert len(found) == len(set(found)) == 2 * 4 - 1
    assert (8, "sigmoid") not in found
    assert proposed[-1] is None
    assert {smoothing for _, _, *rest in found for smoothing in rest} == {0.1, 0.2, 0.3}


def test_qmc_spreads_over_the_space() -> None:
    spec = a_spec(PLAIN, sampler="qmc", num_trials=17)
    proposed = live_through(spec)[1]
    quarters = {(p[LEARNING_RATE] > 1e-4, p[BETA] > 0.5) for p in proposed[:4]}
    assert len(quarters) == 4
    sixteenths = {(int((math.log10(p[LEARNING_RATE]) + 5) * 2), int(p[BETA] * 4)) for p in proposed}
    assert len(sixteenths) == 16


@pytest.mark.parametrize("sampler", ["tpe", "gp", "nsga2", "random", "qmc"])
def test_several_objectives(sampler: str) -> None:
    spec = a_spec(SPACE, sampler=sampler, num_trials=8, objective=SEVERAL,
                  scheduler={"type": "none"}, bounds={"eval/length": {"max": 5}})  # fmt: skip
    history, _ = live_through(spec)
    suggester = Suggester(spec)
    assert suggester.suggest(8, history.record) == Suggester(spec).suggest(8, history.record)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_sweep_that_has_nothing_but_failures_goes_on(sampler: str) -> None:
    spec = a_spec(SPACE, sampler=sampler, bounds=KL_BOUND, startup_trials=2)
    history, suggester = History(spec), Suggester(spec)
    for number in range(5):
        params = suggester.suggest(number, history.record)
        assert params is not None
        history.finish(history.suggest(params), TrialState.OUT_OF_MEMORY)


@pytest.mark.parametrize("sampler", ["tpe", "random", "cmaes", "qmc"])
def test_an_empty_space_repeats_the_default(sampler: str) -> None:
    spec = a_spec({}, sampler=sampler)
    history = History(spec)
    history.add({}, 1.0, source="default")
    assert Suggester(spec).suggest(1, history.record) == {}


def test_what_the_finals_train_again_teaches_nothing() -> None:
    spec = a_spec(PLAIN, startup_trials=2)
    history, _ = live_through(spec)
    before = Suggester(spec).suggest(90, history.record)
    history.add(spec.default_params(), 100.0, source="finals")
    assert Suggester(spec).suggest(90, history.record) == before


def test_a_default_outside_the_space_runs_but_teaches_nothing() -> None:
    spec = a_spec({RANK: [4, 16], BETA: {"low": 0.05, "high": 0.5}}, startup_trials=1)
    history = History(spec)
    alone = Suggester(spec).suggest(1, history.record)
    history.add(spec.default_params(), 1.0, source="default")
    assert Suggester(spec).suggest(1, history.record) == alone


@pytest.mark.parametrize("bounds", [{}, KL_BOUND], ids=["free", "bounded"])
def test_tpe_is_quick_at_a_thousand_trials(bounds: dict[str, Any]) -> None:
    _, milliseconds = measure(a_spec(SPACE, num_trials=1000, bounds=bounds), 1000, 9)
    assert statistics.median(milliseconds) <= 60  # 25 where this was written
