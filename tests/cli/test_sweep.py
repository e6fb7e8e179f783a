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
from transformers import PreTrainedTokenizerBase

from easyds_tune.data.records import user
from easyds_tune.data.template import Template, choose_template
from easyds_tune.data.tokenise import Encoder
from easyds_tune.models.load import load_tokenizer
from easyds_tune.spec.load import load_sweep
from easyds_tune.sweep.lock import lock
from easyds_tune.sweep.preflight import preflight
from tests.models.adapters import edit_config, sft_adapter

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
    batch = "training.per_device_train_batch_size=2"
    spec = load_sweep("dpo", ["data.train=pairs.jsonl", "algorithm.max_length=64", batch])
    records = preflight(spec)
    assert (len(records.train), records.fitting) == (3, 2)
    assert records.notes[-1] == "training records: 1 left out: longer than max_length 64"


def test_a_reward_model_without_a_scalar_head_is_refused(sweep_refused: Refusal) -> None:
    assert sweep_refused("judge.reward.model_name_or_path=data/models/tiny-tutor") == [
        "judge.reward.model_name_or_path: data/models/tiny-tutor: a reward model must be a "
        "sequence classifier with one output, got Qwen2ForCausalLM with 2; "
        "train one with the rm algorithm"
    ]


def test_a_classifier_in_the_place_of_the_policy_is_refused(sweep_refused: Refusal) -> None:
    assert sweep_refused("model.model_name_or_path=data/models/tiny-reward", spec="ppo.yaml") == [
        "model.model_name_or_path: data/models/tiny-reward: must be a language model, and it is a "
        "Qwen2ForSequenceClassification, which writes nothing; a reward model goes under reward"
    ]


def test_ppos_reward_is_looked_at_like_the_judges(
    sweep_refused: Refusal, tmp_path: Path, workspace: Path
) -> None:
    tutor = Path("data/models/tiny-tutor")
    sft_adapter(workspace / "my-sft", tutor)
    both = ["judge", "algorithm"]
    found = sweep_refused(
        *(f"{section}.reward.model_name_or_path={tutor}" for section in both), spec="ppo.yaml"
    )
    assert found == [
        f"{section}.reward.model_name_or_path: data/models/tiny-tutor: a reward model must be a "
        "sequence classifier with one output, got Qwen2ForCausalLM with 2; train one with the rm "
        "algorithm"
        for section in both
    ]
    assert sweep_refused("algorithm.reward.model_name_or_path=my-sft", spec="ppo.yaml") == [
        "algorithm.reward.model_name_or_path: my-sft: a reward model's adapter must be of task "
        "type SEQ_CLS, got CAUSAL_LM; give one that was trained with the rm algorithm"
    ]


def test_a_ppo_sweep_may_start_from_an_adapter_that_can_be_stacked(
    sweep_refused: Refusal, workspace: Path
) -> None:
    adapter = sft_adapter(workspace / "my-sft", Path("data/models/tiny-tutor").resolve())
    start = "model.model_name_or_path=my-sft"
    assert preflight(load_sweep("ppo", [start])).fitting == 24
    assert preflight(
        load_sweep("ppo", [start, f"algorithm.ref_model_name_or_path={adapter}"])
    ).fitting
    [found] = sweep_refused(start, "search_space.model.lora_r=[4, null]", spec="ppo.yaml")
    assert found.startswith("model.lora_r: must be a rank where the model is an adapter")
    edit_config(adapter, use_dora=True)
    [found] = sweep_refused(start, spec="ppo.yaml")
    assert "use_dora must be false for an adapter to stand under another, got true" in found


def lines_of(*lengths: int) -> str:
    """Prompts of so many characters, which are tokens of their own, as JSON lines."""
    return "\n".join(json.dumps({"input": "栈" * length}, ensure_ascii=False) for length in lengths)


def test_ppo_prompts_without_room_for_the_longest_reply_are_refused_with_the_remedy(
    sweep_refused: Refusal, workspace: Path
) -> None:
    (workspace / "long.jsonl").write_text(lines_of(5, 300, 400), encoding="utf-8")
    given = ["data.train=long.jsonl", "algorithm.response_length=200"]
    tokens = Encoder(*tokenizer_and_template()).prompts([(user("栈" * 400),)])
    longest = len(tokens[0])
    # 512 positions less 200 for the reply; the chat template takes its share of the prompt.
    [found] = sweep_refused(*given, spec="ppo.yaml")
    assert found == (
        "data.train: 2 of 3 prompts are longer than the 312 tokens that the model's 512 positions "
        f"leave beside response_length 200 (the longest has {longest}); set "
        "algorithm.max_prompt_length: 312 to leave them out, or lower response_length to "
        f"{512 - longest}"
    )
    left_out = preflight(load_sweep("ppo", [*given, "algorithm.max_prompt_length=312"]))
    assert left_out.fitting == 1
    assert (
        "warning: training records: 2 of 3 (67%) left out: longer than max_prompt_length 312; 1 "
        "are left; raise algorithm.max_prompt_length"
    ) in left_out.notes
    shorter = f"algorithm.response_length={512 - longest}"
    assert preflight(load_sweep("ppo", ["data.train=long.jsonl", shorter])).fitting == 3


def test_the_longest_searched_reply_and_prompt_decide_about_room(
    sweep_refused: Refusal, workspace: Path
) -> None:
    (workspace / "long.jsonl").write_text(lines_of(5, 300, 480), encoding="utf-8")
    found = sweep_refused(
        "data.train=long.jsonl",
        "algorithm.max_prompt_length=100",
        "search_space.algorithm.response_length=[48, 200]",
        "search_space.algorithm.max_prompt_length=[100, 400]",
        spec="ppo.yaml",
    )
    assert len(found) == 1
    assert found[0].startswith("data.train: 1 of 3 prompts are longer than the 312 tokens")


