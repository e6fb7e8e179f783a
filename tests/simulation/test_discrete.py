"""The discrete-event sweep: slots, order, pauses and finals, by the decisions it is given."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import pytest

from easyds_tune.decisions.decider import GoOn, New, Next, Over, Proposal, Verdict, Wait
from easyds_tune.decisions.make import make_decider
from easyds_tune.journal.events import FinalsEvent, TrialState
from easyds_tune.journal.replay import SweepRecord, replay
from easyds_tune.results.finals import settle
from easyds_tune.simulation.discrete import SimulatedSweep, simulate
from easyds_tune.spec.sweep import SweepSpec
from tests.simulation.landscapes import LOSS, RATE, curves, sweep_spec

TIGHT = {"eval/kl": {"max": 0.3}}
PARAMS = {RATE: 1e-3, LOSS: "sigmoid"}


@dataclass
class Script:
    """Starts `count` equal trials; the first pauses at step 3 until the others have ended."""

    record: SweepRecord
    count: int
    pauses: bool = False
    most_running: int = 0
    log: list[str] = field(default_factory=list)

    def stop_event(self, now: float) -> None:
        """Limits are its own."""

    def next(self) -> Next:
        trials = self.record.trials.values()
        running = [t for t in trials if t.state is TrialState.RUNNING]
        if len(trials) < self.count:
            return New()
        if running:
            return Wait()
        paused = [t for t in trials if t.state is TrialState.PAUSED]
        return GoOn(paused[0].id, "script", "promote", "it is time") if paused else Over("done")

    def propose(self) -> Proposal:
        number = len(self.record.trials)
        return Proposal(number, PARAMS, "default" if number == 0 else "sampler")

    def on_report(self, trial_id: str, is_last: bool) -> Verdict:
        trials = self.record.trials.values()
        running = sum(trial.state is TrialState.RUNNING for trial in trials)
        self.most_running = max(self.most_running, running)
        step = self.record.trials[trial_id].step
        self.log.append(f"{trial_id}@{step}")
        if is_last:
            return Verdict("stop", state=TrialState.COMPLETED)
        if self.pauses and trial_id == "000" and step == 3:
            return Verdict("pause", "script", "later", TrialState.PAUSED)
        return Verdict("continue")


Simulated = Callable[..., tuple[Script, SimulatedSweep]]


@pytest.fixture
def simulated() -> Simulated:
    def run(slots: int, count: int, pauses: bool = False) -> tuple[Script, SimulatedSweep]:
        made: list[Script] = []

        def decide(record: SweepRecord) -> Script:
            made.append(Script(record, count, pauses))
            return made[0]

        swept = simulate(sweep_spec(finals=None), curves(), decide, slots)
        return made[0], swept

    return run


def test_one_slot_runs_one_trial_after_another(simulated: Simulated) -> None:
    script, swept = simulated(1, 2)
    assert script.log == [f"{trial}@{step}" for trial in ("000", "001") for step in range(1, 10)]
    assert [told.tokens for told in swept.told] == [100 * n for n in range(1, 19)]
    # Trials are up to a quarter slower or faster than the curves' two seconds a step.
    assert 18 * 2 / 1.25 <= swept.seconds <= 18 * 2 / 0.75


def test_slots_are_filled_and_never_more(simulated: Simulated) -> None:
    script, swept = simulated(3, 7)
    assert script.most_running == 3
    assert all(t.state is TrialState.COMPLETED for t in swept.record.trials.values())
    assert swept.told[-1].tokens == 7 * 900


def test_a_paused_trial_gives_its_slot_away_and_goes_on_from_its_step(
    simulated: Simulated,
) -> None:
    script, swept = simulated(1, 2, pauses=True)
    steps = [*range(1, 4)], [*range(1, 10)], [*range(4, 10)]
    assert script.log == [
        f"{trial}@{step}"
        for trial, part in zip(("000", "001", "000"), steps, strict=True)
        for step in part
    ]
    assert swept.record.trials["000"].attempt == 2
    assert [d.action for d in swept.record.trials["000"].decisions] == ["pause", "promote"]


def test_our_decider_runs_a_whole_sweep_and_its_finals() -> None:
    spec = sweep_spec()
    swept = simulate(spec, curves(5), lambda record: make_decider(spec, record, 2), 2)
    record = swept.record
    assert len(record.trials) == 9
    assert all(trial.state.is_final for trial in record.trials.values())
    assert record.finalists
    assert len(record.finalists[0].values["eval/reward"]) == 256  # twice the curves' judge
    settled = settle(record)
    assert settled is not None
    assert settled.winner is not None


def test_the_same_sweep_twice_is_the_same() -> None:
    spec = sweep_spec()
    one, other = (
        simulate(spec, curves(5), lambda record: make_decider(spec, record, 3), 3).record
        for _ in range(2)
    )
    assert one.trials == other.trials
    assert one.finalists == other.finalists


def few_finals_prompts(seeds: int = 0) -> SweepSpec:
    """Finals of 16 prompts where the search has 128: a round may well find nothing inside."""
    finals = {"top": 1, "num_prompts": 16, "seeds": seeds}
    return sweep_spec(finals=finals, search={"num_trials": 12, "sampler": "random"}, bounds=TIGHT)


def run_from(spec: SweepSpec, judge: int, begun: SweepRecord | None = None) -> SimulatedSweep:
    found = curves(judge, noise={"reward_stderr": 0.08, "kl_relative_stderr": 0.03, "prompts": 128})
    return simulate(spec, found, lambda record: make_decider(spec, record, 1), 1, begun)


@pytest.mark.parametrize("seeds", [0, 1])
def test_a_sweep_killed_anywhere_in_its_rounds_of_finals_goes_on_to_the_same_end(
    seeds: int,
) -> None:
    spec = few_finals_prompts(seeds)
    runs = ((judge, run_from(spec, judge)) for judge in range(30))
    judge, whole = next((judge, run) for judge, run in runs if run.record.finals_round > 1)
    began = next(n for n, e in enumerate(whole.entries) if isinstance(e.event, FinalsEvent))
    end = whole.record
    for cut in range(began, len(whole.entries) + 1):
        record = run_from(spec, judge, replay(whole.entries[:cut])).record
        assert record.finalists == end.finalists
        assert (record.chosen, record.finals_round) == (end.chosen, end.finals_round)
