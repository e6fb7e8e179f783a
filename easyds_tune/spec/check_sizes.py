"""PPO's batch sizes: in every trial a rollout holds whole mini-batches and whole groups."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

from easyds_tune.spec.algorithm import PPOSpec
from easyds_tune.spec.search import IntParam
from easyds_tune.spec.searched import finite_numbers, numbers_of, values_of, values_where
from easyds_tune.spec.sweep import SweepSpec

ROLLOUT_SIZE = "algorithm.rollout_batch_size"
GROUP_SIZE = "algorithm.num_generations"
ESTIMATOR = "algorithm.advantage_estimator"
MICRO_BATCH = "training.per_device_train_batch_size"
ACCUMULATION = "training.gradient_accumulation_steps"
MAX_COMBINATIONS = 4096
"""Of searched batch sizes that are tried one by one."""
SHOWN_SIZES = 6
"""How many sizes that divide a problem names."""
RULES = {
    (MICRO_BATCH, ACCUMULATION): "the effective batch (per_device_train_batch_size × "
    "gradient_accumulation_steps)",
    (GROUP_SIZE,): "num_generations",
}
"""The fields whose product a rollout must be a multiple of -> what the product is called."""

Sizes = dict[str, Sequence[int]]
"""The path of a field -> its values in all trials, the spec's own first."""


def size_problems(spec: SweepSpec, ppo: PPOSpec) -> list[str]:
    """Every combination of sizes that a trial could have must divide."""
    own = {
        ROLLOUT_SIZE: ppo.rollout_batch_size,
        GROUP_SIZE: ppo.num_generations,
        MICRO_BATCH: spec.training.per_device_train_batch_size,
        ACCUMULATION: spec.training.gradient_accumulation_steps,
    }
    problems = _group_problems(spec, ppo)
    unsearched = [problem for divisors in RULES if (problem := _own_problem(own, divisors))]
    if unsearched:
        return problems + unsearched
    # A range is not written out before it is known to be short.
    sizes: Sizes = {path: _all_values(spec, path, value) for path, value in own.items()}
    if math.prod(map(len, sizes.values())) > MAX_COMBINATIONS:
        widest = max(sizes, key=lambda path: len(sizes[path]))
        path, remedy = _remedy(spec, [widest], {path: [value] for path, value in own.items()}, own)
        return [
            *problems,
            f"search_space.{path}: must be short, for batch sizes have to divide in every trial; "
            f"{remedy}",
        ]
    return problems + [
        problem for divisors in RULES if (problem := _searched_problem(spec, sizes, own, divisors))
    ]


def _group_problems(spec: SweepSpec, ppo: PPOSpec) -> list[str]:
    estimators = values_of(spec, ESTIMATOR, ppo.advantage_estimator)
    for name in estimators:
        sizes = values_where(spec, GROUP_SIZE, ppo.num_generations, ESTIMATOR, name)
        smallest = min(finite_numbers(sizes), default=2)
        if name != "gae" and smallest < 2:
            return [
                f"algorithm.num_generations: must be at least 2 for {name}, which compares "
                f"replies to one prompt, got {smallest:g}; set 4"
            ]
    return []


def _own_problem(own: dict[str, int], divisors: tuple[str, ...]) -> str | None:
    """What is wrong with the sizes that the spec itself sets."""
    rollout, multiple = own[ROLLOUT_SIZE], math.prod(own[path] for path in divisors)
    if rollout % multiple == 0:
        return None
    fitting = math.lcm(own[MICRO_BATCH] * own[ACCUMULATION], own[GROUP_SIZE])
    return (
        f"{ROLLOUT_SIZE}: must be a multiple of {RULES[divisors]}, got {rollout} and "
        f"{' × '.join(str(own[path]) for path in divisors)}; set rollout_batch_size: "
        f"{math.ceil(rollout / fitting) * fitting}"
    )


def _searched_problem(
    spec: SweepSpec, sizes: Sizes, own: dict[str, int], divisors: tuple[str, ...]
) -> str | None:
    """What is wrong with sizes that a search may draw; the spec's own are known to be sound."""
    for rollout, *parts in itertools.product(*(sizes[path] for path in (ROLLOUT_SIZE, *divisors))):
        if rollout % math.prod(parts) == 0:
            continue
        searched = [path for path in (*divisors, ROLLOUT_SIZE) if path in spec.search_space]
        path, remedy = _remedy(spec, searched, sizes, own)
        return (
            f"search_space.{path}: rollout_batch_size must be a multiple of {RULES[divisors]} in "
            f"every trial, got {rollout} and {' × '.join(map(str, parts))}; {remedy}"
        )
    return None


def _remedy(
    spec: SweepSpec, searched: list[str], sizes: Sizes, own: dict[str, int]
) -> tuple[str, str]:
    """The searched field to change, and how: sizes that divide beside all others, or alone."""
    own_alone: Sizes = {path: [value] for path, value in own.items()}
    for alone, beside in (("", sizes), ("alone, ", own_alone)):
        fitting = {path: _fitting(spec, path, beside, own[path]) for path in searched}
        path = max(fitting, key=lambda path: len(fitting[path]))
        if len(fitting[path]) > 1:
            return path, f"search it {alone}in a list such as {list(fitting[path][:SHOWN_SIZES])}"
    return searched[0], "remove it from search_space"


def _fitting(spec: SweepSpec, path: str, sizes: Sizes, own: int) -> Sequence[int]:
    """Sizes of one field, between those it is searched in, that divide with all of the others'.

    Empty where its own in the spec, the first trial's, does not divide with them.
    """
    _, *searched = (int(value) for value in numbers_of(spec, path, own))
    low, high = max(1, min(searched, default=own)), max(searched, default=own)
    if path == ROLLOUT_SIZE:
        batches = itertools.product(sizes[MICRO_BATCH], sizes[ACCUMULATION])
        multiple = math.lcm(*map(math.prod, batches), *sizes[GROUP_SIZE])
        if own % multiple:
            return ()
        return range(math.ceil(low / multiple) * multiple, high + 1, multiple)
    other = {MICRO_BATCH: ACCUMULATION, ACCUMULATION: MICRO_BATCH}.get(path)
    taken = math.lcm(*sizes[other]) if other else 1
    left, rest = divmod(math.gcd(*sizes[ROLLOUT_SIZE]), taken)
    if rest or left % own:
        return ()
    return [size for size in _divisors(left) if low <= size <= high]


def _divisors(number: int) -> list[int]:
    small = [size for size in range(1, math.isqrt(number) + 1) if number % size == 0]
    return sorted({*small, *(number // size for size in small)})


def _all_values(spec: SweepSpec, path: str, default: int) -> Sequence[int]:
    """Every whole number above 0 that a searched field can take, the spec's own first."""
    param = spec.search_space.get(path)
    if isinstance(param, IntParam):
        inside = range(max(1, param.low), param.high + 1, param.step or 1)
        return inside if len(inside) > MAX_COMBINATIONS else [default, *inside]
    found = [int(value) for value in numbers_of(spec, path, default)]
    return [value for value in dict.fromkeys(found) if value > 0]
