"""Rollouts hold whole mini-batches and whole groups, and a refusal names sizes that do."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from easyds_tune.spec.check import spec_problems
from easyds_tune.spec.sweep import SweepSpec

Make = Callable[..., SweepSpec]
ROLLOUT = "algorithm.rollout_batch_size"
GROUP = "algorithm.num_generations"
MICRO = "training.per_device_train_batch_size"
ACCUMULATION = "training.gradient_accumulation_steps"
MULTIPLE_OF_BATCH = (
    "must be a multiple of the effective batch "
    "(per_device_train_batch_size × gradient_accumulation_steps)"
)
PARAMS = st.one_of(
    st.lists(st.integers(1, 128), min_size=1, max_size=4, unique=True),
    st.tuples(st.integers(1, 64), st.integers(1, 64)).map(
        lambda ends: {"low": ends[0], "high": ends[0] + ends[1]}
    ),
)
FUZZ = settings(
    max_examples=200,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        (
            {ROLLOUT: 60},
            f"{ROLLOUT}: {MULTIPLE_OF_BATCH}, got 60 and 8 × 1; set rollout_batch_size: 64",
        ),
        (
            {ACCUMULATION: 3},
            f"{ROLLOUT}: {MULTIPLE_OF_BATCH}, got 64 and 8 × 3; set rollout_batch_size: 72",
        ),
        # Fewer replies than one mini-batch are no mini-batch.
        (
            {MICRO: 128},
            f"{ROLLOUT}: {MULTIPLE_OF_BATCH}, got 64 and 128 × 1; set rollout_batch_size: 128",
        ),
        (
            {"algorithm.num_generations": 5},
            "algorithm.rollout_batch_size: must be a multiple of num_generations, got 64 and 5; "
            "set rollout_batch_size: 80",  # of 8, too
        ),
        (
            {"algorithm.advantage_estimator": "rloo"},
            "algorithm.num_generations: must be at least 2 for rloo, which compares replies to one "
            "prompt, got 1; set 4",
        ),
    ],
)
def test_sizes_that_do_not_divide_are_told_with_one_that_does(
    ppo: Make, fields: dict[str, Any], problem: str
) -> None:
    assert spec_problems(ppo(**fields)) == [problem]


@pytest.mark.parametrize("estimator", ["rloo", "grpo"])
def test_a_critic_free_estimator_takes_groups(ppo: Make, estimator: str) -> None:
    fields = {"algorithm.advantage_estimator": estimator, "algorithm.num_generations": 4}
    assert spec_problems(ppo(**fields)) == []


@pytest.mark.parametrize(
    ("space", "blamed", "got", "remedy"),
    [
        ({ROLLOUT: [64, 100]}, ROLLOUT, "100 and 8 × 1",
         "it in a list such as [64, 72, 80, 88, 96]"),
        ({MICRO: {"low": 8, "high": 16}}, MICRO, "64 and 9 × 1", "it in a list such as [8, 16]"),
        ({MICRO: {"low": 1, "high": 16}}, MICRO, "64 and 3 × 1",
         "it in a list such as [1, 2, 4, 8, 16]"),
        ({MICRO: {"low": 8, "high": 24, "step": 8}}, MICRO, "64 and 24 × 1",
         "it in a list such as [8, 16]"),
        ({ROLLOUT: {"low": 64, "high": 80, "step": 4}}, ROLLOUT, "68 and 8 × 1",
         "it in a list such as [64, 72, 80]"),
        # No mini-batch divides in three passes, and one or two passes do with either.
        ({MICRO: [8, 16], ACCUMULATION: [1, 3]}, ACCUMULATION, "64 and 8 × 3",
         "it in a list such as [1, 2]"),
        # The first trial's 64 holds no three passes, nor does any mini-batch with them.
        ({ROLLOUT: [64, 96], MICRO: [8, 16], ACCUMULATION: [1, 6]}, ACCUMULATION, "64 and 8 × 6",
         "it in a list such as [1, 2]"),
        ({MICRO: [8, 48], ACCUMULATION: [1, 5]}, MICRO, "64 and 8 × 5",
         "it alone, in a list such as [8, 16, 32]"),
        ({GROUP: {"low": 1, "high": 5}}, GROUP, "64 and 3", "it in a list such as [1, 2, 4]"),
    ],
)  # fmt: skip
def test_every_combination_that_a_search_may_draw_has_to_divide(
    ppo: Make, space: dict[str, Any], blamed: str, got: str, remedy: str
) -> None:
    rule = "must be a multiple of num_generations" if blamed == GROUP else MULTIPLE_OF_BATCH
    assert spec_problems(ppo(space)) == [
        f"search_space.{blamed}: rollout_batch_size {rule} in every trial, got {got}; search "
        f"{remedy}"
    ]


def test_a_search_of_no_size_at_all_leaves_the_other_problems(ppo: Make) -> None:
    refused, problem = spec_problems(ppo({ROLLOUT: ["x"], MICRO: [8, 16, 24]}))
    assert refused.startswith(f"search_space.{ROLLOUT}: the value 'x' is refused")
    assert problem.endswith("got 64 and 24 × 1; search it in a list such as [8, 16]")


def test_a_search_of_which_one_size_alone_divides_is_to_be_removed(ppo: Make) -> None:
    [problem] = spec_problems(ppo({MICRO: [8, 9]}))
    assert problem.endswith("got 64 and 9 × 1; remove it from search_space")


@FUZZ
@given(
    st.fixed_dictionaries({}, optional=dict.fromkeys((ROLLOUT, GROUP, MICRO, ACCUMULATION), PARAMS))
)
def test_the_remedies_lead_to_a_sound_search(ppo: Make, space: dict[str, Any]) -> None:
    left = dict(space)
    for _ in range(2 * len(space) + 1):
        problems = spec_problems(ppo(left))
        if not problems:
            return
        path, text = problems[0].removeprefix("search_space.").split(": ", 1)
        sizes = re.search(r"; search it (alone, )?in a list such as (.*)$", text)
        assert path in left
        if sizes is None:
            assert text.endswith("; remove it from search_space")
            del left[path]
            continue
        listed = json.loads(sizes[2])
        assert sizes[1] or listed != left[path]
        left = {path: listed} if sizes[1] else {**left, path: listed}
    pytest.fail(f"{space} ended as {left}, with {problems}")


@pytest.mark.parametrize(
    "space",
    [
        {ROLLOUT: [64, 128, 256], MICRO: [4, 8], ACCUMULATION: [1, 2]},
        {ROLLOUT: {"low": 16, "high": 256, "step": 16}},
        {"algorithm.num_generations": {"low": 8, "high": 8 * 8, "step": 56}},
    ],
)
def test_combinations_that_all_divide_are_sound(ppo: Make, space: dict[str, Any]) -> None:
    assert spec_problems(ppo(space)) == []


def test_a_searched_estimator_asks_for_groups_in_every_trial(ppo: Make) -> None:
    space = {"algorithm.advantage_estimator": ["gae", "grpo"]}
    [problem] = spec_problems(ppo({**space, "algorithm.num_generations": [1, 4]}))
    assert problem.startswith("algorithm.num_generations: must be at least 2 for grpo")
    assert spec_problems(ppo(space, **{"algorithm.num_generations": 4})) == []


@pytest.mark.parametrize("paths", [(ROLLOUT,), (MICRO,), (ROLLOUT, MICRO, ACCUMULATION)])
def test_a_wide_range_of_sizes_is_refused_at_once(ppo: Make, paths: tuple[str, ...]) -> None:
    wide = {"low": 1, "high": 2_000_000_000}
    listed = {ROLLOUT: [8, 16, 24, 32, 40, 48], MICRO: [1, 2, 4, 8, 16, 32]}[paths[0]]
    start = time.perf_counter()
    assert spec_problems(ppo(dict.fromkeys(paths, wide))) == [
        f"search_space.{paths[0]}: must be short, for batch sizes have to divide in every trial; "
        f"search it in a list such as {listed}"
    ]
    assert time.perf_counter() - start < 1


@pytest.mark.parametrize("value", [float("inf"), float("nan"), 10**400, "inf", "x", None, 0, -8])
def test_a_searched_size_that_is_none_is_refused_by_its_own_rule_alone(
    ppo: Make, value: Any
) -> None:
    [problem] = spec_problems(ppo({ROLLOUT: [64, value]}))
    assert problem.startswith("search_space.algorithm.rollout_batch_size: the value ")
