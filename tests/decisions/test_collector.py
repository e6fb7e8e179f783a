"""What is collected never changes what a sweep finds, nor what it can go on from."""

from __future__ import annotations

import math
import os
import random
import time
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from easyds_tune.decisions.collector import (
    RESUMABLE,
    DiskRules,
    bytes_over,
    disk_rules,
    to_collect,
)
from easyds_tune.decisions.finals import choose_finalists, retrained_finalists, retrainings
from easyds_tune.journal.bounds import Bound
from easyds_tune.journal.events import (
    CheckpointEvent,
    CollectEvent,
    Entry,
    Event,
    FinalistEvent,
    FinalsEvent,
    FinishEvent,
    Objective,
    ReportEvent,
    StartEvent,
    SuggestEvent,
    SweepEvent,
    TrialError,
    TrialState,
)
from easyds_tune.journal.replay import SweepRecord
from easyds_tune.results.finals import find_best
from easyds_tune.results.pareto import pareto_front
from easyds_tune.results.ranking import rank
from tests.decisions.histories import a_spec

WHOLE, BARE = 100, 20
"""Bytes of a checkpoint, with its trainer state and without."""
REWARD, KL = Objective("eval/reward"), Objective("eval/kl", "min")


class Sweep:
    """A record, and what it would be had nothing been collected."""

    def __init__(self, rules: DiskRules, objectives: tuple[Objective, ...] = (REWARD,)) -> None:
        bounds = (Bound("eval/kl", max=2.0),)
        first = SweepEvent(
            "disk", "dpo", REWARD, 9, 60, 0.0, bounds=bounds, objectives=objectives
        )  # fmt: skip
        self.rules = rules
        self.record = SweepRecord.begin(Entry(0, 0.0, first))
        self.plain = SweepRecord.begin(Entry(0, 0.0, first))
        self.seq = 0
        self.at: dict[str, int] = {}  # where each trial's newest attempt is

    def apply(self, *events: Event) -> None:
        for event in events:
            self.seq += 1
            entry = Entry(self.seq, float(self.seq), event)
            self.record.apply(entry)
            if not isinstance(event, CollectEvent):
                self.plain.apply(entry)

    def suggest(self, source: Any = "sampler", params: Any = None, seed: Any = None) -> str:
        number = len(self.record.trials)
        name = f"{number:03d}"
        params = params or {"algorithm.beta": number}
        self.apply(SuggestEvent(name, number, params, source, seed), StartEvent(name, 1))
        self.at[name] = 0
        return name

    def report(self, name: str, reward: float, kl: float = 1.0, stderr: float = 0.1) -> None:
        step = self.at[name] = self.at[name] // 10 * 10 + 10
        metrics = {"eval/reward": reward, "eval/reward_stderr": 0.1,
                   "eval/kl": kl, "eval/kl_stderr": stderr}  # fmt: skip
        self.apply(ReportEvent(name, step, metrics))
        self.checkpoint(name, step)

    def checkpoint(self, name: str, step: int) -> None:
        path = f"trials/{name}/checkpoints/step-{step:06d}"
        self.apply(CheckpointEvent(name, step, path, WHOLE))

    def trial(self, *rewards: float, state: TrialState | None = TrialState.COMPLETED) -> str:
        name = self.suggest()
        for reward in rewards:
            self.report(name, reward)
        if state is not None:
            self.finish(name, state)
        return name

    def finish(self, name: str, state: TrialState, error: TrialError | None = None) -> None:
        self.apply(FinishEvent(name, state, self.record.trials[name].step, 1.0, error))

    def go_on(self, name: str, step: int) -> None:
        """A new attempt, from a checkpoint or (0) from the start."""
        self.apply(StartEvent(name, self.record.trials[name].attempt + 1))
        self.at[name] = step

    def collect(self, most: int | None = None) -> None:
        """Collect until nothing is left; or, as when the driver dies, `most` events of one round.

        Files are not at stake here: an event stands for them.
        """
        while events := to_collect(self.record, self.rules):
            for event in events[:most]:
                left = BARE if event.what == "trainer" else 0
                self.apply(CollectEvent(event.trial, event.step, event.what, left))
            if most is not None:
                return

    def stored(self) -> dict[str, list[int]]:
        """The checkpoints there are; 10.5 is one of step 10 without its trainer state."""
        return {
            trial.id: [s + 0.5 * (s in trial.final_only) for s in sorted(trial.checkpoints)]
            for trial in self.record.trials.values()
        }  # type: ignore[return-value]

    def check(self) -> None:
        """All that matters is as if nothing had been collected."""
        ours, plain = self.record, self.plain
        assert place(find_best(ours)) == place(find_best(plain))
        if best := find_best(ours):
            assert best.checkpoint == ours.trials[best.trial.id].checkpoints[best.step]
        chosen = choose_finalists(plain, self.rules.top)
        assert choose_finalists(ours, self.rules.top) == chosen
        assert retrained_finalists(ours, chosen) == retrained_finalists(plain, chosen)
        judged = [(event.trial, event.step) for event in ours.finalists]
        for trial, step in [*chosen, *ours.chosen, *judged]:
            assert step in ours.trials[trial].checkpoints
        if len(ours.objectives) > 1:
            assert front(ours) == front(plain)
        ranked = [(entry.trial.id, entry.step, entry.value, entry.is_fit) for entry in rank(plain)]
        assert [(e.trial.id, e.step, e.value, e.is_fit) for e in rank(ours)] == ranked
        for name, trial in ours.trials.items():
            assert trial.checkpoints.items() <= plain.trials[name].checkpoints.items()
            if not trial.state.is_final:
                newest = plain.trials[name].resumable()[:RESUMABLE]
                assert trial.resumable()[:RESUMABLE] == newest


