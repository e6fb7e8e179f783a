from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from pydantic import ValidationError

from easyds_tune.spec.bounds import BoundSpec
from easyds_tune.spec.messages import validation_problems
from easyds_tune.spec.sweep import SweepSpec, set_path

Make = Callable[..., SweepSpec]


def test_one_bound_is_a_list_of_one_and_both_survive_a_dump(spec: Make) -> None:
    late = {"min": 0.1, "from_step": 10, "patience": 2, "hard": False}
    sweep = spec(bounds={"eval/loss": {"max": 2}, "eval/margin": [{"max": 9}, late]})
    assert sweep.bounds == {
        "eval/loss": (BoundSpec(max=2.0),),
        "eval/margin": (BoundSpec(max=9.0), BoundSpec.model_validate(late)),
    }
    for mode in ("python", "json"):
        assert SweepSpec.model_validate(sweep.model_dump(mode=mode)) == sweep


@pytest.mark.parametrize(
    ("path", "value", "line"),
    [
        ("bounds.eval/loss", {}, "bounds.eval/loss: must give min or max, got neither; add one, "
         "such as max: 0.2"),
        ("bounds.eval/loss", {"min": 2, "max": 1}, "bounds.eval/loss: min < max must hold, got "
         "min=2 and max=1; exchange them, or drop one"),
        ("bounds.eval/loss", [{"max": 1}, {"maxi": 1}],
         "bounds.eval/loss.1.maxi: unknown key; did you mean max?"),
        ("bounds.eval/loss", {"max": 1, "patience": 0},
         "bounds.eval/loss.patience: must be at least 1, got 0"),
        ("bounds.eval/loss", 3, "bounds.eval/loss: must be a bound such as {max: 0.2}, got 3"),
        ("bounds.eval/loss", [],
         "bounds: must give eval/loss a bound, got an empty list; remove it"),
    ],
)  # fmt: skip
def test_a_bound_that_bounds_nothing_is_refused_at_its_path(
    raw: dict[str, Any], path: str, value: Any, line: str
) -> None:
    set_path(raw, path, value)
    with pytest.raises(ValidationError) as caught:
        SweepSpec.model_validate(raw)
    assert line in validation_problems(caught.value, raw)
