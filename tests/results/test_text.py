from __future__ import annotations

from typing import Any

import pytest

from easyds_tune.results.text import (
    format_difference,
    format_measured,
    format_number,
    format_param,
    format_seconds,
    short_names,
)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0"),
        (0.123456, "0.1235"),
        (-2.0, "-2"),
        (12345.6, "12346"),
        (2.5e-5, "2.5e-5"),
        (1e-10, "1e-10"),
        (3.14159e7, "3.14e7"),
        (float("nan"), "nan"),
    ],
)
def test_numbers_are_short_and_without_padding(value: float, text: str) -> None:
    assert format_number(value) == text


@pytest.mark.parametrize(
    ("value", "stderr", "text"),
    [
        (1.23456, 0.056, "1.235 ± 0.056"),
        (1.23456, 0.56, "1.23 ± 0.56"),
        (123.456, 12.0, "123 ± 12"),
        (1.23456, None, "1.235"),
        (1.23456, 0.0, "1.235"),
        (4.869e-8, 6.3e-9, "4.87e-8 ± 6e-9"),
        (2.5, 6.3e-12, "2.5 ± 6e-12"),
        (1.23456, 1.3e-5, "1.234560 ± 0.000013"),
        (float("nan"), 0.1, "nan"),
        (None, None, "–"),
    ],
)
def test_a_measured_value_is_as_exact_as_its_error(
    value: float | None, stderr: float | None, text: str
) -> None:
    assert format_measured(value, stderr) == text


def test_a_difference_always_has_its_sign() -> None:
    assert format_difference(0.4, 0.05) == "+0.400"
    assert format_difference(-0.4, None) == "-0.4"
    assert format_difference(0.0, None) == "+0"
    assert format_difference(4.869e-8, 6.3e-9) == "+4.87e-8"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "null"),
        (True, "true"),
        (8, "8"),
        (0.00002, "2e-5"),
        ("cosine", "cosine"),
        (["q", "v"], "q+v"),
    ],
)
def test_parameters_read_as_in_the_yaml(value: Any, text: str) -> None:
    assert format_param(value) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (8.4, "8 s"),
        (59.6, "1 min 00 s"),
        (125, "2 min 05 s"),
        (11_400, "3 h 10 min"),
        (187_200, "2 d 04 h"),
    ],
)
def test_durations_show_two_units(seconds: float, text: str) -> None:
    assert format_seconds(seconds) == text


def test_a_name_is_its_last_part_unless_two_paths_share_it() -> None:
    assert short_names(["training.learning_rate", "lora.dropout", "head.dropout"]) == {
        "training.learning_rate": "learning_rate",
        "lora.dropout": "lora.dropout",
        "head.dropout": "head.dropout",
    }