def test_a_remedy_that_would_leave_no_prompt_is_not_given(
    sweep_refused: Refusal, workspace: Path
) -> None:
    (workspace / "long.jsonl").write_text(lines_of(400, 400), encoding="utf-8")
    [found] = sweep_refused(
        "data.train=long.jsonl", "algorithm.response_length=200", spec="ppo.yaml"
    )
    assert "; lower response_length to " in found
    assert "max_prompt_length" not in found
    for length in (512, 600):
        assert sweep_refused(f"algorithm.response_length={length}", spec="ppo.yaml") == [
            "algorithm.response_length: must leave room for a prompt in the model's 512 positions, "
            f"got {length}; lower it"
        ]
    assert sweep_refused("algorithm.max_prompt_length=3", spec="ppo.yaml") == [
        "algorithm.max_prompt_length: 3 tokens leave no training record; raise it"
    ]


def tokenizer_and_template() -> tuple[PreTrainedTokenizerBase, Template]:
    tokenizer = load_tokenizer("data/models/tiny-tutor")
    return tokenizer, choose_template(tokenizer, None)


def test_what_would_fail_in_every_trial_is_refused_before_the_first(
    sweep_refused: Refusal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    found = sweep_refused(
        "model.dtype=float16", "training.lr_scheduler_type=cosine_with_min_lr", spec="ppo.yaml"
    )
    assert [problem.split(":")[0] for problem in found] == [
        "model.dtype",
        "training.lr_scheduler_type",
    ]


def test_an_existing_results_folder_is_refused(sweep_refused: Refusal, workspace: Path) -> None:
    (workspace / "results" / "dpo").mkdir(parents=True)
    (workspace / "results" / "dpo" / "notes.txt").touch()
    problem = "exists already; choose another with --set name=..., or remove it"
    assert sweep_refused() == [f"name: results/dpo {problem}"]
    (workspace / "results" / "torn").symlink_to("nowhere")
    assert sweep_refused("name=torn") == [f"name: results/torn {problem}"]


def test_a_sweep_that_runs_just_now_is_not_offered_for_removal(
    sweep_refused: Refusal, workspace: Path
) -> None:
    folder = workspace / "results" / "dpo"
    folder.mkdir(parents=True)
    with lock(folder):
        [found] = sweep_refused()
    assert found.startswith(f"name: results/dpo is being run by process {os.getpid()} on ")
    assert found.endswith("; choose another with --set name=...")


@pytest.mark.parametrize(
    "name",
    ["../x", "../../x", "results/../../x", "{folder}/x", "", ".", "..", "~", "x" * 81, "x" * 10_000,
     "x\0", "x\x1b[2J", "x\ny", "x\r", "\u202ex", "x\u2215y", "x\\y", "-x", ".x", " x", "x "],
)  # fmt: skip
def test_a_name_that_could_stand_elsewhere_is_refused_wherever_it_is_written(
    refused: Refusal, workspace: Path, name: str
) -> None:
    name = name.format(folder=workspace)
    written = json.dumps(name)  # YAML reads JSON's text
    spec = workspace / "named.yaml"
    text = Path("sweeps", "dpo.yaml").read_text(encoding="utf-8")
    spec.write_text(f"{text}\nname: {written}\n", encoding="utf-8")
    for command in ("plan", "sweep", "train"):
        for arguments in (["dpo", "--set", f"name={written}"], ["named.yaml"]):
            [found] = refused(command, *arguments)
            assert found.startswith("name: must be 1 to 80 letters, digits, '.', '_' or '-'")
            assert found.isprintable()


@pytest.mark.parametrize("value", ["", "null", "7", "[a]", "{a: b}"])
def test_a_name_is_text(sweep_refused: Refusal, value: str) -> None:
    [found] = sweep_refused(f"name={value}")
    assert found.startswith("name: must be text, got ")


def test_control_characters_written_as_they_are_are_no_yaml(sweep_refused: Refusal) -> None:
    for name in ("x\0", "x\x1b[2J"):
        [found] = sweep_refused(f"name={name}")
        assert found.startswith("--set name:1: not valid YAML: the character ")


@pytest.mark.parametrize("command", ["sweep", "train"])
def test_what_is_written_never_follows_a_link(
    refused: Refusal, workspace: Path, command: str
) -> None:
    outside = workspace / "outside"
    outside.mkdir()
    name = {"sweep": "dpo", "train": "dpo-single"}[command]
    link = workspace / "results" / name
    link.parent.mkdir()
    for target in (outside, workspace / "nowhere"):
        link.symlink_to(target)
        [found] = refused(command, "dpo")
        assert f"results/{name} exists already; " in found
        link.unlink()
    shutil.rmtree(link.parent)
    link.parent.symlink_to(workspace / "nowhere")
    if command == "sweep":
        [found] = refused(command, "dpo")
        assert found.startswith("output.folder: must be a folder, and ")


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
    assert (
        weights == f"{setting}: ./model: has no weights, no *.safetensors and no pytorch_model*.bin"
    )
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
    (workspace / "results" / "dpo" / "trials").mkdir(parents=True)
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
    assert "model.model_name_or_path: nobody/nothing: there is no such folder here" in done.stderr
    assert "not in the hub's cache, and HF_HUB_OFFLINE is set; correct it" in done.stderr
    assert not (workspace / "results").exists()
