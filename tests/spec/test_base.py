from __future__ import annotations

import pytest
from pydantic import ValidationError

from easyds_tune.spec.model import ModelSpec
from easyds_tune.spec.search import SearchSpec
from easyds_tune.spec.training import TrainingSpec


def test_a_spec_cannot_be_changed_after_it_was_checked() -> None:
    spec = SearchSpec()
    with pytest.raises(ValidationError, match="frozen"):
        spec.num_trials = 3  # type: ignore[misc]


@pytest.mark.parametrize("field", ["learning_rate", "max_steps", "num_train_epochs"])
def test_a_switch_is_no_number(field: str) -> None:
    with pytest.raises(ValidationError, match=field):
        TrainingSpec.model_validate({"max_steps": 1, field: True})


def test_a_switch_stays_a_switch() -> None:
    spec = TrainingSpec.model_validate({"max_steps": 1, "gradient_checkpointing": True})
    assert spec.gradient_checkpointing is True


def test_every_field_explains_itself() -> None:
    assert TrainingSpec.model_fields["weight_decay"].description == (
        "AdamW's decoupled weight decay."
    )


@pytest.mark.parametrize(("name", "why"), [("a\0", "zero"), ("x" * 256, "255"), ("é" * 128, "255")])
def test_what_no_file_can_be_called_is_no_file_name(name: str, why: str) -> None:
    with pytest.raises(ValidationError, match=why):
        ModelSpec(model_name_or_path=name)


def test_a_long_path_of_short_parts_is_a_file_name() -> None:
    name = "/".join(["x" * 255] * 3)
    assert ModelSpec(model_name_or_path=name).model_name_or_path == name
