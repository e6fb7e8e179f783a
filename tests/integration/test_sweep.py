"""One real sweep from the command line to the exported model."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow.parquet as parquet
import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

from easyds_tune.cli.main import main
from easyds_tune.journal.events import TrialState
from easyds_tune.journal.replay import SweepRecord
from easyds_tune.results.load import find_sweep, load_sweep_record
from easyds_tune.trial.checkpoint import verify_checkpoint
from tests.integration.sweeps import command, spec_file, wait_until_all_end

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working folder with one finished sweep in results/small."""
    folder = tmp_path_factory.mktemp("work")
    spec_file(folder, "small")
    for name in ("datasets", "random", "tokenizers", "trl"):  # a user's own: no worker imports them
        (folder / f"{name}.py").write_text(f"raise SystemExit('{name}.py ran')\n", "utf-8")
    with command(folder, "sweep", "small.yaml", "--set", "seed=5") as (process, mark):
        code = process.wait(timeout=240)
        output = (folder / "output.txt").read_text(encoding="utf-8")
        assert code == 0, output
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


def test_the_table_and_the_next_commands_end_the_output(place: Path) -> None:
    output = (place / "output.txt").read_text(encoding="utf-8")
    assert "eval/reward" in output
    assert "easyds-tune export small" in output


def test_the_folder_is_complete(sweep: Path) -> None:
    assert {path.name for path in sweep.iterdir()} == {
        "spec.yaml", "spec.resolved.json", "journal.jsonl", "trials.parquet", "metrics.parquet",
        "tensorboard", "trials", "best.json", "lock",
    }  # fmt: skip
    spec = (sweep / "spec.yaml").read_bytes()
    assert spec == (sweep.parents[1] / "small.yaml").read_bytes()
    resolved = json.loads((sweep / "spec.resolved.json").read_text(encoding="utf-8"))
    assert resolved["spec"]["seed"] == 5
    assert resolved["data_hashes"].keys() == {"train", "prompts", "finals_prompts"}


def test_trials_that_raise_are_failed_and_the_others_go_on(record: SweepRecord) -> None:
    assert list(record.trials) == ["000", "001", "002", "003"]
    states = set()
    for trial in record.trials.values():
        states.add(trial.state)
        if trial.params["algorithm.loss_type"] == "exo_pair":
            assert trial.state is TrialState.FAILED
            assert trial.error is not None
            assert trial.error.type == "ValueError"
            assert "Label smoothing" in trial.error.message
            assert trial.reports == []
        elif trial.params["training.learning_rate"] == 1e30:
            assert trial.state is TrialState.DIVERGED
            assert trial.error is not None
            assert trial.error.type == "DivergedError"
        else:
            assert trial.state is TrialState.COMPLETED
            assert [report.step for report in trial.reports] == [2, 3]
    wanted = {TrialState.FAILED, TrialState.DIVERGED, TrialState.COMPLETED}
    assert states == wanted, "choose another seed for the sweep"


def test_every_report_has_a_whole_checkpoint(sweep: Path, record: SweepRecord) -> None:
    for name, trial in record.trials.items():
        folders = sorted((sweep / "trials" / name / "checkpoints").glob("*"))
        steps = [f"step-{report.step:06d}" for report in trial.reports]
        assert [folder.name for folder in folders] == steps
        for folder in folders:
            verify_checkpoint(folder)


def test_the_tables_hold_a_row_a_trial_and_a_row_a_report(sweep: Path, record: SweepRecord) -> None:
    reports = sum(len(trial.reports) for trial in record.trials.values())
    assert parquet.read_table(sweep / "trials.parquet").num_rows == 4
    assert parquet.read_table(sweep / "metrics.parquet").num_rows == reports


def test_every_trial_has_its_event_file(sweep: Path, record: SweepRecord) -> None:
    for name in record.trials:
        assert list((sweep / "tensorboard" / name).glob("events.out.tfevents.*"))


def test_status_shows_all_trials(record: SweepRecord, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["status", "small"]) == 0
    shown = capsys.readouterr().out
    assert all(name in shown for name in (*record.trials, "FAILED", "DIVERGED", "COMPLETED"))


def test_best_is_the_best_report_of_all(
    sweep: Path, record: SweepRecord, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["best", "small", "--json"]) == 0
    best = json.loads(capsys.readouterr().out)
    reports = [
        (report.metrics["eval/reward"], name, report.step)
        for name, trial in record.trials.items()
        for report in trial.reports
    ]
    highest = max(reward for reward, _, _ in reports)
    winner = best["winner"]
    assert (highest, winner["trial"], winner["step"]) in reports
    assert (sweep / winner["checkpoint"]).is_dir()
    assert best == json.loads((sweep / "best.json").read_text(encoding="utf-8"))

    assert main(["best", "small"]) == 0
    assert f"step-{winner['step']:06d}" in capsys.readouterr().out


def test_the_winner_is_exported_and_writes_text(
    place: Path, sweep: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["export", "small", "--to", "adapter"]) == 0
    assert main(["export", "small", "--to", "merged", "--merge"]) == 0
    assert "verified" in capsys.readouterr().out

    base = json.loads((place / "adapter" / "adapter_config.json").read_text())
    plain = AutoModelForCausalLM.from_pretrained(base["base_model_name_or_path"])
    adapted = PeftModel.from_pretrained(plain, place / "adapter").eval()
    merged = AutoModelForCausalLM.from_pretrained(place / "merged").eval()
    tokenizer = AutoTokenizer.from_pretrained(place / "merged")
    chat = [{"role": "user", "content": "栈和队列有什么区别？"}]
    prompt = tokenizer.apply_chat_template(
        chat, add_generation_prompt=True, return_tensors="pt", return_dict=True
    )
    with torch.no_grad():
        difference = (adapted(**prompt).logits - merged(**prompt).logits).abs().max()
    assert difference < 1e-3
    written = merged.generate(**prompt, max_new_tokens=8, do_sample=False)
    assert written.shape[1] > prompt["input_ids"].shape[1]


def test_a_second_sweep_of_the_name_is_refused_and_touches_nothing(
    sweep: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = (sweep / "journal.jsonl").read_bytes()
    assert main(["sweep", "small.yaml"]) == 2
    assert "exists already" in capsys.readouterr().err
    assert (sweep / "journal.jsonl").read_bytes() == before


def test_train_runs_one_trial_alone(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["train", "small.yaml", "--params", "training.learning_rate=0.002"]
    assert main([*arguments, "--to", "alone"]) == 0
    shown = capsys.readouterr().out
    assert "step 2/3" in shown
    assert "step 3/3" in shown
    steps = sorted(path.name for path in (place / "alone" / "checkpoints").iterdir())
    assert steps == ["step-000002", "step-000003"]
    assert main([*arguments, "--to", "alone"]) == 2
