"""Where values lie in their range."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from easyds_tune.simulation.space import position, read_space


def test_a_logarithmic_range_is_halved_by_its_geometric_mean() -> None:
    space = read_space({"rate": {"low": 1e-4, "high": 1e-2, "log": True}})
    places = [position(space["rate"], value) for value in (1e-4, 1e-3, 1e-2)]
    assert places == pytest.approx([0.0, 0.5, 1.0])


def test_a_choice_lies_at_its_place_in_the_list() -> None:
    space = read_space({"rank": [8, 16, 32]})
    assert position(space["rank"], 32) == 2.0
    with pytest.raises(ValueError, match="64"):
        position(space["rank"], 64)


def test_what_is_no_domain_is_refused() -> None:
    with pytest.raises(ValidationError):
        read_space({"rate": {"low": 1.0}})
