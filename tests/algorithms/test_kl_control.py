"""The controllers of the KL coefficient, by hand and on a simulated policy."""

from __future__ import annotations

import json
import math

import pytest

from easyds_tune.algorithms.kl_control import LookAhead, Ziegler, controller_of
from easyds_tune.spec.algorithm import PPOSpec


def settings(**fields: object) -> PPOSpec:
    return PPOSpec(type="ppo", reward={"model_name_or_path": "x"}, **fields)


def look_ahead(coef: float = 1.0, target: float = 0.04, horizon: float = 2.0) -> LookAhead:
    """Distance 0.2 wanted; the coefficient between a hundredth and a hundred."""
    return LookAhead(coef, target, horizon, low=0.01, high=100.0)


# ---- which one ------------------------------------------------------------------------------


def test_a_trial_gets_the_controller_it_asks_for_with_a_horizon_of_its_budget() -> None:
    assert controller_of(settings(kl_controller="fixed"), 500) == Ziegler(0.05, 0.1, math.inf)
    assert controller_of(settings(kl_controller="ziegler"), 500) == Ziegler(0.05, 0.1, 10)
    assert controller_of(settings(kl_controller="ziegler"), 3).horizon == 1
    found = controller_of(settings(kl_coef_limit=10), 60)
    assert found == LookAhead(0.05, 0.1, 4, low=pytest.approx(0.005), high=pytest.approx(0.5))
    assert [controller_of(settings(), steps).horizon for steps in (3, 60, 5000)] == [2, 4, 20]
    assert controller_of(settings(kl_horizon=7.0), 500).horizon == 7


# ---- looking ahead ----------------------------------------------------------------------------


def test_the_first_rollout_shows_no_movement_and_moves_nothing() -> None:
    controller = look_ahead()
    controller.update(0.0)
    assert controller.coef == 1.0


def test_a_kl_that_rests_off_its_target_moves_the_coefficient_by_two_parts_in_a_horizon() -> None:
    controller = look_ahead(horizon=4.0)
    for _ in range(2):
        controller.update(0.12)  # three times its target
    assert controller.coef == pytest.approx(3 ** (2 / 4))
    controller.update(0.01)  # heading for less than nothing: cut off at a quarter
    assert controller.coef == pytest.approx(3 ** (2 / 4) / 4 ** (2 / 4))
    controller.update(0.01)  # and resting there
    assert controller.coef == pytest.approx(3 ** (2 / 4) / 4 ** (2 / 4) / 4 ** (2 / 4))


def test_a_kl_on_its_way_is_judged_by_where_it_is_heading() -> None:
    controller = look_ahead()
    for distance in (0.0, 0.01):
        controller.update(distance**2)  # in four horizons 0.01 + 8 × 0.01 = 0.09 of 0.2: too slow
    assert controller.coef == pytest.approx(1 / 4)
    controller.update(0.05**2)  # 0.05 + 8 × 0.04 = 0.37: it will get there by itself
    assert controller.coef == pytest.approx(1 / 4)
    controller.update(0.12**2)  # heading for 0.12 + 2 × 0.07 = 0.26: too far, though not there yet
    assert controller.coef == pytest.approx(1 / 4 * (0.26 / 0.2) ** 2)


@pytest.mark.parametrize(("kl", "limit"), [(9.0, 100.0), (0.0, 0.01)])
def test_the_coefficient_stays_within_its_limits_and_leaves_them_at_once(
    kl: float, limit: float
) -> None:
    controller = look_ahead()
    for _ in range(50):
        controller.update(kl)
    assert controller.coef == limit
    controller.update(0.04)
    assert controller.coef != limit, "nothing has wound up"


def test_looking_ahead_continues_from_its_state_through_json() -> None:
    one, other = look_ahead(), look_ahead(coef=99.0)
    one.update(0.01)
    other.restore(json.loads(json.dumps(one.state())))
    one.update(0.02)
    other.update(0.02)
    assert other == one


def settled(controller: LookAhead | Ziegler, *, weight: float, speed: float) -> list[float]:
    """KL over target of 60 rollouts of a simulated policy.

    Its distance nears weight / coefficient by at most `speed` a rollout, as Adam's steps do.
    """
    distance, found = 0.0, []
    for _ in range(60):
        controller.update(distance**2)
        found.append(distance**2 / controller.target)
        pull = weight / controller.coef - distance
        distance += max(-speed, min(speed, pull / 5))
    return found


@pytest.mark.parametrize("weight", [0.003, 0.03, 0.3])
@pytest.mark.parametrize("speed", [0.03, 0.1])
def test_a_simulated_policy_meets_its_target_from_a_coefficient_ten_times_off(
    weight: float, speed: float
) -> None:
    ratios = settled(LookAhead(0.15, 0.04, 4, 0.0015, 15), weight=weight, speed=speed)
    assert 0.7 < sum(ratios[-20:]) / 20 < 1.3
    assert max(ratios[-20:]) < 2


def test_the_rule_of_ziegler_et_al_swings_where_looking_ahead_does_not() -> None:
    """From a coefficient ten times too low; the horizons are the defaults for 60 rollouts."""
    swings = settled(Ziegler(0.15, 0.04, 1.2), weight=0.3, speed=0.03)[-20:]
    calm = settled(LookAhead(0.15, 0.04, 4, 0.0015, 15), weight=0.3, speed=0.03)[-20:]
    assert max(swings) - min(swings) > 2 * (max(calm) - min(calm))


# ---- Ziegler et al. -------------------------------------------------------------------------


def test_the_coefficient_follows_the_error_of_the_measured_kl() -> None:
    controller = Ziegler(coef=0.1, target=0.2, horizon=4.0)
    controller.update(0.22)  # 10 % over: 1 + 0.1 / 4
    assert controller.coef == pytest.approx(0.1025)
    controller.update(0.19)  # 5 % under: 1 - 0.05 / 4
    assert controller.coef == pytest.approx(0.10121875)
    controller.update(0.2)
    assert controller.coef == pytest.approx(0.10121875)


@pytest.mark.parametrize(("kl", "factor"), [(50.0, 1.05), (0.0, 0.95), (-3.0, 0.95)])
def test_an_error_is_cut_off_at_a_fifth(kl: float, factor: float) -> None:
    controller = Ziegler(coef=1.0, target=0.2, horizon=4.0)
    controller.update(kl)  # 1 ± 0.2 / 4
    assert controller.coef == pytest.approx(factor)


def test_a_horizon_is_the_steps_in_which_it_moves_by_about_a_fifth() -> None:
    controller = Ziegler(coef=1.0, target=0.2, horizon=100.0)
    for _ in range(100):
        controller.update(9.0)
    assert controller.coef == pytest.approx(math.exp(0.2), rel=1e-3)


def test_the_shortest_horizon_keeps_the_coefficient_above_zero() -> None:
    controller = Ziegler(coef=1.0, target=0.2, horizon=1.0)
    for _ in range(200):
        controller.update(0.0)
    assert 0 < controller.coef < 1e-10


def test_an_infinite_horizon_never_moves_it() -> None:
    controller = Ziegler(coef=0.07, target=0.2, horizon=math.inf)
    for kl in (0.0, 9.0, 0.3):
        controller.update(kl)
    assert controller.coef == 0.07


def test_a_controller_goes_on_from_its_state_through_json() -> None:
    one = Ziegler(coef=0.05, target=0.1, horizon=3.0)
    one.update(0.107)
    other = Ziegler(coef=99.0, target=0.1, horizon=3.0)
    other.restore(json.loads(json.dumps(one.state())))
    one.update(0.093)
    other.update(0.093)
    assert other.coef == one.coef
