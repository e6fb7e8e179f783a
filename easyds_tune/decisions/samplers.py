"""Optuna's samplers over a sweep's record: what is proposed depends on seed, number and record.

Stateless ones (tpe, gp, random) are made anew for every trial, seeded by the sweep's seed and the
trial's number, and shown a study that holds exactly the record's trials. Stateful ones (cmaes,
nsga2) keep their state in the trials of a study, so that study is replayed: asked in the order of
trial numbers, and before each question told of the trials that had ended by then. A sequence (qmc)
and a grid know nothing of results.
"""

from __future__ import annotations

import copy
import itertools
import math
import random
from collections.abc import Container, Sequence
from decimal import Decimal
from typing import Any

import optuna
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.samplers import BaseSampler
from optuna.trial import FrozenTrial
from optuna.trial import TrialState as OptunaState

from easyds_tune.decisions.outcome import Outcome
from easyds_tune.decisions.space import Space, SpecSpace
from easyds_tune.decisions.told import Told, directions, failed, tell, worst_values
from easyds_tune.errors import SpecError
from easyds_tune.journal.events import Objective
from easyds_tune.journal.replay import TrialRecord
from easyds_tune.spec.sweep import SweepSpec

STATEFUL = ("cmaes", "nsga2")

History = Sequence[tuple[TrialRecord, Outcome]]
"""The trials of a record that teach a sampler something, by number, and what they have shown."""


def trial_seed(seed: int, number: int) -> int:
    """The seed of the sampler for one trial; unlike seed + number, no two sweeps share it."""
    return random.Random(f"{seed}/{number}").getrandbits(32)


def make_sampler(spec: SweepSpec, space: Space, number: int) -> BaseSampler:
    """A sampler as Optuna makes it, seeded for one trial."""
    seed, startup = trial_seed(spec.seed, number), spec.search.startup_trials
    match spec.search.sampler:
        case "tpe":
            return optuna.samplers.TPESampler(
                n_startup_trials=startup,
                multivariate=True,
                group=space.has_conditions,
                constant_liar=True,
                seed=seed,
            )
        case "gp":
            return optuna.samplers.GPSampler(
                n_startup_trials=startup, seed=seed, warn_independent_sampling=False
            )
        case "cmaes":
            return optuna.samplers.CmaEsSampler(
                n_startup_trials=startup, seed=seed, warn_independent_sampling=False
            )
        case "nsga2":
            return optuna.samplers.NSGAIISampler(population_size=population_size(spec), seed=seed)
    return optuna.samplers.RandomSampler(seed=seed)


