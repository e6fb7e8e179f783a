"""A trial that is asked to stop does so soon, and whoever goes on continues with the same bits."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from easyds_tune.trial.checkpoint import verify_checkpoint
from easyds_tune.trial.run import Report
from tests.algorithms.small_ppo import ppo_spec
from tests.trial.small import Lab, bits, sweep_spec

DROPOUT = {"model__lora_dropout": 0.2, "training__warmup_steps": 2}
ALL_STATE = {
    "algorithm__normalize_rewards": True,
    "algorithm__lr_adjust_factor": 1.5,
    "training__lr_scheduler_type": "cosine",
}
SETTINGS: dict[str, dict[str, Any]] = {
    "dpo": DROPOUT, "sft": DROPOUT, "rm": DROPOUT, "ppo": ALL_STATE,
}  # fmt: skip


class Asked:
    """Asks to stop from the n-th question on."""

    def __init__(self, questions: int) -> None:
        self.left = questions

    def __call__(self) -> bool:
        self.left -= 1
        return self.left <= 0


@pytest.fixture(scope="module")
def lab_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Lab]:
    """Six steps with an evaluation every third; PPO four with one every second."""

    @cache
    def open_lab(algorithm: str) -> Lab:
        folder = tmp_path_factory.mktemp(algorithm)
        if algorithm == "ppo":
            return Lab(ppo_spec(training={"max_steps": 4, "eval_steps": 2}), folder)
        training = {"max_steps": 6, "eval_steps": 3}
        return Lab(sweep_spec(algorithm, training=training), folder)  # type: ignore[arg-type]

    return open_lab


def in_pieces(
    lab: Lab, questions: list[int], **trial: Any
) -> tuple[list[Report], list[Report], list[int]]:
    """A trial stopped again and again: its reports, the partial ones, and what was too late.

    questions: how often each piece may ask before it is told to stop; the last piece is not.
    """
    reports: list[Report] = []
    partial: list[Report] = []
    answers = [Asked(count) for count in questions]
    checkpoint: Path | None = None
    for stop_asked in [*answers, None]:
        options = {} if stop_asked is None else {"stop_asked": stop_asked}
        seen = lab.run(resume_from=checkpoint, **options, **trial)
        checkpoint = seen[-1].checkpoint.path
        reports += [report for report in seen if not report.is_partial]
        partial += [report for report in seen if report.is_partial]
        assert [report.is_partial for report in seen[:-1]] == [False] * (len(seen) - 1)
        if seen[-1].is_last:
            break
    return reports, partial, [answer.left for answer in answers]


# Where each piece ends: after a step; within an evaluation, twice; right after it; after a step.
TRL_PIECES = {"dpo": [2, 5, 1, 16, 1], "sft": [2, 5, 1, 20, 1], "rm": [2, 2, 1, 8, 1]}


@pytest.mark.parametrize(
    ("algorithm", "accumulation", "zero"),
    [
        ("dpo", 1, "zero0"), ("dpo", 2, "zero2"), ("sft", 2, "zero0"), ("sft", 1, "zero3"),
        ("rm", 2, "zero0"), ("rm", 1, "zero2"),
    ],
)  # fmt: skip
@pytest.mark.timeout(240)
def test_a_trl_trial_in_pieces_has_the_bits_of_the_whole_one(
    algorithm: str, accumulation: int, zero: str, lab_of: Callable[[str], Lab]
) -> None:
    lab = lab_of(algorithm)
    trial = {"training__per_device_train_batch_size": 4 // accumulation,
             "training__gradient_accumulation_steps": accumulation,
             "deepspeed": zero, **SETTINGS[algorithm]}  # fmt: skip
    whole = lab.run(**trial)
    reports, partial, late = in_pieces(lab, TRL_PIECES[algorithm], **trial)
    print([(report.step, report.checkpoint.path) for report in partial], late)
    assert bits(reports) == bits(whole)
    assert [report.step for report in partial][:3] == [2, 3, 3]
    for report in partial:
        assert (report.metrics, report.is_last) == ({}, False)
        verify_checkpoint(report.checkpoint.path, to_go_on=True)
    # Nothing is written twice: the third piece changed nothing.
    assert partial[1].checkpoint == partial[2].checkpoint
    seconds = [report.metrics["time/train_seconds"] for report in reports]
    assert seconds == sorted(seconds)


@pytest.mark.parametrize(("accumulation", "zero"), [(1, "zero0"), (2, "zero2"), (1, "zero3")])
@pytest.mark.timeout(240)
def test_a_ppo_trial_in_pieces_has_the_bits_of_the_whole_one(
    accumulation: int, zero: str, lab_of: Callable[[str], Lab]
) -> None:
    """Its pieces end before and within drawing replies, and within an evaluation."""
    lab = lab_of("ppo")
    trial = {"training__per_device_train_batch_size": 8 // accumulation,
             "training__gradient_accumulation_steps": accumulation,
             "deepspeed": zero, **ALL_STATE}  # fmt: skip
    whole = lab.run(**trial)
    reports, partial, late = in_pieces(lab, [1, 5, 20, 20, 3, 30], **trial)
    print([(report.step, report.checkpoint.path) for report in partial], late)
    assert bits(reports) == bits(whole)
    steps = [report.step for report in partial]
    assert steps[:3] == [0, 0, 1]
    assert partial[0].checkpoint == partial[1].checkpoint
    for one, other in itertools.pairwise(partial):
        assert other.step >= one.step


def test_a_stop_within_the_last_evaluation_owes_the_last_report(
    lab_of: Callable[[str], Lab],
) -> None:
    for algorithm, steps in (("dpo", 3), ("ppo", 2)):
        lab = lab_of(algorithm)
        (whole,) = lab.run(steps=steps)
        asks = {"dpo": 4, "ppo": 32}[algorithm]
        (stopped,) = lab.run(steps=steps, stop_asked=Asked(asks))
        assert (stopped.step, stopped.is_partial, stopped.is_last) == (steps, True, False)
        (rest,) = lab.run(steps=steps, resume_from=stopped.checkpoint.path)
        assert rest.is_last
        assert bits([rest]) == bits([whole])


def test_a_trial_that_was_reported_to_its_end_reports_nothing_more(
    lab_of: Callable[[str], Lab],
) -> None:
    """Transformers would train another step."""
    for algorithm in ("sft", "ppo"):
        lab = lab_of(algorithm)
        reports = lab.run(steps=1)
        assert lab.run(steps=1, resume_from=reports[-1].checkpoint.path) == []


def test_asked_while_it_rests_a_trial_trains_no_further_step(
    lab_of: Callable[[str], Lab],
) -> None:
    lab = lab_of("sft")
    stop = False
    trial = lab.start(stop_asked=lambda: stop)
    first = next(trial)
    stop = True
    (last,) = list(trial)
    assert (last.step, last.metrics, last.is_partial) == (first.step, {}, True)
    assert last.checkpoint == first.checkpoint


def test_a_stopped_trial_leaves_the_base_as_it_was(lab_of: Callable[[str], Lab]) -> None:
    for algorithm in ("dpo", "ppo"):
        lab = lab_of(algorithm)
        bench = lab.fresh_bench()
        wanted = bits(lab.run(bench, steps=1))
        base = bench._base
        for questions in (1, 8):
            lab.run(bench, steps=3, stop_asked=Asked(questions))
        assert bench._base is base
        assert bits(lab.run(bench, steps=1)) == wanted