def place(best: Any) -> Any:
    return None if best is None else (best.trial.id, best.step, best.checkpoint)


def front(record: SweepRecord) -> list[tuple[str, int]]:
    return [(point.trial.id, point.step) for point in pareto_front(record)]


def keep(count: int | None, limit: int | None = None, top: int = 1) -> Sweep:
    return Sweep(DiskRules(count, limit, top))


def test_the_best_stay_and_lose_their_trainer_state() -> None:
    sweep = keep(2)
    for reward in (1, 5, 3, 4):
        sweep.trial(reward)
    sweep.collect()
    # 001 and 003 are the best, 000 is the default configuration.
    assert sweep.stored() == {"000": [10.5], "001": [10.5], "002": [], "003": [10.5]}
    assert sum(sweep.record.trials["001"].sizes.values()) == BARE
    sweep.check()


def test_infeasible_and_failed_ones_go_first() -> None:
    sweep = keep(3, top=1)
    sweep.trial(0)
    for reward, kl, state in ((9, 3.0, "COMPLETED"), (9, 1.0, "DIVERGED"), (1, 1.0, "COMPLETED")):
        name = sweep.suggest()
        sweep.report(name, reward, kl)
        sweep.finish(name, TrialState(state))
    sweep.collect()
    assert sweep.stored() == {"000": [10.5], "001": [10.5], "002": [], "003": [10.5]}


def test_unfinished_trials_keep_the_two_newest_that_they_can_go_on_from() -> None:
    sweep = keep(1)
    sweep.trial(9)
    for state in (None, TrialState.PAUSED, TrialState.INTERRUPTED):
        sweep.trial(1, 2, 3, 4, state=state)
    sweep.collect()
    for name in ("001", "002", "003"):
        assert sweep.stored()[name] == [30, 40]
    sweep.check()


def test_what_could_win_were_the_running_trial_to_fail_stays() -> None:
    sweep = keep(1)
    sweep.trial(0)
    sweep.trial(5)
    running = sweep.trial(7, 8, 6, 5, 4, state=None)
    sweep.collect()
    # Its best would win; 001 would if it failed.
    assert sweep.stored() == {"000": [10.5], "001": [10.5], "002": [20.5, 40, 50]}
    sweep.finish(running, TrialState.DIVERGED)
    sweep.check()
    sweep.collect()
    assert sweep.stored() == {"000": [10.5], "001": [10.5], "002": []}


def test_what_could_win_were_a_retry_to_go_back_stays() -> None:
    sweep = keep(1)
    sweep.trial(0)
    running = sweep.trial(1, 7, 6, 8, state=None)
    sweep.collect()
    assert sweep.stored()[running] == [20.5, 30, 40]
    sweep.finish(running, TrialState.INTERRUPTED, TrialError("WorkerDied", ""))
    sweep.go_on(running, 30)
    sweep.report(running, 2)  # was 8
    sweep.check()
    best = find_best(sweep.record)
    assert best is not None
    assert best.step == 20


def test_the_front_stays_also_the_one_that_a_failure_would_leave() -> None:
    sweep = Sweep(DiskRules(1, None, 0), (REWARD, KL))
    sweep.trial(0)
    ended = sweep.suggest()
    for reward, kl in ((1, 0.1), (3, 0.5), (2, 0.45)):
        sweep.report(ended, reward, kl)
    sweep.finish(ended, TrialState.COMPLETED)
    running = sweep.suggest()
    for reward in (4, 3, 2, 1):
        sweep.report(running, reward, kl=0.4)
    sweep.collect()
    # The running one beats 001 at steps 20 and 30, until it fails.
    assert sweep.stored() == {"000": [10.5], "001": [10.5, 20.5, 30.5], "002": [10.5, 30, 40]}
    sweep.check()
    sweep.finish(running, TrialState.FAILED)
    sweep.check()