def population_size(spec: SweepSpec) -> int:
    """Of nsga2: five generations fit into the sweep, within 4 and Optuna's 50."""
    return max(4, min(50, spec.search.num_trials // 5))


class RecordStorage(optuna.storages.InMemoryStorage):
    """Shows a study the trials it is given, without a copy, and not the one being asked for.

    The asked trial has number 0, so the shown ones count from 1.
    """

    def __init__(self, shown: list[FrozenTrial]) -> None:
        super().__init__()
        self._shown_trials = shown

    def get_all_trials(
        self,
        study_id: int,
        deepcopy: bool = True,
        states: Container[OptunaState] | None = None,
    ) -> list[FrozenTrial]:
        """The shown trials."""
        trials = self._shown_trials
        found = [trial for trial in trials if states is None or trial.state in states]
        return copy.deepcopy(found) if deepcopy else found


class StatelessSearch:
    """tpe, gp and random: one look at the whole record, each time."""

    def __init__(self, spec: SweepSpec, space: Space, objectives: Sequence[Objective]) -> None:
        self._spec = spec
        self._space = space
        self._objectives = objectives
        self._shown: dict[int, tuple[tuple[object, ...], FrozenTrial | None]] = {}

    def suggest(self, number: int, history: History) -> dict[str, Any]:
        """The configuration of trial `number`."""
        shown = [] if self._spec.search.sampler == "random" else self.show(history)
        study = optuna.create_study(
            storage=RecordStorage(shown),
            sampler=make_sampler(self._spec, self._space, number),
            directions=directions(self._objectives),
        )
        return self._space.draw(study.ask())

    def show(self, history: History) -> list[FrozenTrial]:
        """The record's trials as this sampler is shown them; those outside the space are not."""
        worst = worst_values((outcome for _, outcome in history), self._objectives)
        any_failed = any(failed(trial.state, outcome) for trial, outcome in history)
        constrained = any_failed or bool(self._spec.bounds)
        shown = []
        for trial, outcome in history:
            told = tell(
                self._spec.search.sampler, trial.state, outcome, worst, constrained=constrained
            )
            key = (trial.state, trial.params, outcome, told.values, constrained)
            known = self._shown.get(trial.number)
            if known is None or known[0] != key:
                known = key, self._freeze(trial, told)
                self._shown[trial.number] = known
            if known[1] is not None:
                shown.append(known[1])
        return shown

    def _freeze(self, trial: TrialRecord, told: Told) -> FrozenTrial | None:
        placed = self._space.place(trial.params)
        if placed is None:
            return None
        frozen = optuna.trial.create_trial(
            state=told.state,
            values=told.values,
            params=placed.params,
            distributions=placed.distributions,
            intermediate_values=told.step_values,
            constraints=told.constraints,
        )
        frozen.number = trial.number + 1
        return frozen


class ReplayedSearch:
    """cmaes and nsga2: a live study, replayed from the record wherever it went another way.

    The order is the journal's: before trial n is asked for, those that had ended before n was
    suggested are told, in the order in which they ended. A trial is told once, when
    it has ended for good. What the record says was tried stands, whatever the sampler drew: so
    trial 0 and warm-start points are learnt too.
    """

    def __init__(self, spec: SweepSpec, space: Space, objectives: Sequence[Objective]) -> None:
        self._spec = spec
        self._space = space
        self._objectives = objectives
        self._done: list[tuple[object, ...]] = []
        self._begin()

    def suggest(self, number: int, history: History) -> dict[str, Any]:
        """The configuration of trial `number`."""
        steps = self._steps(history)
        if [key for key, *_ in steps[: len(self._done)]] != self._done:
            self._begin()
        for key, trial, outcome in steps[len(self._done) :]:
            if outcome is None:
                self._repeat(trial)
            else:
                self._tell(trial, outcome)
            self._done.append(key)
        asked = self._trials[number] = self._ask(number)
        drawn = self._space.draw(asked)
        self._done.append(_asked(number, drawn))
        return drawn

    def _begin(self) -> None:
        self._done.clear()
        self._trials: dict[int, optuna.Trial] = {}
        self._told_outcomes: list[Outcome] = []
        self._storage = optuna.storages.InMemoryStorage()
        self._study = optuna.create_study(
            storage=self._storage, directions=directions(self._objectives)
        )
        self._study_id = self._storage.get_study_id_from_name(self._study.study_name)

    def _steps(
        self, history: History
    ) -> list[tuple[tuple[object, ...], TrialRecord, Outcome | None]]:
        """What happened, in order: a question has no outcome, an answer has one."""
        happened: list[tuple[int, tuple[object, ...], TrialRecord, Outcome | None]] = []
        for trial, outcome in history:
            asked = _asked(trial.number, trial.params)
            happened.append((trial.suggested_seq, asked, trial, None))
            if trial.state.is_final and trial.ended_seq is not None:
                told = ("told", trial.number, trial.state, outcome)
                happened.append((trial.ended_seq, told, trial, outcome))
        return [one[1:] for one in sorted(happened, key=lambda one: one[0])]

    def _ask(self, number: int) -> optuna.Trial:
        self._study.sampler = make_sampler(self._spec, self._space, number)
        return self._study.ask()

    def _repeat(self, trial: TrialRecord) -> None:
        """Ask again for a trial of the record, and keep what the record says was tried."""
        placed = self._space.place(trial.params)
        if placed is None:
            return
        asked = self._ask(trial.number)
        _ = asked.relative_params  # moves the sampler's state on, as drawing did
        optuna_id = self._storage.get_trial_id_from_study_id_trial_number(
            self._study_id, asked.number
        )
        for path, value in placed.params.items():
            domain = placed.distributions[path]
            internal = domain.to_internal_repr(value)
            self._storage.set_trial_param(optuna_id, path, internal, domain)
        self._trials[trial.number] = asked

    def _tell(self, trial: TrialRecord, outcome: Outcome) -> None:
        self._told_outcomes.append(outcome)
        asked = self._trials.get(trial.number)
        if asked is None:
            return
        worst = worst_values(self._told_outcomes, self._objectives)
        told = tell(self._spec.search.sampler, trial.state, outcome, worst, constrained=True)
        for step, value in told.step_values.items():
            asked.report(value, step)
        for key, value in told.constraints.items():
            asked.set_constraint(key, value)
        self._study.tell(asked.number, told.values, told.state)


class SequenceSearch:
    """qmc: a scrambled Sobol sequence over all fields; those that do not hold are left unused."""

    def __init__(self, spec: SweepSpec, space: Space) -> None:
        self._spec = spec
        self._space = space
        self._domain = space.distributions()
        self._sampler = optuna.samplers.QMCSampler(
            seed=trial_seed(spec.seed, 0), scramble=True, warn_independent_sampling=False
        )
        self._study = optuna.create_study()
        self._asked = self._study.ask()
        self._points: list[dict[str, Any]] = []

    def suggest(self, number: int, position: int) -> dict[str, Any]:
        """The configuration of trial `number`: the sequence's point at `position`, from 0.

        A field that only a file knows of is random.
        """
        frozen = self._study.trials[self._asked.number]
        while len(self._points) <= position:
            self._points.append(self._sampler.sample_relative(self._study, frozen, self._domain))
        study = optuna.create_study(
            sampler=optuna.samplers.RandomSampler(seed=trial_seed(self._spec.seed, number))
        )
        study.enqueue_trial(self._points[position])
        return self._space.draw(study.ask())


class GridSearch:
    """Every combination of a space whose fields are all countable, each once, in a shuffled order.

    Raises:
        SpecError: a field is a range without a step, or a file draws the space.
    """

    def __init__(self, spec: SweepSpec, space: Space) -> None:
        if not isinstance(space, SpecSpace):
            raise SpecError(
                ["search.sampler: grid needs search_space, got space_file; write search_space"]
            )
        self._space = space
        domain = space.distributions()
        problems = [
            f"search_space: {path}: grid needs values that can be counted, got a range without "
            "step; give it step, or a list of values"
            for path, values in domain.items()
            if isinstance(values, FloatDistribution) and values.step is None
        ]
        if problems:
            raise SpecError(problems)
        self._values = {path: _grid_values(values) for path, values in domain.items()}
        self._size = math.prod(len(values) for values in self._values.values())
        # i -> start + i * stride (mod size) goes through a grid of any size once, and keeps none.
        source = random.Random(f"{spec.seed}/grid")
        self._start = source.randrange(self._size)
        strides = (source.randrange(1, self._size + 1) for _ in itertools.count())
        self._stride = next(stride for stride in strides if math.gcd(stride, self._size) == 1)

    def suggest(self, number: int, history: History) -> dict[str, Any] | None:
        """The first combination that the record does not hold yet; None where it holds all."""
        tried = {self._identity(trial.params) for trial, _ in history}
        for i in range(self._size):
            point = self._point((self._start + i * self._stride) % self._size)
            if self._identity(point) not in tried:
                return point
        return None

    def _identity(self, params: dict[str, Any]) -> tuple[tuple[str, Any], ...] | None:
        placed = self._space.place(params)
        return None if placed is None else tuple(placed.params.items())

    def _point(self, index: int) -> dict[str, Any]:
        params: dict[str, Any] = {}
        for path, values in self._values.items():
            index, position = divmod(index, len(values))
            params[path] = values[position]
        return self._space.configuration(params)


def _grid_values(domain: object) -> Sequence[Any]:
    if isinstance(domain, CategoricalDistribution):
        return domain.choices
    if isinstance(domain, IntDistribution):
        return range(domain.low, domain.high + 1, domain.step)
    assert isinstance(domain, FloatDistribution)
    assert domain.step is not None
    low, high, step = (Decimal(str(x)) for x in (domain.low, domain.high, domain.step))
    return [float(low + i * step) for i in range(int((high - low) / step) + 1)]


def _asked(number: int, params: dict[str, Any]) -> tuple[object, ...]:
    return "asked", number, tuple(params.items())
