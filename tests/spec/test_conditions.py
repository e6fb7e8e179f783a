"""Loss types: only exo_pair and robust smooth labels; robust's strength is searched below 0.2."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import TypeAdapter

from easyds_tune.spec.conditions import (
    active_paths,
    contains,
    count_configurations,
    cycles,
    holds,
    ordered_paths,
    requirements,
)
from easyds_tune.spec.search import Param, param_kind


def space_of(**written: Any) -> dict[str, Param]:
    return {
        path: TypeAdapter(Param).validate_python(param_kind(value))
        for path, value in written.items()
    }


SPACE = space_of(
    strength={"choice": [1, 2], "when": {"smoothing": [0, 1], "loss": "robust"}},
    smoothing={"low": 0, "high": 3, "when": {"loss": ["exo_pair", "robust"]}},
    loss=["sigmoid", "exo_pair", "robust"],
    rank=[8, 16],
)


def test_a_field_comes_after_those_its_condition_names() -> None:
    assert ordered_paths(SPACE) == ["loss", "smoothing", "strength", "rank"]
    assert ordered_paths(space_of(b=[1, 2], a=[1, 2])) == ["b", "a"]


@pytest.mark.parametrize(
    ("params", "active"),
    [
        ({"loss": "sigmoid", "rank": 8, "smoothing": 0}, ["loss", "rank"]),
        ({"loss": "exo_pair", "smoothing": 0, "rank": 8}, ["loss", "smoothing", "rank"]),
        ({"loss": "robust", "smoothing": 2, "rank": 8}, ["loss", "smoothing", "rank"]),
        ({"loss": "robust", "smoothing": 1}, ["loss", "smoothing", "strength", "rank"]),
        ({}, ["loss", "rank"]),
    ],
)
def test_a_field_is_active_while_all_that_it_waits_for_is(
    params: dict[str, Any], active: list[str]
) -> None:
    assert active_paths(SPACE, params) == active


def test_true_is_not_one() -> None:
    [param] = space_of(a={"choice": [1, 2], "when": {"b": True}}).values()
    assert holds(param, {"b": True})
    assert not holds(param, {"b": 1})


def test_what_a_field_needs_includes_what_its_parents_need() -> None:
    assert requirements(SPACE, "strength") == {"smoothing": [0, 1], "loss": ["robust"]}
    never = space_of(a=[1, 2], b={"choice": [1, 2], "when": {"a": 1}},
                     c={"choice": [1, 2], "when": {"a": 2, "b": 1}})  # fmt: skip
    assert requirements(never, "c") == {"a": [], "b": [1]}


def test_a_circle_is_found_and_still_ordered() -> None:
    circle = space_of(
        a={"choice": [1, 2], "when": {"b": 1}},
        b={"choice": [1, 2], "when": {"a": 1}},
        c={"choice": [1, 2], "when": {"a": 1}},
    )
    assert cycles(circle) == ["a", "b"]
    assert sorted(ordered_paths(circle)) == ["a", "b", "c"]


def test_configurations_are_counted_with_their_conditions() -> None:
    # sigmoid 1; exo_pair 4 smoothings; robust 2 of them with 2 strengths and 2 without: 1 + 4 + 6.
    assert count_configurations(SPACE, 1000) == 11 * 2
    assert count_configurations(space_of(a={"low": 0.0, "high": 1.0, "step": 0.25}), 1000) == 5
    assert count_configurations(space_of(a={"low": 0.0, "high": 1.0}), 1000) is None
    wide = space_of(a={"low": 0, "high": 10**9}, b={"choice": [1, 2], "when": {"a": 7}})
    assert count_configurations(wide, 10**10) == 10**9 + 2


def test_counting_ends_where_enough_is_counted() -> None:
    """One branch for each value of each of 30 fields would never come back."""
    fields = {f"f{n}": {"choice": list(range(6))} for n in range(30)}
    halves = {f"h{n}": {"choice": [1, 2], "when": {f"f{n}": [0, 1, 2]}} for n in range(30)}
    found = count_configurations(space_of(**fields, **halves), 1000)
    assert found is not None
    assert found >= 1000
    few = space_of(f0=fields["f0"], f1=fields["f1"], h0=halves["h0"], h1=halves["h1"])
    assert count_configurations(few, 1000) == (3 * 2 + 3) ** 2


@pytest.mark.parametrize(
    ("written", "value", "inside"),
    [
        (["a", None], None, True),
        ([1, 2], True, False),
        ({"low": 1, "high": 9, "step": 4}, 5, True),
        ({"low": 1, "high": 9, "step": 4}, 4, False),
        ({"low": 1, "high": 9}, 4.5, False),
        ({"low": 1, "high": 9}, "4", False),
        ({"low": 0.1, "high": 0.9, "step": 0.1}, 0.3, True),
        ({"low": 1e-5, "high": 1e-3, "log": True}, 1e-4, True),
        ({"low": 1e-5, "high": 1e-3, "log": True}, 1e-2, False),
    ],
)
def test_a_value_lies_in_a_search_that_could_propose_it(
    written: Any, value: Any, inside: bool
) -> None:
    assert contains(space_of(a=written)["a"], value) is inside
