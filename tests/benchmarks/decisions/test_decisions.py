"""The decision benchmark's own arithmetic, and stock classes that behave as they are known to."""

from __future__ import annotations

import math

import pytest

from easyds_tune.journal.events import TrialState
from easyds_tune.simulation.discrete import SimulatedSweep, simulate
from tests.benchmarks.decisions.baselines import BASELINES, OptunaASHA
from tests.benchmarks.decisions.nomination import table
from tests.benchmarks.decisions.runs import OURS, Best, Pick, Run, find_best, run
from tests.benchmarks.decisions.verdicts import Results, Verdict, coverage, verdicts
from tests.simulation.landscapes import MODELLED, curves, sweep_spec

TOKENS = 4 * 900


def stock(key: str, slots: int = 2) -> SimulatedSweep:
    spec = sweep_spec(finals=None, stop={"tokens": TOKENS}, bounds={})
    [baseline] = [found for found in BASELINES if found.key == key]
    return simulate(spec, curves(3), lambda record: baseline.make(spec, record, 0), slots)


@pytest.mark.parametrize("key", [baseline.key for baseline in BASELINES])
def test_every_baseline_uses_the_same_tokens(key: str) -> None:
    swept = stock(key)
    assert TOKENS <= swept.told[-1].tokens <= TOKENS + 100  # the other slot's running report
    for trial in swept.record.trials.values():
        assert set(trial.params) == set(MODELLED["space"])
        assert trial.state in (TrialState.COMPLETED, TrialState.PRUNED)


def test_random_search_stops_nothing_and_the_others_do() -> None:
    early = {
        key: sum(
            trial.state is TrialState.PRUNED and trial.step < 9
            for trial in stock(key, slots=1).record.trials.values()
        )
        for key in ("a", "b", "c")
    }
    assert early["c"] == 0
    assert early["a"] > 0
    assert early["b"] > 0


def test_stock_search_tells_optuna_a_stopped_trial_is_complete() -> None:
    spec = sweep_spec(finals=None, stop={"tokens": TOKENS}, bounds={})
    made: list[OptunaASHA] = []

    def decide(record):  # type: ignore[no-untyped-def]
        made.append(OptunaASHA(spec, record, 0))
        return made[0]

    swept = simulate(spec, curves(3), decide, 1)
    stopped = [t for t in swept.record.trials.values() if t.state is TrialState.PRUNED]
    assert stopped
    states = {trial.state.name for trial in made[0]._search._ot_study.trials}
    assert "PRUNED" not in states
    assert "COMPLETE" in states


def one(method: str, seed: int, worth: float, **changes: object) -> Run:
    pick = Pick("001", 6, worth + 0.1, worth, 0.1, True, worth)
    fields: dict[str, object] = {
        "landscape": "flat", "method": method, "slots": 1, "seed": seed, "tokens": 100,
        "trials": 3, "seconds": 1.0, "unfiltered": pick, "filtered": pick,
        "finals": pick if method == OURS else None, "unfiltered_near": 50.0,
        "filtered_near": 50.0, "found": worth, "found_near": 40.0, "path": [], "interval": None,
        "propose_seconds": 0.0, "report_seconds": 0.0,
    }  # fmt: skip
    return Run(**fields | changes)  # type: ignore[arg-type]


def all_methods(**ours: object) -> list[Run]:
    return [one(OURS, 0, 0.9, **ours)] + [one(baseline.key, 0, 0.7) for baseline in BASELINES]


def test_regret_counts_a_winner_outside_the_bound_as_the_start() -> None:
    outside = Pick("001", 6, 2.0, 1.5, 0.4, False, 0.1)
    results = Results(all_methods(finals=outside), {"flat": Best(1.0, 0.1)})
    assert results.regrets(("flat", 1), "ours") == [pytest.approx(0.9)]
    assert results.infeasible(("flat", 1), "ours") == [True]
    assert results.regrets(("flat", 1), "a'") == [pytest.approx(0.3)]


def test_nothing_handed_over_is_worth_the_start_and_is_not_outside() -> None:
    results = Results(all_methods(finals=None), {"flat": Best(1.0, 0.1)})
    assert results.regrets(("flat", 1), "ours") == [pytest.approx(0.9)]
    assert results.infeasible(("flat", 1), "ours") == [False]


def test_targets_are_held_against_the_better_of_filtered_and_not() -> None:
    results = Results(all_methods(interval=(0.9, 0.8, 1.0)), {"flat": Best(1.0, 0.1)})
    found = {verdict.target: verdict for verdict in verdicts(results)}
    regret = found["regret <= 0.5 x the better of a and a'"]
    assert (regret.value, regret.most) == (pytest.approx(0.1), pytest.approx(0.15))
    assert regret.is_met
    assert coverage(results, ("flat", 1)) == [True]


def test_what_never_happened_keeps_no_promise() -> None:
    assert not Verdict("tokens", "flat", math.inf, math.inf).is_met


def test_the_best_of_the_flat_landscape_is_its_start() -> None:
    assert find_best("flat", draws=50, rounds=1) == Best(0.3, 0.3)


@pytest.mark.parametrize("method", [OURS, "c"])
def test_a_run_measures_its_pick_against_the_truth(method: str) -> None:
    found = run("hacking", method, 4, 0, Best(1.01, 0.0))
    assert found.pick is not None
    assert found.filtered is not None
    assert found.filtered.worth == (found.filtered.value if found.filtered.is_feasible else 0.0)
    assert found.filtered.is_feasible == (found.filtered.kl <= 0.2)
    assert found.found >= found.filtered.worth


def test_the_nomination_rules_of_two_commits_are_compared_seed_by_seed() -> None:
    def row(seed: int, regret: float, what: str = "searched") -> dict[str, object]:
        holds = None if what == "nothing" else True
        return {"landscape": "flat", "seed": seed, "regret": regret, "what": what, "judged": 6,
                "holds": holds}  # fmt: skip

    old = [row(0, 0.4, "nothing"), row(1, 0.2), row(2, 0.1), row(3, 0.0)]
    new = [row(2, 0.2), row(1, 0.2), row(0, 0.0)]
    *_, line = table(old, new).splitlines()
    cells = [cell.strip() for cell in line.strip("|").split("|")]
    assert cells[:2] == ["flat", "3"]
    assert cells[2] == "0.2333 ± 0.0882 → 0.1333 ± 0.0667"
    assert cells[4].startswith("-0.1000 ± ")
    assert cells[5:] == ["1, 1", "1 → 0", "0 → 0", "0 → 0", "6.0 → 6.0", "2/2 → 3/3"]
