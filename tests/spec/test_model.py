from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from easyds_tune.spec.model import ModelSpec


@pytest.mark.parametrize("targets", ["all-linear", ["q_proj"], r".*\.(q|v)_proj"])
def test_targets_are_a_list_or_a_regular_expression(targets: Any) -> None:
    spec = ModelSpec(model_name_or_path="m", lora_target_modules=targets)
    assert spec.lora_target_modules == targets


@pytest.mark.parametrize("targets", ["", [], ["q_proj", ""], "(", 3])
def test_targets_that_name_nothing_are_refused(targets: Any) -> None:
    with pytest.raises(ValidationError):
        ModelSpec(model_name_or_path="m", lora_target_modules=targets)


def test_no_rank_is_full_fine_tuning() -> None:
    assert ModelSpec(model_name_or_path="m", lora_r=None).lora_r is None
    with pytest.raises(ValidationError):
        ModelSpec(model_name_or_path="m", lora_r=0)
