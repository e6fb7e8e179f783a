"""`train` refuses wrong parameters and an occupied folder before it trains."""

from __future__ import annotations

from collections.abc import Callable

Refusal = Callable[..., list[str]]


def test_wrong_parameters_are_refused_together(refused: Refusal) -> None:
    assert refused(
        "train",
        "dpo",
        "--params",
        "algorithm.betta=3",
        "training.learning_rate=-1",
        "model.dtype=x",
    ) == [
        "algorithm.betta: is no field of the spec; did you mean algorithm.beta?",
        "training.learning_rate: the value -1 is refused: "
        "training.learning_rate: must be greater than 0, got -1",
        "model.dtype: cannot be searched: all trials share one base",
    ]


def test_a_parameter_without_a_value_is_refused(refused: Refusal) -> None:
    assert refused("train", "dpo", "--params", "seed") == [
        "--params seed: must look like algorithm.beta=0.2"
    ]


def test_an_occupied_folder_is_refused(refused: Refusal) -> None:
    assert refused("train", "dpo", "--to", "data") == [
        "--to: data exists already; name a new folder"
    ]
