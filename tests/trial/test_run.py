"""A trial reports at its evaluation steps, diverges aloud, and goes on from a checkpoint."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from easyds_tune.errors import DivergedError
from easyds_tune.trial.checkpoint import verify_checkpoint
from easyds_tune.trial.run import run_trial
from tests.trial.small import ALGORITHMS, Algorithm, Lab, bits, sweep_spec

STORIES = Path(__file__).parents[3] / "shared" / "models" / "stories260k"
LabOf = Callable[[Algorithm], Lab]


@pytest.fixture(params=ALGORITHMS)
def algorithm(request: pytest.FixtureRequest) -> Algorithm:
    return request.param


def test_the_last_step_is_evaluated_where_eval_steps_does_not_divide_the_budget(
    algorithm: Algorithm, lab_of: LabOf
) -> None:
    reports = lab_of(algorithm).run()
    assert [report.step for report in reports] == [2, 3]
    assert [report.is_last for report in reports] == [False, True]
    assert [report.examples for report in reports] == [8, 12]
    assert [report.checkpoint.path.name for report in reports] == ["step-000002", "step-000003"]
    objective = "eval/accuracy" if algorithm == "rm" else "eval/reward"
    wanted = {"train/loss", "train/grad_norm", "train/learning_rate", objective}
    wanted |= {f"{objective}_stderr", "time/train_seconds", "memory/resident_mib"}
    for report in reports:
        assert wanted <= report.metrics.keys()
        assert all(math.isfinite(value) for value in report.metrics.values())
        verify_checkpoint(report.checkpoint.path)


@pytest.mark.parametrize("rank", [4, None])
def test_a_budget_of_no_steps_reports_the_start_once(
    algorithm: Algorithm, rank: int | None, lab_of: LabOf
) -> None:
    (report,) = lab_of(algorithm).run(steps=0, model__lora_r=rank)
    assert (report.step, report.examples, report.is_last) == (0, 0, True)
    verify_checkpoint(report.checkpoint.path)
    if algorithm == "rm":
        assert 0 <= report.metrics["eval/accuracy"] <= 1
    else:
        assert report.metrics["eval/kl"] == 0
        assert report.metrics["eval/kl_k1"] == 0


@pytest.mark.parametrize("zero", ["zero0", "zero2", "zero3"])
def test_full_fine_tuning_moves_the_policy_away_from_the_frozen_start(
    zero: str, lab_of: LabOf
) -> None:
    for algorithm in ("dpo", "sft"):
        reports = lab_of(algorithm).run(deepspeed=zero, model__lora_r=None)
        assert all(report.metrics["eval/kl"] > 1e-4 for report in reports)
        assert not (reports[0].checkpoint.path / "adapter_config.json").exists()


def test_zero_stages_train_alike(algorithm: Algorithm, lab_of: LabOf) -> None:
    """Without clipping, whose rounding differs, stages 0 and 2 agree to the bit."""
    runs = [
        lab_of(algorithm).run(deepspeed=zero, training__max_grad_norm=0.0)
        for zero in ("zero0", "zero2", "zero3")
    ]
    for name in ("train/loss", "train/grad_norm"):
        series = [[report.metrics[name] for report in reports] for reports in runs]
        assert series[1] == pytest.approx(series[0], rel=1e-6)
        assert series[2] == pytest.approx(series[0], rel=1e-5)
    files = [reports[-1].checkpoint.path / "adapter_model.safetensors" for reports in runs]
    weights = [load_file(path) for path in files]
    assert weights[0].keys() == weights[1].keys() == weights[2].keys()
    for name, value in weights[0].items():
        assert torch.equal(weights[1][name], value), name
        torch.testing.assert_close(weights[2][name], value, atol=1e-5, rtol=1e-3)


@pytest.mark.parametrize("zero", ["zero0", "zero2", "zero3"])
def test_a_loss_that_is_not_finite_diverges(algorithm: Algorithm, zero: str, lab_of: LabOf) -> None:
    lab = lab_of(algorithm)
    with pytest.raises(DivergedError, match=r"at step \d"):
        lab.run(deepspeed=zero, training__learning_rate=1e30, training__max_grad_norm=0.0)
    folder = lab.folder / f"{lab._count:03d}"
    assert not list(folder.rglob("adapter_model.safetensors"))


def test_a_policy_without_finite_logits_diverges_though_its_loss_was_finite(lab_of: LabOf) -> None:
    with pytest.raises(DivergedError, match="logits are not finite at step 1"):
        lab_of("dpo").run(steps=1, training__learning_rate=1e30)


def test_the_schedule_spans_the_budget_though_the_trial_is_stopped(lab_of: LabOf) -> None:
    reports = lab_of("sft").start(
        steps=40, training__lr_scheduler_type="linear", training__learning_rate=4e-4
    )
    first = next(reports)
    reports.close()
    assert first.step == 2
    # The rate of the second step: one of forty linear steps down from the peak.
    assert first.metrics["train/learning_rate"] == pytest.approx(4e-4 * 39 / 40)


@pytest.mark.slow
@pytest.mark.parametrize("zero", ["zero0", "zero2"])
def test_a_resumed_trial_goes_on_with_the_same_bits(
    algorithm: Algorithm, zero: str, tmp_path: Path
) -> None:
    """36 records in batches of 2 x 4: the fifth step ends the first epoch."""
    training = {"max_steps": 6, "eval_steps": 1, "gradient_accumulation_steps": 2}
    lab = Lab(sweep_spec(algorithm, training=training), tmp_path)
    trial = {"deepspeed": zero, "model__lora_dropout": 0.2, "training__warmup_steps": 2}
    whole = lab.run(**trial)
    lab.run(steps=1, model__lora_r=8)
    for done in (3, 5):
        rest = lab.run(resume_from=whole[done - 1].checkpoint.path, **trial)
        assert bits(rest) == bits(whole)[done:]


def test_a_trial_trained_in_full_is_resumed_too(lab_of: LabOf) -> None:
    whole = lab_of("sft").run(model__lora_r=None)
    rest = lab_of("sft").run(model__lora_r=None, resume_from=whole[0].checkpoint.path)
    assert bits(rest) == bits(whole)[1:]


def test_a_trial_goes_on_from_the_newest_checkpoint_that_is_whole(
    lab_of: LabOf, tmp_path: Path
) -> None:
    lab = lab_of("rm")
    whole = lab.run(steps=5)
    assert [report.step for report in whole] == [2, 4, 5]
    candidates = [report.checkpoint.path for report in reversed(whole[:2])]
    assert whole[0].notes == ()
    state = next(candidates[0].glob("trainer/global_step*/*model_states.pt"))
    state.write_bytes(state.read_bytes()[:-1])
    rest = list(run_trial(lab.trial(steps=5), lab.bench, tmp_path / "on", candidates))
    assert bits(rest) == bits(whole)[1:]
    (note,) = rest[0].notes
    assert "step-000004" in note
    assert "model_states.pt" in note
    assert rest[1].notes == ()


def test_without_a_whole_checkpoint_a_trial_starts_from_the_beginning(
    lab_of: LabOf, tmp_path: Path
) -> None:
    lab = lab_of("rm")
    whole = lab.run(steps=2)
    (whole[0].checkpoint.path / "manifest.json").write_text("{")
    candidates = [tmp_path / "checkpoints" / "step-000009", whole[0].checkpoint.path]
    (left,) = [tmp_path / "checkpoints" / ".step-000001.unfinished"]
    left.mkdir(parents=True)
    again = list(run_trial(lab.trial(steps=2), lab.bench, tmp_path, candidates))
    assert bits(again) == bits(whole)
    assert [("step-000009" in note, "damaged" in note) for note in again[0].notes[:2]] == [
        (True, True),
        (False, True),
    ]
    assert again[0].notes[2] == "no checkpoint is whole, so the trial starts from the beginning"
    assert not left.exists()


def test_a_budget_in_epochs_sees_every_record(tmp_path: Path) -> None:
    """40 pairs in batches of 16: two and a half steps, so three."""
    training = {"max_steps": None, "num_train_epochs": 1, "per_device_train_batch_size": 16}
    lab = Lab(sweep_spec("dpo", training=training), tmp_path)
    reports = lab.run()
    assert [report.step for report in reports] == [2, 3]
    assert reports[-1].metrics["train/epoch"] == 1.0


@pytest.mark.skipif(not STORIES.is_dir(), reason="../shared/models/stories260k is not there")
@pytest.mark.parametrize("zero", ["zero2", "zero3"])
def test_a_model_from_elsewhere_trains(algorithm: Algorithm, zero: str, tmp_path: Path) -> None:
    lab = Lab(sweep_spec(algorithm, base=STORIES, algorithm={"max_length": 400}), tmp_path)
    reports = lab.run(deepspeed=zero, training__per_device_train_batch_size=2)
    assert reports[-1].is_last
