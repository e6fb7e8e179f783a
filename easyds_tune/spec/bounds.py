"""Bounds on metrics: what a trial must keep to, from which step, and with how much patience."""

from __future__ import annotations

from pydantic import Field, model_validator

from easyds_tune.spec.base import LARGEST, Spec


class BoundSpec(Spec):
    """One bound on one metric; at least one of `min` and `max` is given."""

    min: float | None = None
    """Smallest value allowed; null: none. A smallest KL says that a trial has to learn."""
    max: float | None = None
    """Largest value allowed; null: none."""
    from_step: int = Field(0, ge=0, le=LARGEST)
    """The first step whose report is held against the bound while a trial runs."""
    patience: int = Field(1, ge=1, le=LARGEST)
    """Reports in a row that must break the bound before a trial counts as breaking it."""
    hard: bool = True
    """true stops the trial (BOUNDED); false calls it infeasible for as long as it is outside."""

    @model_validator(mode="after")
    def _is_a_bound(self) -> BoundSpec:
        if self.min is None and self.max is None:
            raise ValueError("must give min or max, got neither; add one, such as max: 0.2")
        if self.min is not None and self.max is not None and not self.min < self.max:
            raise ValueError(
                f"min < max must hold, got min={self.min:g} and max={self.max:g}; "
                "exchange them, or drop one"
            )
        return self
