from __future__ import annotations

import pytest

from easyds_tune.journal.intervals import interval_95


def test_an_interval_is_the_value_and_twice_nearly_its_error() -> None:
    assert interval_95("eval/reward", 1.0, 0.5) == pytest.approx((0.02, 1.98))


@pytest.mark.parametrize("metric", ["eval/accuracy", "eval/distinct_2", "eval/finished"])
def test_an_interval_of_a_share_stays_between_0_and_1(metric: str) -> None:
    assert interval_95(metric, 0.9, 0.1) == pytest.approx((0.704, 1.0))
    assert interval_95(metric, 0.1, 0.1) == pytest.approx((0.0, 0.296))
