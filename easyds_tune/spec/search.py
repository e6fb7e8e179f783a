"""What is searched and how: the space, the sampler, the scheduler and the objective."""

from __future__ import annotations

import math
from collections import Counter
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from easyds_tune.spec.base import LARGEST, FileName, Spec
from easyds_tune.spec.yaml_text import cut

LOWER_IS_BETTER = ("eval/loss", "eval/kl", "time/", "train/num_tokens")
"""What the metrics begin with that are better when lower."""


class _Searched(Spec):
    """What all kinds of parameters share."""

    when: dict[str, Any] | None = Field(None, min_length=1)
    """Searched only while other searched fields have these values: {field: value or values}."""


class FloatParam(_Searched):
    """A real number between two bounds."""

    type: Literal["float"] = "float"
    """Selects this kind."""
    low: float
    """Smallest value, included."""
    high: float
    """Largest value, included."""
    log: bool = False
    """Search the logarithm: for scales such as a learning rate."""
    step: float | None = Field(None, gt=0)
    """Distance between allowed values; not together with `log`."""

    @model_validator(mode="after")
    def _is_a_range(self) -> FloatParam:
        _check_range(self.low, self.high, self.log, self.step)
        return self

    def end_points(self) -> list[Any]:
        """Values to try on the spec before anything starts."""
        return [self.low, self.high]


class IntParam(_Searched):
    """A whole number between two bounds."""

    type: Literal["int"]
    """Selects this kind."""
    low: int = Field(ge=-LARGEST, le=LARGEST)
    """Smallest value, included."""
    high: int = Field(ge=-LARGEST, le=LARGEST)
    """Largest value, included."""
    log: bool = False
    """Search the logarithm: for scales such as a batch size."""
    step: int | None = Field(None, ge=1)
    """Distance between allowed values; not together with `log`."""

    @model_validator(mode="after")
    def _is_a_range(self) -> IntParam:
        _check_range(self.low, self.high, self.log, self.step)
        return self

    def end_points(self) -> list[Any]:
        """Values to try on the spec before anything starts."""
        return [self.low, self.high]


class ChoiceParam(_Searched):
    """One of several values, in no order."""

    type: Literal["choice"] = "choice"
    """Selects this kind."""
    choice: list[Any] = Field(min_length=1, max_length=1000)
    """The values; each must be one that the field accepts."""

    @field_validator("choice")
    @classmethod
    def _no_twins(cls, values: list[Any]) -> list[Any]:
        written, times = Counter(map(repr, values)).most_common(1)[0]
        if times > 1:
            raise ValueError(
                f"choice must not repeat a value, got {cut(written)} twice; remove one"
            )
        return values

    def end_points(self) -> list[Any]:
        """Values to try on the spec before anything starts."""
        return list(self.choice)


def _check_range(low: float, high: float, log: bool, step: float | None) -> None:
    if not low < high:
        raise ValueError(f"low < high must hold, got low={low} and high={high}")
    if not math.isfinite(high - low):
        raise ValueError(f"high - low must be finite, got low={low} and high={high}")
    if log and low <= 0:
        raise ValueError(f"low must be positive where log is true, got low={low}")
    if log and step is not None:
        raise ValueError("step and log exclude each other; drop one of them")
    if step is not None and step > high - low:
        raise ValueError(f"step must fit between low and high, got step={step}")
    if step is not None and (high - low) / step > LARGEST:
        raise ValueError(f"step must leave at most {LARGEST} values, got step={step}")


Param = Annotated[FloatParam | IntParam | ChoiceParam, Field(discriminator="type")]


def param_kind(value: object, *, takes_fractions: bool = False) -> object:
    """Fill in `type`: a list or `choice:` is a choice, two whole bounds are an int, else float.

    takes_fractions: the field is a real number; whole bounds then search the numbers between too.
    """
    if isinstance(value, list):
        return {"type": "choice", "choice": value}
    if isinstance(value, dict) and "type" not in value:
        if "choice" in value:
            return {"type": "choice", **value}
        whole = all(type(value.get(key)) is int for key in ("low", "high"))
        return {"type": "int" if whole and not takes_fractions else "float", **value}
    return value


class SearchSpec(Spec):
    """How many trials, and what proposes them."""

    num_trials: int = Field(16, ge=1, le=1_000_000)
    """Trials in total, the default configuration (trial 0) included."""
    sampler: Literal["tpe", "gp", "cmaes", "qmc", "random", "grid", "nsga2"] = "tpe"
    """`tpe`, `gp`, `cmaes` and `nsga2` learn from the trials so far; `qmc` and `random` spread out;
    `grid` goes through every combination."""
    startup_trials: int = Field(5, ge=1, le=LARGEST)
    """Random trials before `tpe`, `gp` or `cmaes` starts to learn."""
    points: tuple[dict[str, Any], ...] = Field((), max_length=1000)
    """Configurations to try right after trial 0: {field: value}; a missing one is the default's."""
    points_from: FileName | None = None
    """An earlier sweep's name or folder, whose best feasible configurations are tried early."""
    num_points_from: int = Field(3, ge=1, le=1000)
    """How many of them."""


class SchedulerSpec(Spec):
    """What stops trials early. Rungs are in steps."""

    type: Literal["auto", "asha", "asha_stop", "halving", "median", "none"] = "auto"
    """`asha` lets a trial wait at each rung until it is among the best; `asha_stop` stops it there
    and then; `halving` waits for all of a rung; `median` stops what is worse than the middle one;
    `none` lets every trial run to its end. `auto` is asha, but none for several
    objectives."""
    grace_period: int | None = Field(None, ge=1, le=LARGEST)
    """The first rung, in steps; null is one rung, at 1 / reduction_factor of the budget."""
    reduction_factor: float = Field(3, ge=2)
    """At each rung the best 1 / reduction_factor go on; rungs grow by the same factor."""


class ObjectiveSpec(Spec):
    """What makes one trial better than another."""

    metric: str = Field("eval/reward", min_length=1)
    """A metric the algorithm reports."""
    mode: Literal["max", "min"] = "max"
    """Whether more or less of it is better; unless written, less of a loss or KL, else more."""

    @model_validator(mode="before")
    @classmethod
    def _mode_of_the_metric(cls, raw: Any) -> Any:
        if not isinstance(raw, dict) or "mode" in raw:
            return raw
        metric = raw.get("metric")
        if metric == "eval/length":
            raise ValueError("must say whether longer replies are better; set mode: max or min")
        lower = isinstance(metric, str) and metric.startswith(LOWER_IS_BETTER)
        return {**raw, "mode": "min"} if lower else raw

    @model_validator(mode="after")
    def _losses_go_down(self) -> ObjectiveSpec:
        if self.mode == "max" and self.metric == "eval/loss":
            raise ValueError(
                "mode must be min for eval/loss, got max: a loss is better when lower; "
                "set objective.mode: min"
            )
        return self
