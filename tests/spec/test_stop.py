from __future__ import annotations

import pytest
from pydantic import ValidationError

from easyds_tune.spec.stop import StopSpec


def test_nothing_but_the_number_of_trials_ends_a_sweep_unless_it_is_written() -> None:
    limits = StopSpec().model_dump()
    assert limits.pop("identical_failures") == 3
    assert set(limits.values()) == {None}


@pytest.mark.parametrize(
    "fields", [{"tokens": 0}, {"gpu_hours": 0}, {"hours": -1}, {"no_improvement": 0}]
)
def test_a_limit_that_lets_nothing_begin_is_refused(fields: dict[str, float]) -> None:
    with pytest.raises(ValidationError):
        StopSpec.model_validate(fields)
