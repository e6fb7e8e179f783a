"""The class of an exception decides what a trial becomes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from easyds_tune.errors import DataError, DivergedError
from easyds_tune.trial.failure import (
    FILE,
    Failure,
    classify,
    put_away_failure,
    read_failure,
    write_failure,
)


@pytest.mark.parametrize(
    ("error", "state"),
    [
        (DivergedError("train/loss is nan at step 3"), "DIVERGED"),
        (torch.OutOfMemoryError("tried to allocate 2 GiB"), "OUT_OF_MEMORY"),
        (MemoryError(), "OUT_OF_MEMORY"),
        (DataError(["one", "two"]), "FAILED"),
        (ZeroDivisionError("division by zero"), "FAILED"),
    ],
)
def test_a_failure_has_state_class_and_message(error: Exception, state: str) -> None:
    failure = classify(error)
    assert (failure.state, failure.type) == (state, type(error).__name__)
    assert failure.message == str(error)


def test_a_failure_keeps_the_traceback_to_its_cause() -> None:
    def cause() -> None:
        raise ValueError("内存")

    with pytest.raises(ValueError, match="内存") as caught:
        cause()
    assert "in cause" in classify(caught.value).traceback


def test_a_failure_is_read_as_it_was_written(tmp_path: Path) -> None:
    failure = Failure("FAILED", "ValueError", "形状不符", "Traceback ...")
    write_failure(tmp_path / "trials" / "003", failure)
    assert read_failure(tmp_path / "trials" / "003") == failure


def test_a_worker_that_left_nothing_readable_left_no_failure(tmp_path: Path) -> None:
    assert read_failure(tmp_path) is None
    for text in ("", "{", "[1]", '{"state": "FAILED"}', '{"unknown": 1}'):
        (tmp_path / FILE).write_text(text, encoding="utf-8")
        assert read_failure(tmp_path) is None


def test_failures_of_earlier_attempts_are_kept_apart(tmp_path: Path) -> None:
    put_away_failure(tmp_path)
    for number in (1, 2):
        write_failure(tmp_path, Failure("FAILED", "WorkerDied", str(number), ""))
        put_away_failure(tmp_path)
        assert read_failure(tmp_path) is None
        kept = (tmp_path / f"failure-{number}.json").read_text(encoding="utf-8")
        assert json.loads(kept)["message"] == str(number)
    assert len(list(tmp_path.iterdir())) == 2
