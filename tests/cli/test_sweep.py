"""`sweep` refuses what only the models and the machine can tell, before anything is written."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from easyds_tune.spec.load import load_sweep
from easyds_tune.sweep.preflight import preflight

Refusal = Callable[..., list[str]]


def test_lora_targets_that_the_model_lacks_are_refused(sweep_refused: Refusal) -> None:
    modules = "down_proj, gate_proj, k_proj, lm_head, o_proj, q_proj, up_proj, v_proj"
    assert sweep_refused("model.lora_target_modules=[q_prj, v_proj]") == [
        f"model.lora_target_modules: the model has no module 'q_prj'; it has {modules}"
    ]
    [found] = sweep_refused("model.lora_target_modules=.*nowhere")
    assert found.startswith("model.lora_target_modules: Target modules .*nowhere not found")


def test_lora_targets_of_the_search_space_are_checked_too(sweep_refused: Refusal) -> None:
    [found] = sweep_refused("search_space.model.lora_target_modules=[[q_proj], [k_proj, x_proj]]")
    assert found.startswith("model.lora_target_modules: the model has no module 'x_proj'")


def test_prompts_that_leave_no_room_for_a_reply_are_refused(
    sweep_refused: Refusal, workspace: Path
) -> None:
    prompts = [{"input": "栈" * length} for length in (5, 400, 600)]
    text = "\n".join(json.dumps(prompt, ensure_ascii=False) for prompt in prompts)
    (workspace / "long.jsonl").write_text(text, encoding="utf-8")
    # The bundled model was made for 512 tokens; only 600 characters alone are more than that.
    [found] = sweep_refused("judge.prompts=long.jsonl", "judge.max_new_tokens=48")
    assert found.startswith("judge.prompts: prompt 3 (")
    assert "+ max_new_tokens 48 > context 512; shorten the prompt or lower max_new_tokens" in found


def test_a_length_that_leaves_no_record_is_refused(sweep_refused: Refusal) -> None:
    assert sweep_refused("algorithm.max_length=8") == [
        "algorithm.max_length: 8 tokens leave no training record; raise it"
    ]
    assert sweep_refused("search_space.algorithm.max_length=[8, 128]") == [
        "algorithm.max_length: 8 tokens leave no training record; raise it"
    ]


def test_a_length_past_the_models_positions_is_refused_with_the_one_to_set(
    sweep_refused: Refusal, workspace: Path
) -> None:
    problem = "algorithm.max_length: must be within the model's 512 positions, got"
    assert sweep_refused("algorithm.max_length=600") == [
        f"{problem} 600; set algorithm.max_length: 512, or fewer"
    ]
    text = (workspace / "sweeps" / "dpo.yaml").read_text(encoding="utf-8")
    unset = text.replace("  max_length: 128\n", "")
    (workspace / "unset.yaml").write_text(unset, encoding="utf-8")
    assert sweep_refused(spec="unset.yaml") == [
        f"{problem} 1024, the default; set algorithm.max_length: 512, or fewer"
    ]


def test_an_epoch_counts_the_records_that_fit(workspace: Path) -> None:
    lines = [json.dumps({"prompt": "栈" * n, "chosen": "好", "rejected": "坏"}) for n in (5, 6, 90)]
    (workspace / "pairs.jsonl").write_text("\n".join(lines), encoding="utf-8")
    spec = load_sweep("dpo", ["data.train=pairs.jsonl", "algorithm.max_length=64"])
    records = preflight(spec)
    assert (len(records.train), records.fitting) == (3, 2)
    assert records.notes[-1] == "training records: 1 left out: prompt fills max_length 64"


def test_a_reward_model_without_a_scalar_head_is_refused(sweep_refused: Refusal) -> None:
    assert sweep_refused("judge.reward.model_name_or_path=data/models/tiny-tutor") == [
        "judge.reward.model_name_or_path: data/models/tiny-tutor: a reward model must be a "
        "sequence classifier with one output, got Qwen2ForCausalLM with 2; "
        "train one with the rm algorithm"
    ]


def test_an_existing_results_folder_is_refused(sweep_refused: Refusal, workspace: Path) -> None:
    (workspace / "results" / "dpo").mkdir(parents=True)
    problem = "exists already; choose another with --set name=..., or remove it"
    assert sweep_refused() == [f"name: results/dpo {problem}"]
    (workspace / "results" / "torn").symlink_to("nowhere")
    assert sweep_refused("name=torn") == [f"name: results/torn {problem}"]


def test_a_results_folder_that_cannot_be_made_is_refused(
    sweep_refused: Refusal, workspace: Path
) -> None:
    (workspace / "notes").write_text("a file", encoding="utf-8")
    file = workspace / "notes"
    for folder in ("notes", "notes/deeper"):
        assert sweep_refused(f"output.folder={folder}") == [
            f"output.folder: must be a folder, and {file} is a file; choose another"
        ]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_results_folder_that_is_not_ours_is_refused(sweep_refused: Refusal) -> None:
    [found] = sweep_refused("output.folder=/")
    assert found == "output.folder: must be writable, and / is not; choose another"


def test_a_model_that_does_not_load_is_refused(sweep_refused: Refusal, workspace: Path) -> None:
    model = workspace / "model"
    model.mkdir()
    for name in ("tokenizer.json", "model.safetensors"):
        (model / name).symlink_to(Path("data/models/tiny-tutor", name).resolve())
    (model / "config.json").write_text("{", encoding="utf-8")
    [found] = sweep_refused("model.model_name_or_path=./model")
    assert found.startswith("model.model_name_or_path: ./model: the model does not load: ")


@pytest.mark.parametrize("setting", ["model", "judge.reward"])
def test_a_model_folder_that_is_not_whole_is_refused(
    sweep_refused: Refusal, workspace: Path, setting: str
) -> None:
    model = workspace / "model"
    model.mkdir()
    shutil.copy("data/models/tiny-reward/config.json", model)
    setting = f"{setting}.model_name_or_path"
    tokenizer, weights = sweep_refused(f"{setting}=./model")
    assert tokenizer.startswith(f"{setting}: ./model: has no tokenizer, none of tokenizer.json, ")
    assert weights == f"{setting}: ./model: has no weights, no *.safetensors and no *.bin"
    shutil.copy("data/models/tiny-reward/tokenizer.json", model)
    pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"
    (model / "model.safetensors").write_text(pointer, encoding="utf-8")
    [found] = sweep_refused(f"{setting}=./model")
    assert found.startswith(f"{setting}: ./model: model.safetensors is not whole (")


def test_a_chat_template_that_cannot_render_is_refused(
    sweep_refused: Refusal, workspace: Path
) -> None:
    [found] = sweep_refused("data.chat_template=nowhere.jinja")
    assert found.startswith("data.chat_template must be Jinja text, a readable file or 'none'")
    (workspace / "broken.jinja").write_text("{% for", encoding="utf-8")
    [found] = sweep_refused("data.chat_template=broken.jinja")
    assert found.startswith("data.chat_template (from spec) cannot render a chat: ")


def test_problems_of_data_models_and_machine_are_reported_together(
    sweep_refused: Refusal, workspace: Path
) -> None:
    (workspace / "results" / "dpo").mkdir(parents=True)
    (workspace / "broken.jsonl").write_text("{", encoding="utf-8")
    found = sweep_refused(
        "resources.cpus_per_trial=4096",
        "data.train=broken.jsonl",
        "model.lora_target_modules=[x_proj]",
        "judge.reward.model_name_or_path=data/models/tiny-tutor",
    )
    assert [problem.split(":")[0] for problem in found] == [
        "resources.cpus_per_trial",
        "name",
        "data.train",
        "model.lora_target_modules",
        "judge.reward.model_name_or_path",
    ]


def test_a_sweep_of_a_broken_spec_starts_nothing(sweep_refused: Refusal) -> None:
    assert sweep_refused("algorithm.betta=1") == [
        "algorithm.betta: unknown key; did you mean beta?"
    ]


def test_a_hub_name_that_cannot_be_had_is_refused(workspace: Path) -> None:
    command = [
        sys.executable, "-m", "easyds_tune.cli.main", "sweep", "dpo",
        "--set", "model.model_name_or_path=nobody/nothing",
    ]  # fmt: skip
    done = subprocess.run(
        command, env={**os.environ, "HF_HUB_OFFLINE": "1"}, capture_output=True, text=True
    )
    assert done.returncode == 2
    assert "error: model.model_name_or_path: nobody/nothing: the model does not load" in done.stderr
    assert not (workspace / "results").exists()
