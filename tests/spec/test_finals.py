from __future__ import annotations

from collections.abc import Callable

import pytest
from pydantic import ValidationError

from easyds_tune.spec.finals import FinalsSpec
from easyds_tune.spec.sweep import SweepSpec

Make = Callable[..., SweepSpec]


def test_finals_are_held_unless_they_are_switched_off(spec: Make) -> None:
    assert spec().finals == FinalsSpec(top=5, prompts=None, num_prompts=None, seeds=0)
    off = spec(finals=None)
    assert off.finals is None
    assert SweepSpec.model_validate(off.model_dump()) == off


@pytest.mark.parametrize("fields", [{"top": 0}, {"num_prompts": 3}, {"seeds": -1}])
def test_finals_that_cannot_be_held_are_refused(fields: dict[str, int]) -> None:
    with pytest.raises(ValidationError):
        FinalsSpec.model_validate(fields)
