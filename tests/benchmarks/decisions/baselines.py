"""What people use today, deciding the same simulated sweeps: Ray's and Optuna's own classes.

Their searchers and schedulers are called as Tune's controller (2.60) calls them, without Ray's
runtime. An evaluation is one `training_iteration`. All of them begin trials until the tokens of
`spec.stop` are used up; a trial that is running then ends with its next report, as ours do.
"""

from __future__ import annotations

import random
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np
import optuna

from easyds_tune.decisions.decider import New, Next, Over, Proposal, Verdict, Wait
from easyds_tune.decisions.stop import tokens_used
from easyds_tune.journal.events import TrialState
from easyds_tune.journal.replay import SweepRecord
from easyds_tune.spec.search import ChoiceParam, Param
from easyds_tune.spec.sweep import SweepSpec, trial_id

METRIC, MODE = "eval/reward", "max"
REDUCTION_FACTOR = 3
ITERATION = "training_iteration"


class Stock:
    """The part that all of them share: new trials while there are tokens, no trial ever waits."""

    def __init__(self, spec: SweepSpec, record: SweepRecord) -> None:
        assert spec.stop.tokens is not None
        self._record = record
        self._tokens = spec.stop.tokens
        self._every = spec.budget().eval_steps

    def stop_event(self, now: float) -> None:
        """Limits are its own."""

    def next(self) -> Next:
        """A new trial, as long as there are tokens."""
        if not self._is_over():
            return New()
        running = any(t.state is TrialState.RUNNING for t in self._record.trials.values())
        return Wait() if running else Over("the tokens are used up")

    def propose(self) -> Proposal | None:
        """What the searcher suggests."""
        number = len(self._record.trials)
        return Proposal(number, self.suggest(trial_id(number)), "sampler")

    def on_report(self, trial: str, is_last: bool) -> Verdict:
        """What the scheduler says."""
        report = self._record.trials[trial].reports[-1]
        result = {
            METRIC: report.metrics[METRIC],
            ITERATION: -(-report.step // self._every),
            "trial_id": trial,
        }
        stops = self.report(trial, result, is_last)
        if is_last:
            return Verdict("stop", state=TrialState.COMPLETED)
        if stops:
            return Verdict("stop", "scheduler", "stopped", TrialState.PRUNED)
        if self._is_over():
            return Verdict("stop", "stop", "the tokens are used up", TrialState.PRUNED)
        return Verdict("continue")

    def suggest(self, trial: str) -> dict[str, Any]:
        """A new configuration."""
        raise NotImplementedError

    def report(self, trial: str, result: dict[str, Any], is_last: bool) -> bool:
        """Whether a trial stops."""
        raise NotImplementedError

    def _is_over(self) -> bool:
        return tokens_used(self._record) >= self._tokens


class RandomSearch(Stock):
    """Ray's search space drawn at random; nothing stops early."""

    def __init__(self, spec: SweepSpec, record: SweepRecord, seed: int) -> None:
        super().__init__(spec, record)
        self._space = {path: _ray_domain(param) for path, param in spec.search_space.items()}
        self._random = np.random.RandomState(seed)

    def suggest(self, trial: str) -> dict[str, Any]:
        """Every parameter from its own domain."""
        drawn = {
            path: domain.sample(random_state=self._random) for path, domain in self._space.items()
        }
        return {path: _plain(value) for path, value in drawn.items()}

    def report(self, trial: str, result: dict[str, Any], is_last: bool) -> bool:
        """Never stops."""
        return False


class RandomASHA(RandomSearch):
    """Ray's search space drawn at random, and Ray's ASHAScheduler."""

    def __init__(self, spec: SweepSpec, record: SweepRecord, seed: int) -> None:
        super().__init__(spec, record, seed)
        self._scheduler = RayASHA(spec)

    def report(self, trial: str, result: dict[str, Any], is_last: bool) -> bool:
        """As the scheduler says."""
        stops = self._scheduler.report(trial, result)
        if stops or is_last:
            self._scheduler.complete(trial, result)
        return stops


class OptunaASHA(Stock):
    """Ray's OptunaSearch and ASHAScheduler as their documentation puts them together."""

    def __init__(self, spec: SweepSpec, record: SweepRecord, seed: int) -> None:
        from ray.tune.search.optuna import OptunaSearch

        super().__init__(spec, record)
        _quiet()
        space = {path: _ray_domain(param) for path, param in spec.search_space.items()}
        self._search = OptunaSearch(metric=METRIC, mode=MODE, seed=seed)
        self._search.set_search_properties(METRIC, MODE, space)
        self._scheduler = RayASHA(spec)

    def suggest(self, trial: str) -> dict[str, Any]:
        """As the searcher says."""
        found = self._search.suggest(trial)
        assert found is not None
        return dict(found)

    def report(self, trial: str, result: dict[str, Any], is_last: bool) -> bool:
        """As the scheduler says; the searcher hears what Tune would tell it."""
        stops = self._scheduler.report(trial, result)
        if not stops and not is_last:
            self._search.on_trial_result(trial, result)
        if stops or is_last:
            self._scheduler.complete(trial, result)
            self._search.on_trial_complete(trial, result=result)
        return stops


class RayASHA:
    """ASHAScheduler with metric, mode, max_t, grace_period and reduction_factor."""

    def __init__(self, spec: SweepSpec) -> None:
        from ray.tune.schedulers import ASHAScheduler

        budget = spec.budget()
        self._max_t = -(-budget.max_steps // budget.eval_steps)
        self._asha = ASHAScheduler(
            metric=METRIC, mode=MODE, max_t=self._max_t, grace_period=1,
            reduction_factor=REDUCTION_FACTOR,
        )  # fmt: skip
        self._known: set[str] = set()

    def report(self, trial: str, result: dict[str, Any]) -> bool:
        """Whether the scheduler stops a trial before its end."""
        ray_trial = SimpleNamespace(trial_id=trial)
        if trial not in self._known:
            self._known.add(trial)
            self._asha.on_trial_add(None, ray_trial)
        if result[ITERATION] >= self._max_t:  # Tune sees `done` and asks no scheduler
            return False
        return self._asha.on_trial_result(None, ray_trial, result) == "STOP"

    def complete(self, trial: str, result: dict[str, Any]) -> None:
        """A running trial ended, by itself or stopped."""
        self._asha.on_trial_complete(None, SimpleNamespace(trial_id=trial), result)


class OptunaAlone(Stock):
    """Optuna's ask, report, should_prune and tell, with its default sampler and pruner."""

    def __init__(self, spec: SweepSpec, record: SweepRecord, seed: int) -> None:
        super().__init__(spec, record)
        _quiet()
        self._space = {path: _distribution(p) for path, p in spec.search_space.items()}
        self._study = optuna.create_study(
            direction="maximize",
            sampler=optuna.samplers.TPESampler(seed=seed),
            pruner=optuna.pruners.MedianPruner(),
        )
        self._trials: dict[str, optuna.Trial] = {}

    def suggest(self, trial: str) -> dict[str, Any]:
        """As the sampler says."""
        self._trials[trial] = self._study.ask(self._space)
        return dict(self._trials[trial].params)

    def report(self, trial: str, result: dict[str, Any], is_last: bool) -> bool:
        """As the pruner says; a pruned trial is told as pruned."""
        asked = self._trials[trial]
        asked.report(result[METRIC], result[ITERATION])
        if is_last:
            self._study.tell(asked, result[METRIC])
            return False
        stops = bool(asked.should_prune())
        if stops:
            self._study.tell(asked, state=optuna.trial.TrialState.PRUNED)
        return stops


@dataclass(frozen=True)
class Baseline:
    """A way to search; `make` takes the spec, the record and a seed."""

    key: str
    name: str
    make: Callable[[SweepSpec, SweepRecord, int], Stock]


BASELINES = (
    Baseline("a", "OptunaSearch + ASHAScheduler", OptunaASHA),
    Baseline("b", "random + ASHAScheduler", RandomASHA),
    Baseline("c", "random, nothing stopped", RandomSearch),
    Baseline("d", "Optuna alone, median pruner", OptunaAlone),
)


def seed_everything(seed: int) -> None:
    """For stock classes that draw from global generators."""
    random.seed(seed)
    np.random.seed(seed)


def _ray_domain(param: Param) -> Any:
    from ray import tune

    if isinstance(param, ChoiceParam):
        return tune.choice(param.choice)
    assert param.type == "float", "the benchmark's spaces have numbers and choices only"
    return (tune.loguniform if param.log else tune.uniform)(param.low, param.high)


def _distribution(param: Param) -> optuna.distributions.BaseDistribution:
    if isinstance(param, ChoiceParam):
        return optuna.distributions.CategoricalDistribution(param.choice)
    return optuna.distributions.FloatDistribution(param.low, param.high, log=param.log)


def _plain(value: Any) -> Any:
    """NumPy's numbers as Python's."""
    return value.item() if isinstance(value, np.generic) else value


def _quiet() -> None:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
