"""The search space as Optuna sees it: the spec's own, or a define-by-run file.

A choice of the spec is searched by its position, so that its values may be anything.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple, Protocol

import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)

from easyds_tune.errors import SpecError
from easyds_tune.spec.conditions import contains, holds, is_same, ordered_paths
from easyds_tune.spec.search import ChoiceParam, FloatParam, Param
from easyds_tune.spec.space_file import draw, load_space
from easyds_tune.spec.sweep import SweepSpec, get_path


class Placed(NamedTuple):
    """A configuration as Optuna knows it: internal values and their distributions, by path."""

    params: dict[str, Any]
    distributions: dict[str, BaseDistribution]


class Space(Protocol):
    """What a sweep searches."""

    @property
    def has_conditions(self) -> bool:
        """Whether configurations differ in the fields they have."""

    def draw(self, trial: optuna.Trial) -> dict[str, Any]:
        """The configuration that an asked trial proposes, by dotted path."""

    def place(self, params: Mapping[str, Any]) -> Placed | None:
        """A configuration as Optuna knows it; None where it lies outside the space."""

    def complete(self, point: Mapping[str, Any]) -> dict[str, Any]:
        """A configuration from some of its values; the rest are the spec's own."""

    def outside(self, params: Mapping[str, Any]) -> list[str]:
        """The fields of a configuration whose value the space does not hold."""

    def distributions(self) -> dict[str, BaseDistribution]:
        """All fields that can be told without drawing."""


def open_space(spec: SweepSpec) -> Space:
    """The space of a sweep.

    Raises:
        SpecError: its define-by-run file cannot be loaded.
    """
    return FileSpace(spec) if spec.space_file else SpecSpace(spec)


def distribution(param: Param) -> BaseDistribution:
    """Optuna's distribution of a searched field; a choice is searched by its position."""
    if isinstance(param, ChoiceParam):
        return CategoricalDistribution(list(range(len(param.choice))))
    with warnings.catch_warnings():
        # Optuna lowers an upper end that is not on the grid, and says so at every turn.
        warnings.simplefilter("ignore", UserWarning)
        if isinstance(param, FloatParam):
            return FloatDistribution(param.low, param.high, log=param.log, step=param.step)
        return IntDistribution(param.low, param.high, log=param.log, step=param.step or 1)


class SpecSpace:
    """The `search_space` of a spec, with its conditions."""

    def __init__(self, spec: SweepSpec) -> None:
        raw = spec.model_dump()
        self._space = dict(spec.search_space)
        self._order = ordered_paths(self._space)
        self._distributions = {path: distribution(self._space[path]) for path in self._order}
        self._defaults = {path: get_path(raw, path) for path in self._space}
        self.has_conditions = any(param.when for param in self._space.values())

    def distributions(self) -> dict[str, BaseDistribution]:
        """All fields, conditional ones included, parents first."""
        return dict(self._distributions)

    def draw(self, trial: optuna.Trial) -> dict[str, Any]:
        """Draw the fields that hold, parents first."""
        drawn: dict[str, Any] = {}
        for path in self._order:
            if holds(self._space[path], drawn):
                drawn[path] = self._value(path, _suggest(trial, path, self._distributions[path]))
        return self._in_order(drawn)

    def place(self, params: Mapping[str, Any]) -> Placed | None:
        """A configuration with choices as positions; fields that do not hold are left out."""
        placed: dict[str, Any] = {}
        active: dict[str, Any] = {}
        for path in self._order:
            if not holds(self._space[path], active):
                continue
            position = self._position(path, params[path]) if path in params else None
            if position is None:
                return None
            placed[path], active[path] = position, params[path]
        return Placed(placed, {path: self._distributions[path] for path in placed})

    def complete(self, point: Mapping[str, Any]) -> dict[str, Any]:
        """Fill in the spec's own values where a field holds and the point has none."""
        found: dict[str, Any] = {}
        for path in self._order:
            if holds(self._space[path], found):
                found[path] = point.get(path, self._defaults[path])
        return self._in_order(found)

    def outside(self, params: Mapping[str, Any]) -> list[str]:
        """The fields whose value the space does not hold; unknown ones count."""
        return [
            path
            for path, value in params.items()
            if path not in self._space or self._position(path, value) is None
        ]

    def configuration(self, params: Mapping[str, Any]) -> dict[str, Any]:
        """The configuration of a value or position for every field, without those that fail."""
        found: dict[str, Any] = {}
        for path in self._order:
            if holds(self._space[path], found):
                found[path] = self._value(path, params[path])
        return self._in_order(found)

    def _value(self, path: str, drawn: Any) -> Any:
        param = self._space[path]
        return param.choice[drawn] if isinstance(param, ChoiceParam) else drawn

    def _position(self, path: str, value: Any) -> Any:
        param = self._space[path]
        if isinstance(param, ChoiceParam):
            return next((i for i, one in enumerate(param.choice) if is_same(one, value)), None)
        return value if contains(param, value) else None

    def _in_order(self, params: dict[str, Any]) -> dict[str, Any]:
        return {path: params[path] for path in self._space if path in params}