def test_finalists_stay_though_a_sweep_that_goes_on_finds_better_ones() -> None:
    sweep = keep(1)
    sweep.trial(0)
    old = sweep.trial(5)
    sweep.apply(FinalsEvent([(old, 10), ("000", 10)]))
    for reward in (8, 9):
        sweep.trial(reward)
    sweep.collect()
    assert sweep.stored() == {"000": [10.5], "001": [10.5], "002": [], "003": [10.5]}


def test_the_best_stays_though_the_finals_would_not_take_it() -> None:
    """Its interval reaches over the bound, so that a surer one goes to the finals before it."""
    sweep = keep(1)
    sweep.trial(0)
    for reward in (8, 9):
        sweep.report(sweep.suggest(), reward, kl=1.9, stderr=0.3)
    sweep.finish("001", TrialState.COMPLETED)
    sweep.trial(5)
    sweep.collect()
    assert sweep.stored() == {"000": [10.5], "001": [10.5], "002": [10], "003": [10.5]}
    sweep.check()


def test_null_keeps_all_without_trainer_state() -> None:
    sweep = keep(None)
    sweep.trial(1, 2, 3)
    sweep.collect()
    assert sweep.stored() == {"000": [10.5, 20.5, 30.5]}


def test_the_limit_takes_the_worst_of_what_is_kept() -> None:
    sweep = keep(None, limit=3 * BARE)
    for reward in (3, 1, 5, 2, 4):
        sweep.trial(reward)
    sweep.collect()
    assert sweep.stored() == {"000": [10.5], "001": [], "002": [10.5], "003": [], "004": [10.5]}
    assert bytes_over(sweep.record, sweep.rules) == 0


def test_what_must_stay_may_be_more_than_the_limit() -> None:
    sweep = keep(5, limit=WHOLE)
    sweep.trial(1, 2, 3, state=None)
    sweep.collect()
    assert sweep.stored() == {"000": [20, 30]}
    assert bytes_over(sweep.record, sweep.rules) == WHOLE
    sweep.check()


def test_a_checkpoint_without_a_report_is_there_to_go_on_from_and_no_more() -> None:
    sweep = keep(5)
    name = sweep.trial(1, 2, state=None)
    sweep.checkpoint(name, 25)
    sweep.collect()
    assert sweep.stored() == {name: [10.5, 20, 25]}
    sweep.go_on(name, 25)
    sweep.report(name, 3)
    sweep.finish(name, TrialState.COMPLETED)
    sweep.rules = DiskRules(3, None, 1)
    sweep.collect()
    assert sweep.stored() == {name: [10.5, 20.5, 30.5]}


def test_retrained_finalists_keep_the_finalists_step() -> None:
    sweep = keep(1)
    sweep.trial(0)
    winner = sweep.trial(1, 5, 4)
    again = sweep.suggest("finals", sweep.record.trials[winner].params, seed=1)
    for reward in (9, 1, 2, 3):
        sweep.report(again, reward)
    sweep.finish(again, TrialState.COMPLETED)
    sweep.collect()
    # 10 is the best of all by the search's number, 20 is the step that its finalist has.
    assert sweep.stored() == {"000": [10.5], "001": [20.5], "002": [10.5, 20.5]}


def test_collected_checkpoints_still_say_how_good_their_trial_was() -> None:
    sweep = keep(1)
    for reward in (5, 9, 7):
        sweep.trial(1, reward, 2)
    sweep.collect()
    assert sweep.stored()["002"] == []
    (third,) = [entry for entry in rank(sweep.record) if entry.trial.id == "002"]
    assert (third.step, third.value, third.checkpoint) == (20, 7, None)


def test_the_rules_of_a_spec() -> None:
    assert disk_rules(a_spec()) == DiskRules(10, None, 5)
    assert disk_rules(a_spec(finals=None)).top == 0
    output = {"keep": None, "disk_limit": "1.5GiB"}
    assert disk_rules(a_spec(output=output)) == DiskRules(None, 1_610_612_736, 5)


EXAMPLES = int(os.environ.get("EASYDS_COLLECTOR_EXAMPLES", "60"))
KINDS = {"suggest": 6, "report": 30, "finish": 7, "fail": 8, "pause": 3, "promote": 4, "partial": 1,
         "collect": 10, "crash": 5, "finals": 4}  # fmt: skip
