"""One real PPO sweep, from an SFT adapter to the exported policy."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import yaml
from peft import PeftModel
from transformers import AutoModelForCausalLM

from easyds_tune.cli.main import main
from easyds_tune.journal.events import TrialState
from easyds_tune.journal.replay import SweepRecord
from easyds_tune.results.load import find_sweep, load_sweep_record
from easyds_tune.trial.checkpoint import verify_checkpoint
from tests.integration.sweeps import DATA, command, spec_file, wait_until_all_end
from tests.models.adapters import IDS, logits, sft_adapter

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

TUTOR = DATA / "models" / "tiny-tutor"
RANK = 4
START_RANK = 3


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working folder with an SFT adapter and a finished sweep that started from it."""
    folder = tmp_path_factory.mktemp("work")
    sft_adapter(folder / "my-sft", TUTOR, lora_alpha=1)
    path = spec_file(
        folder,
        "small",
        model={"model_name_or_path": "my-sft"},
        data={"train": {"path": str(DATA / "easyds" / "prompts.jsonl"), "limit": 64}},
        training={"max_steps": 4, "learning_rate": 3e-3},
    )
    raw = yaml.safe_load(path.read_text(encoding="utf-8"))
    raw["algorithm"] = {
        "type": "ppo",
        "reward": {"model_name_or_path": str(DATA / "models" / "tiny-reward")},
        "rollout_batch_size": 16,
        "response_length": 12,
        "num_ppo_epochs": 2,
        "kl_target": 0.05,
    }
    raw["search_space"] = {
        "algorithm.kl_target": {"low": 0.02, "high": 0.2, "log": True},
        "training.learning_rate": {"low": 1e-3, "high": 5e-3, "log": True},
    }
    path.write_text(yaml.safe_dump(raw), encoding="utf-8")
    with command(folder, "sweep", "small.yaml") as (process, mark):
        code = process.wait(timeout=240)
        assert code == 0, (folder / "output.txt").read_text(encoding="utf-8")
        wait_until_all_end(mark)
    return folder


@pytest.fixture(autouse=True)
def inside(place: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(place)
    return place


@pytest.fixture(scope="module")
def sweep(place: Path) -> Path:
    return place / "results" / "small"


@pytest.fixture(scope="module")
def record(sweep: Path) -> SweepRecord:
    return load_sweep_record(find_sweep(str(sweep), Path("results")))


def test_every_trial_reports_rollouts_and_the_judge(record: SweepRecord) -> None:
    assert {trial.state for trial in record.trials.values()} == {TrialState.COMPLETED}
    for trial in record.trials.values():
        assert [report.step for report in trial.reports] == [2, 4]
        for report in trial.reports:
            assert report.metrics["eval/kl"] > 0
            assert {"eval/reward", "train/kl", "train/kl_coef", "train/value_loss"} <= set(
                report.metrics
            )


def test_its_notes_come_before_the_trials(place: Path) -> None:
    output = (place / "output.txt").read_text(encoding="utf-8")
    notes = [
        line for line in output.splitlines() if "note: judge.reward: is the very reward" in line
    ]
    assert len(notes) == 1
    assert "easyds-tune export small" in output


def test_every_checkpoint_is_whole_and_one_plain_adapter(sweep: Path) -> None:
    folders = sorted(sweep.glob("trials/*/checkpoints/step-*"))
    assert len(folders) == 8
    for folder in folders:
        verify_checkpoint(folder)
        config = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
        assert config["r"] == RANK + START_RANK
        assert config["base_model_name_or_path"] == str(TUTOR)


def test_status_and_best_show_it(
    sweep: Path, record: SweepRecord, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["status", "small"]) == 0
    shown = capsys.readouterr().out
    assert all(name in shown for name in (*record.trials, "kl_target"))
    assert main(["best", "small", "--json"]) == 0
    best = json.loads(capsys.readouterr().out)
    assert best["judged_by"] == "finals"
    winner = best["winner"]
    finalists = {(event.trial, event.step) for event in record.finalists}
    assert (winner["trial"], winner["step"]) in finalists
    reports = {report.step: report for report in record.trials[winner["trial"]].reports}
    assert winner["search"]["value"] == reports[winner["step"]].metrics["eval/reward"]
    low, high = winner["interval_95"]
    assert low < winner["value"] < high


def test_the_winner_is_exported_on_the_plain_base(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["export", "small", "--to", "adapter"]) == 0
    assert main(["export", "small", "--to", "merged", "--merge"]) == 0
    assert "verified" in capsys.readouterr().out
    plain = AutoModelForCausalLM.from_pretrained(TUTOR).eval()
    start = logits(PeftModel.from_pretrained(plain, place / "my-sft").eval())
    plain = AutoModelForCausalLM.from_pretrained(TUTOR).eval()
    adapted = PeftModel.from_pretrained(plain, place / "adapter").eval()
    merged = AutoModelForCausalLM.from_pretrained(place / "merged").eval()
    torch.testing.assert_close(logits(adapted), logits(merged), atol=1e-3, rtol=0)
    assert (logits(adapted) - start).abs().max() > 1e-3
    written = merged.generate(IDS, attention_mask=torch.ones_like(IDS), max_new_tokens=4)
    assert written.shape[1] > IDS.shape[1]
