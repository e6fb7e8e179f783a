"""The 95 % interval of a reported metric. Here, since model cards and `best.json` both show it."""

from __future__ import annotations

SHARES = ("accuracy", "distinct_2", "finished")
"""How the names of metrics end that lie between 0 and 1."""
STANDARD_ERRORS = 1.96
"""Half of a normal 95 % interval."""


def interval_95(metric: str, value: float, stderr: float) -> tuple[float, float]:
    """`value` ± 1.96 standard errors; a share's interval ends at 0 and at 1."""
    low, high = value - STANDARD_ERRORS * stderr, value + STANDARD_ERRORS * stderr
    return (max(low, 0.0), min(high, 1.0)) if metric.endswith(SHARES) else (low, high)
