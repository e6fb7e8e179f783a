"""Sweeps made up by hand or at random: specs without files, and the records that they leave."""

from __future__ import annotations

import math
import random
from typing import Any

from easyds_tune.decisions.rules import bounds_of, objectives_of
from easyds_tune.decisions.suggest import Suggester
from easyds_tune.journal.events import (
    Entry,
    Event,
    FinishEvent,
    ReportEvent,
    StartEvent,
    SuggestEvent,
    SweepEvent,
    TrialState,
)
from easyds_tune.journal.replay import SweepRecord
from easyds_tune.spec.sweep import SweepSpec, trial_id

LEARNING_RATE, BETA, RANK = "training.learning_rate", "algorithm.beta", "model.lora_r"
LOSS, SMOOTHING = "algorithm.loss_type", "algorithm.label_smoothing"

SPACE: dict[str, Any] = {
    LEARNING_RATE: {"low": 1e-5, "high": 1e-3, "log": True},
    BETA: {"low": 0.05, "high": 0.5},
    RANK: [4, 8, 16],
    "training.gradient_accumulation_steps": {"low": 1, "high": 4},
}
PLAIN: dict[str, Any] = {
    LEARNING_RATE: {"low": 1e-5, "high": 1e-3, "log": True},
    BETA: {"low": 0.0, "high": 1.0},
}
CONDITIONAL: dict[str, Any] = {
    LEARNING_RATE: {"low": 1e-5, "high": 1e-3, "log": True},
    SMOOTHING: {"low": 0.01, "high": 0.3, "when": {LOSS: "exo_pair"}},
    LOSS: ["sigmoid", "exo_pair"],
}
SEVERAL = [{"metric": "eval/reward", "mode": "max"}, {"metric": "eval/kl", "mode": "min"}]
KL_BOUND = {"eval/kl": {"min": 0.05, "max": 0.2}}


def a_spec(space: dict[str, Any] | None = None, **changes: Any) -> SweepSpec:
    """A DPO sweep; `changes` replace sections, `sampler` and `num_trials` go to `search`."""
    search = {"num_trials": 40, "startup_trials": 5}
    for key in ("sampler", "num_trials", "startup_trials", "points", "points_from"):
        if key in changes:
            search[key] = changes.pop(key)
    raw: dict[str, Any] = {
        "name": "search",
        "algorithm": {"type": "dpo", "beta": 0.1},
        "model": {"model_name_or_path": "never-loaded", "lora_r": 8},
        "data": {"train": "never-read.jsonl"},
        "judge": {
            "prompts": "never-read.jsonl", "reward": {"model_name_or_path": "never-loaded"},
        },
        "training": {
            "max_steps": 27, "eval_steps": 1, "learning_rate": 1e-4,
            "per_device_train_batch_size": 8,
        },
        "search_space": PLAIN if space is None else space,
        "search": search,
        **changes,
    }  # fmt: skip
    return SweepSpec.model_validate(raw)


class History:
    """A sweep's record, written one event at a time; `tick` seconds pass between two of them."""

    def __init__(self, spec: SweepSpec, tick: float = 1.0) -> None:
        self.spec, self.tick = spec, tick
        self.now = 1000.0
        objectives = objectives_of(spec)
        event = SweepEvent(
            spec.name, "dpo", objectives[0], spec.search.num_trials, 27, self.now,
            bounds=bounds_of(spec), objectives=objectives,
        )  # fmt: skip
        self.events = 1
        self.record = SweepRecord.begin(Entry(0, self.now, event))

    def apply(self, event: Event) -> None:
        self.now += self.tick
        self.record.apply(Entry(self.events, self.now, event))
        self.events += 1

    def suggest(self, params: dict[str, Any], source: str = "sampler") -> int:
        number = self.record.next_number
        self.apply(SuggestEvent(trial_id(number), number, params, source))  # type: ignore[arg-type]
        self.apply(StartEvent(trial_id(number), 1))
        return number

    def report(self, number: int, step: int, reward: float, kl: float = 0.1) -> None:
        metrics = {"eval/reward": reward, "eval/kl": kl}
        self.apply(ReportEvent(trial_id(number), step, metrics))

    def finish(self, number: int, state: TrialState) -> None:
        step = self.record.trials[trial_id(number)].step
        self.apply(FinishEvent(trial_id(number), state, step, 1.0))

    def go_on(self, number: int) -> None:
        attempt = self.record.trials[trial_id(number)].attempt + 1
        self.apply(StartEvent(trial_id(number), attempt))

    def add(
        self,
        params: dict[str, Any],
        reward: float = 0.0,
        kl: float = 0.1,
        state: TrialState = TrialState.COMPLETED,
        step: int = 27,
        source: str = "sampler",
    ) -> int:
        """A whole trial with one report, at its last step."""
        number = self.suggest(params, source)
        self.report(number, step, reward, kl)
        if state != TrialState.RUNNING:
            self.finish(number, state)
        return number


def live_through(
    spec: SweepSpec, seed: int = 0, *, forgetful: bool = False, tick: float = 1.0
) -> tuple[History, list[Any]]:
    """A sweep of four slots in which everything happens, and what was proposed all along: by one
    suggester, or by a `forgetful` one that is made anew for each question.

    Trials end in every state, report NaN, pause and go on, and are suggested while others run.
    """
    source = random.Random(seed)
    history, suggester, proposed = History(spec, tick), Suggester(spec), []
    running: list[int] = []
    paused: list[int] = []
    for number in range(spec.search.num_trials):
        if number == 0:
            params: dict[str, Any] | None = spec.default_params()
        else:
            if forgetful:
                suggester = Suggester(spec)
            params = suggester.suggest(number, history.record)
            proposed.append(params)
        if params is None:
            break
        running.append(history.suggest(params, "sampler" if number else "default"))
        while len(running) >= 4:
            chosen = running.pop(source.randrange(len(running)))
            state = _run(history, chosen, source)
            if state == TrialState.PAUSED:
                paused.append(chosen)
            elif state == TrialState.RUNNING:
                running.append(chosen)
            if paused and source.random() < 0.3:
                again = paused.pop(0)
                history.go_on(again)
                running.append(again)
    return history, proposed


_STATES = [
    TrialState.COMPLETED, TrialState.COMPLETED, TrialState.COMPLETED, TrialState.PRUNED,
    TrialState.PAUSED, TrialState.BOUNDED, TrialState.DIVERGED, TrialState.OUT_OF_MEMORY,
    TrialState.FAILED, TrialState.RUNNING,
]  # fmt: skip


def _run(history: History, number: int, source: random.Random) -> TrialState:
    trial = history.record.trials[trial_id(number)]
    state = source.choice(_STATES)
    if state != TrialState.OUT_OF_MEMORY:
        for step in range(trial.step + 1, trial.step + 1 + source.randrange(1, 4)):
            rate = trial.params.get(LEARNING_RATE, 1e-4)
            kl = 0.3 if state == TrialState.BOUNDED else source.uniform(0.03, 0.25)
            reward = step * -abs(math.log10(rate) + 4) + source.gauss(0, 0.1)
            history.report(number, step, reward, kl)
        if state == TrialState.DIVERGED:
            history.report(number, trial.step + 1, math.nan, math.nan)
    if state != TrialState.RUNNING:
        history.finish(number, state)
    return state
