"""A Ray Tune searcher on Optuna's ask and tell. Trial 0 is the spec's own configuration."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from ray.tune.search import Searcher

from easyds_tune.spec.search import ChoiceParam, FloatParam, IntParam, Param
from easyds_tune.spec.sweep import SweepSpec
from easyds_tune.spec.sweep import trial_id as name_of

Suggested = Callable[[str, int, dict[str, Any], str], None]


def distribution(param: Param) -> BaseDistribution:
    """Optuna's distribution of a searched field; a choice is searched by its position."""
    if isinstance(param, ChoiceParam):
        return CategoricalDistribution(list(range(len(param.choice))))
    if isinstance(param, FloatParam):
        return FloatDistribution(param.low, param.high, log=param.log, step=param.step)
    return IntDistribution(param.low, param.high, log=param.log, step=param.step or 1)


class OptunaSearcher(Searcher):
    """Proposes configurations and tells Optuna how they did, pruned ones as pruned.

    suggested: called with (Ray's trial id, number, params, "default" or "sampler") for each trial.
    The value of a trial is the best it ever reported: that is the checkpoint one would deploy.
    """

    def __init__(self, sweep: SweepSpec, suggested: Suggested) -> None:
        super().__init__(metric=sweep.objective.metric, mode=sweep.objective.mode)
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
        self._sweep = sweep
        self._suggested = suggested
        self._space = {path: distribution(param) for path, param in sweep.search_space.items()}
        self._study = optuna.create_study(
            direction="maximize" if sweep.objective.mode == "max" else "minimize",
            sampler=_sampler(sweep),
        )
        self._trials: dict[str, optuna.Trial] = {}
        self._reported: dict[str, dict[int, float]] = {}
        self._number = 0
        self._default_id: str | None = None

    def suggest(self, trial_id: str) -> Any:
        """The next configuration, or FINISHED after the last one."""
        if self._number >= self._sweep.search.num_trials:
            return Searcher.FINISHED
        number, self._number = self._number, self._number + 1
        if number == 0:
            params, source = self._sweep.default_params(), "default"
            self._default_id = trial_id
        else:
            trial = self._study.ask(self._space)
            self._trials[trial_id] = trial
            params, source = self._values(trial.params), "sampler"
        self._suggested(trial_id, number, params, source)
        return {"trial": name_of(number), "params": params}

    def _values(self, positions: dict[str, Any]) -> dict[str, Any]:
        """The values of a suggestion, in the order of the spec."""
        values = {}
        for path, param in self._sweep.search_space.items():
            value = positions[path]
            values[path] = param.choice[value] if isinstance(param, ChoiceParam) else value
        return values

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Note what a running trial reported."""
        self._note(trial_id, result)

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """Tell Optuna how a trial ended: complete, pruned at its step, or failed."""
        if result is not None:
            self._note(trial_id, result)
        if trial_id == self._default_id:
            self._learn_default(result)
        trial = self._trials.pop(trial_id, None)
        if trial is None:
            return
        reported = list(self._reported.get(trial_id, {}).values())
        if error or result is None or "failure" in result or not reported:
            self._study.tell(trial, state=optuna.trial.TrialState.FAIL)
        elif not result["is_last"]:
            self._study.tell(trial, state=optuna.trial.TrialState.PRUNED)
        else:
            best = max(reported) if self.mode == "max" else min(reported)
            self._study.tell(trial, best)

    def _note(self, trial_id: str, result: dict[str, Any]) -> None:
        reports = self._reported.setdefault(trial_id, {})
        if self.metric not in result:
            return
        step, value = int(result["global_step"]), float(result[self.metric])
        if step not in reports:
            reports[step] = value
            if trial_id in self._trials:
                self._trials[trial_id].report(value, step)

    def _learn_default(self, result: dict[str, Any] | None) -> None:
        """Let the sampler learn from trial 0 too, where the spec's values lie in the space."""
        positions = self._positions(self._sweep.default_params())
        reports = self._reported.get(self._default_id or "", {})
        values = list(reports.values())
        if positions is None or not values or result is None or "failure" in result:
            return
        finished = bool(result.get("is_last"))
        state = optuna.trial.TrialState.COMPLETE if finished else optuna.trial.TrialState.PRUNED
        self._study.add_trial(
            optuna.trial.create_trial(
                params=positions,
                distributions=self._space,
                value=max(values) if self.mode == "max" else min(values),
                intermediate_values=reports,
                state=state,
            )
        )

    def _positions(self, params: dict[str, Any]) -> dict[str, Any] | None:
        """Parameters as Optuna knows them; None where one lies outside the space."""
        positions = {}
        for path, param in self._sweep.search_space.items():
            value = params[path]
            if isinstance(param, ChoiceParam):
                if value not in param.choice:
                    return None
                positions[path] = param.choice.index(value)
            elif value is None or not _holds(param, value):
                return None
            else:
                positions[path] = value
        return positions

    def save(self, checkpoint_path: str) -> None:
        """Nothing: the journal is the only durable state."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing: a sweep is never restored from Tune's files."""


def _holds(param: FloatParam | IntParam, value: float) -> bool:
    """Whether a search could propose this value: it is in range, and on the grid if there is one.

    The tolerance is Optuna's own.
    """
    step = 1 if isinstance(param, IntParam) and param.step is None else param.step
    steps = (value - param.low) / step if step else 0.0
    return param.low <= value <= param.high and abs(steps - round(steps)) < 1e-8


def _sampler(sweep: SweepSpec) -> optuna.samplers.BaseSampler:
    if sweep.search.sampler == "random":
        return optuna.samplers.RandomSampler(seed=sweep.seed)
    return optuna.samplers.TPESampler(
        n_startup_trials=sweep.search.startup_trials,
        multivariate=True,
        constant_liar=True,
        seed=sweep.seed,
    )