class FileSpace:
    """A Python file with ``def search_space(trial)`` that returns a value for each dotted path.

    It must give the same for the same draws: a trial of the record is understood by running it.
    """

    def __init__(self, spec: SweepSpec) -> None:
        assert spec.space_file is not None
        self._path = spec.space_file
        load_space(self._path)
        self._defaults = _leaves(spec.model_dump())
        self.has_conditions = True  # nothing says that it always asks for the same fields

    def distributions(self) -> dict[str, BaseDistribution]:
        """The fields that the spec's own configuration has."""
        trial = self._answer(self._defaults)
        return dict(trial.distributions) if trial is not None else {}

    def draw(self, trial: optuna.Trial) -> dict[str, Any]:
        """Run the file's function with a trial of Optuna's.

        Raises:
            SpecError: the function raises, or breaks a rule.
        """
        return draw(self._path, trial)

    def place(self, params: Mapping[str, Any]) -> Placed | None:
        """Run the function with values that are known, and see whether it takes them."""
        trial = self._answer(params)
        if trial is None:
            return None
        for path, value in trial.params.items():
            if not in_distribution(trial.distributions[path], value):
                return None
        return Placed(dict(trial.params), dict(trial.distributions))

    def complete(self, point: Mapping[str, Any]) -> dict[str, Any]:
        """Run the function with a point's values, and the spec's own where it has none."""
        with _quiet():
            return draw(self._path, optuna.trial.FixedTrial({**self._defaults, **point}))

    def outside(self, params: Mapping[str, Any]) -> list[str]:
        """The fields whose value the function does not take; those it never asks for count."""
        trial = self._answer({**self._defaults, **params})
        if trial is None:
            return list(params)
        return [
            path
            for path, value in params.items()
            if path not in trial.params or not in_distribution(trial.distributions[path], value)
        ]

    def _answer(self, params: Mapping[str, Any]) -> optuna.trial.FixedTrial | None:
        """Run the function with fixed values; None where it asks for one that is missing."""
        trial = optuna.trial.FixedTrial(dict(params))
        try:
            with _quiet():
                draw(self._path, trial)
        except SpecError:
            return None
        return trial


def in_distribution(distribution: BaseDistribution, value: Any) -> bool:
    """Whether a search could propose this value: it is in range, and on the grid if there is one.

    The tolerance is Optuna's own.
    """
    if isinstance(distribution, CategoricalDistribution):
        return any(is_same(choice, value) for choice in distribution.choices)
    assert isinstance(distribution, FloatDistribution | IntDistribution)
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return False
    if isinstance(distribution, IntDistribution) and value != int(value):
        return False
    step = distribution.step
    steps = (value - distribution.low) / step if step and not distribution.log else 0.0
    return distribution.low <= value <= distribution.high and abs(steps - round(steps)) < 1e-8


def _suggest(trial: optuna.Trial, path: str, domain: BaseDistribution) -> Any:
    if isinstance(domain, CategoricalDistribution):
        return trial.suggest_categorical(path, domain.choices)
    if isinstance(domain, FloatDistribution):
        return trial.suggest_float(path, domain.low, domain.high, log=domain.log, step=domain.step)
    assert isinstance(domain, IntDistribution)
    return trial.suggest_int(path, domain.low, domain.high, log=domain.log, step=domain.step)


@contextmanager
def _quiet() -> Iterator[None]:
    """Optuna warns of a fixed value outside its range; here that is an answer."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _leaves(raw: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in raw.items():
        if isinstance(value, dict):
            found.update(_leaves(value, f"{prefix}{key}."))
        else:
            found[f"{prefix}{key}"] = value
    return found