"""What can happen, and how often."""
ENDS = [TrialState.COMPLETED, TrialState.PRUNED, TrialState.BOUNDED, TrialState.DIVERGED,
        TrialState.OUT_OF_MEMORY, TrialState.FAILED, TrialState.DIVERGED]  # fmt: skip


@settings(max_examples=EXAMPLES, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    top=st.integers(1, 3),
    spare=st.sampled_from([0, 1, None]),
    limit=st.sampled_from([None, 150, 400]),
    several=st.booleans(),
)
def test_nothing_that_is_needed_is_ever_collected(
    seed: int, top: int, spare: int | None, limit: int | None, several: bool
) -> None:
    """Whatever happens, and at whatever point the collector runs or the driver dies."""
    rules = DiskRules(None if spare is None else top + spare, limit, top)
    sweep = Sweep(rules, (REWARD, KL) if several else (REWARD,))
    source = random.Random(seed)
    for kind in source.choices(list(KINDS), list(KINDS.values()), k=80):
        happen(sweep, kind, *(source.randrange(60) for _ in range(3)))
        sweep.check()
    sweep.collect()
    sweep.check()
    assert to_collect(sweep.record, rules) == []


def happen(sweep: Sweep, kind: str, which: int, value: int, other: int) -> None:
    """Let something happen, if it can."""
    record = sweep.record

    def one(*states: TrialState) -> Iterator[str]:
        names = [name for name, trial in record.trials.items() if trial.state in states]
        if names:
            yield names[which % len(names)]

    if kind == "suggest" and len(record.trials) < 7:
        sweep.suggest("sampler" if record.trials else "default")
    elif kind == "collect":
        sweep.collect()
    elif kind == "crash":
        sweep.collect(most=value % 4)
    elif kind == "finals":
        hold_finals(sweep, value % 3)
    elif kind == "promote":
        for name in one(TrialState.PAUSED, TrialState.INTERRUPTED):
            sweep.go_on(name, max(record.trials[name].resumable(), default=0))
    else:
        for name in one(TrialState.RUNNING):
            run(sweep, name, kind, value, other)


def run(sweep: Sweep, name: str, kind: str, value: int, other: int) -> None:
    if kind == "report":
        reward = math.nan if value == 0 else float(value % 12)
        sweep.report(name, reward, kl=other % 20 / 8, stderr=0.3 * (value % 2))
    elif kind == "finish":
        sweep.finish(name, ENDS[value % len(ENDS)])
    elif kind == "pause":
        sweep.finish(name, TrialState.PAUSED)
    elif kind == "partial" and sweep.at[name]:
        step = sweep.at[name] = sweep.at[name] // 10 * 10 + 5
        sweep.checkpoint(name, step)
    elif kind == "fail":
        sweep.finish(name, TrialState.INTERRUPTED, TrialError("WorkerDied", ""))
        back = [*sweep.record.trials[name].resumable()[:RESUMABLE], 0]
        sweep.go_on(name, back[other % len(back)])


def hold_finals(sweep: Sweep, draw: int) -> None:
    """Judge the finalists and train them again, once no trial runs; the sweep may go on after."""
    record, top = sweep.record, sweep.rules.top
    for name, trial in record.trials.items():
        if not trial.state.is_final:
            sweep.finish(name, TrialState.COMPLETED)
    chosen = choose_finalists(record, top) if len(record.objectives) == 1 else []
    for again in retrainings(record, chosen, 1, 0)[:draw]:
        sweep.suggest("finals", again.params, again.seed)
    if not chosen or draw:
        return
    chosen += retrained_finalists(record, chosen)
    sweep.apply(FinalsEvent(chosen))
    source = random.Random(sweep.seq)
    for trial, step in chosen:
        path = record.trials[trial].checkpoints[step]
        values = {"eval/reward": [source.gauss(1, 1) for _ in range(8)]}
        sweep.apply(FinalistEvent(trial, step, path, values))


@pytest.mark.parametrize("several", [False, True])
def test_a_question_takes_milliseconds(several: bool) -> None:
    """Two hundred trials that wait at a rung, after eight hundred that have ended."""
    sweep = Sweep(DiskRules(10, None, 5), (REWARD, KL) if several else (REWARD,))
    source = random.Random(0)
    for number in range(1000):
        rewards = [source.gauss(0, 1) for _ in range(4)]
        sweep.trial(*rewards, state=TrialState.PAUSED if number % 5 == 0 else TrialState.PRUNED)
        if number % 100 == 99:
            sweep.collect()
    begun = time.perf_counter()
    sweep.trial(1, 2)
    sweep.collect()
    assert time.perf_counter() - begun < 0.5
    sweep.check()
