from __future__ import annotations

import math

import pytest

from easyds_tune.journal.bounds import LARGEST_MARGIN, Bound, margins, violation

KL = Bound("eval/kl", min=0.05, max=0.2)


def test_a_margin_is_signed_and_in_widths_of_the_bound() -> None:
    assert KL.margins({"eval/kl": 0.11}) == {
        "eval/kl>=0.05": pytest.approx(-0.4),
        "eval/kl<=0.2": pytest.approx(-0.6),
    }
    assert KL.excess({"eval/kl": 0.23}) == pytest.approx(0.2)
    assert KL.excess({"eval/kl": 0.02}) == pytest.approx(0.2)


def test_the_width_of_a_single_limit_is_its_size_or_one() -> None:
    assert Bound("train/grad_norm", max=4.0).excess({"train/grad_norm": 5.0}) == 0.25
    assert Bound("eval/reward", min=0.0).excess({"eval/reward": -0.5}) == 0.5
    assert Bound("eval/reward", min=-2.0).excess({"eval/reward": -3.0}) == 0.5


def test_the_limit_itself_is_inside() -> None:
    assert violation([KL], {"eval/kl": 0.2}) == 0
    assert violation([KL], {"eval/kl": 0.05}) == 0


@pytest.mark.parametrize("value", [None, math.nan, math.inf, -math.inf])
def test_no_number_is_outside_of_every_limit(value: float | None) -> None:
    metrics = {} if value is None else {"eval/kl": value}
    assert set(KL.margins(metrics).values()) == {LARGEST_MARGIN}
    assert violation([KL], metrics) == LARGEST_MARGIN


def test_a_margin_is_never_more_than_that_of_no_number() -> None:
    assert Bound("eval/kl", max=0.001).excess({"eval/kl": 50.0}) == LARGEST_MARGIN


def test_violations_add_up_over_broken_bounds_only() -> None:
    bounds = [KL, Bound("eval/length", max=100.0), Bound("eval/accuracy", min=0.5)]
    metrics = {"eval/kl": 0.23, "eval/length": 150.0, "eval/accuracy": 0.9}
    assert violation(bounds, metrics) == pytest.approx(0.7)
    assert set(margins(bounds, metrics)) == {
        "eval/kl>=0.05", "eval/kl<=0.2", "eval/length<=100", "eval/accuracy>=0.5",
    }  # fmt: skip


def test_a_bound_applies_from_its_step_unless_all_are_asked_for() -> None:
    later = Bound("eval/kl", min=0.05, from_step=20)
    assert violation([later], {"eval/kl": 0.0}, step=10) == 0
    assert violation([later], {"eval/kl": 0.0}, step=20) == 1
    assert violation([later], {"eval/kl": 0.0}) == 1


def test_a_bound_reads_as_a_person_says_it() -> None:
    assert str(KL) == "eval/kl within 0.05 to 0.2"
    assert str(Bound("eval/kl", max=0.2)) == "eval/kl at most 0.2"
    assert str(Bound("eval/kl", min=0.05)) == "eval/kl at least 0.05"
