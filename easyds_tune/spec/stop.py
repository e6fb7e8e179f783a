"""When a sweep is over, besides its number of trials."""

from __future__ import annotations

from pydantic import Field

from easyds_tune.spec.base import LARGEST, Spec


class StopSpec(Spec):
    """Limits of the search; the first one that is met ends it, and the finals follow."""

    tokens: int | None = Field(None, ge=1, le=10**18)
    """Tokens trained on by all trials together; null: no limit."""
    gpu_hours: float | None = Field(None, gt=0)
    """Hours slots were busy, times the GPUs of a slot (1 where it has none); null: no limit."""
    hours: float | None = Field(None, gt=0)
    """Hours since the sweep began; null: no limit."""
    no_improvement: int | None = Field(None, ge=1, le=LARGEST)
    """Ends the search once so many trials in a row were no better than the best; null: never."""
    identical_failures: int | None = Field(3, ge=2, le=LARGEST)
    """Ends the search once so many trials in a row failed of the same cause; null: never."""
