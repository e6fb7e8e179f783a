from __future__ import annotations

from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from easyds_tune.spec.search import (
    ChoiceParam,
    FloatParam,
    IntParam,
    ObjectiveSpec,
    Param,
    SchedulerSpec,
    SearchSpec,
    param_kind,
)


@pytest.mark.parametrize(
    ("written", "kind"),
    [
        ({"low": 0.1, "high": 1}, FloatParam),
        ({"low": 1, "high": 8}, IntParam),
        ({"low": 1, "high": 8, "type": "float"}, FloatParam),
        ({"choice": [1, "a", None]}, ChoiceParam),
        ([[1], [2]], ChoiceParam),
    ],
)
def test_the_kind_of_a_param_shows_in_its_bounds(written: Any, kind: type) -> None:
    assert type(TypeAdapter(Param).validate_python(param_kind(written))) is kind


def test_whole_bounds_of_a_real_field_search_the_numbers_between_too() -> None:
    written = {"low": 0, "high": 1}
    assert param_kind(written, takes_fractions=True) == {"type": "float", "low": 0, "high": 1}
    named = {"type": "int", "low": 0, "high": 1}
    assert param_kind(named, takes_fractions=True) == named


@pytest.mark.parametrize(
    ("written", "problem"),
    [
        ({"low": 2, "high": 1}, "low < high must hold, got low=2 and high=1"),
        ({"low": 0, "high": 1, "log": True}, "low must be positive where log is true, got low=0"),
        ({"low": 1, "high": 9, "log": True, "step": 2}, "step and log exclude each other"),
        ({"low": 1, "high": 3, "step": 5}, "step must fit between low and high, got step=5"),
        ({"low": 1, "high": 3, "step": 0}, "greater than or equal to 1"),
        ({"low": 0.0, "high": float("inf")}, "finite"),
        ({"low": -1e308, "high": 1e308}, "high - low must be finite"),
        ({"low": 0.0, "high": 1.0, "step": 1e-300}, "step must leave at most 2147483647 values"),
        ({"low": 1, "high": 10**90}, "less than or equal to 2147483647"),
        ({"choice": []}, "at least 1"),
        ({"choice": [1, 1]}, "choice must not repeat a value"),
    ],
)
def test_a_param_that_cannot_be_searched_is_refused(written: Any, problem: str) -> None:
    with pytest.raises(ValidationError, match=problem):
        TypeAdapter(Param).validate_python(param_kind(written))


def test_end_points_are_what_a_spec_is_tried_with() -> None:
    assert FloatParam(low=0.5, high=2).end_points() == [0.5, 2]
    assert IntParam(type="int", low=1, high=8).end_points() == [1, 8]
    assert ChoiceParam(choice=["a", None, "b"]).end_points() == ["a", None, "b"]


@pytest.mark.parametrize("fields", [{"num_trials": 0}, {"num_trials": 10**9}, {"sampler": "hill"}])
def test_a_search_that_cannot_run_is_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        SearchSpec.model_validate(fields)


@pytest.mark.parametrize("fields", [{"grace_period": 0}, {"reduction_factor": 1.5}, {"type": "pb"}])
def test_a_scheduler_that_cannot_run_is_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        SchedulerSpec.model_validate(fields)


def test_a_loss_must_go_down() -> None:
    with pytest.raises(ValidationError, match="mode must be min for eval/loss, got max"):
        ObjectiveSpec(metric="eval/loss", mode="max")


@pytest.mark.parametrize(
    ("metric", "mode"),
    [("eval/reward", "max"), ("eval/accuracy", "max"), ("eval/distinct_2", "max"),
     ("eval/loss", "min"), ("eval/kl", "min"), ("eval/kl_sequence", "min")],
)  # fmt: skip
def test_the_mode_follows_the_metric_unless_it_is_written(metric: str, mode: str) -> None:
    assert ObjectiveSpec(metric=metric).mode == mode
    assert ObjectiveSpec(metric="eval/kl", mode="max").mode == "max"


def test_no_length_of_replies_is_better_by_itself() -> None:
    with pytest.raises(ValidationError, match="must say whether longer replies are better"):
        ObjectiveSpec(metric="eval/length")
    assert ObjectiveSpec(metric="eval/length", mode="min").mode == "min"
