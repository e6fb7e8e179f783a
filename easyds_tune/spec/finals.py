"""What follows the search: a round of finals, on prompts that no decision has seen."""

from __future__ import annotations

from pydantic import Field

from easyds_tune.spec.base import LARGEST, Spec
from easyds_tune.spec.data import DataSource


class FinalsSpec(Spec):
    """The best feasible checkpoints are judged anew: the number that `best` reports."""

    top: int = Field(5, ge=1, le=1000)
    """Checkpoints that a round of finals takes, of any trial and step; the default's best comes on
    top. Further rounds follow, two at most, where all others break a bound."""
    prompts: DataSource | None = None
    """Fresh prompts; null takes those of judge.prompts that follow the judge's own. Where held-out
    records are the measure (a reward model, eval/loss), half of them is kept for the finals."""
    num_prompts: int | None = Field(None, ge=4, le=LARGEST)
    """How many of them, half to pick the winner and half to report it; null is twice the judge's
    number (16 at least), or as many as there are."""
    seeds: int = Field(0, ge=0, le=100)
    """New seeds that each finalist's trial is trained on again; 0 retrains none."""
