"""No code of a model folder runs, and nothing is read from stdin, unless the spec allows it."""

from __future__ import annotations

import ast
import builtins
import json
import shutil
from pathlib import Path
from typing import NoReturn

import pytest
import transformers.dynamic_module_utils
import yaml

from easyds_tune.cli.main import main

ROOT = Path(__file__).parents[2]
MODELS = ROOT / "data" / "models"
CODE = """
from pathlib import Path
from transformers import LlamaConfig, LlamaForCausalLM, LlamaForSequenceClassification
from transformers import AutoModel, LlamaModel, PreTrainedTokenizerFast

Path({canary!r}).touch()

class CanaryConfig(LlamaConfig):
    model_type = "own_llama"

class CanaryForCausalLM(LlamaForCausalLM):
    config_class = CanaryConfig

class CanaryForSequenceClassification(LlamaForSequenceClassification):
    config_class = CanaryConfig

class CanaryTokenizer(PreTrainedTokenizerFast):
    pass

class CanaryModel(LlamaModel):
    config_class = CanaryConfig

AutoModel.register(CanaryConfig, CanaryModel, exist_ok=True)
"""
AUTO_MAP = {
    "AutoConfig": "canary.CanaryConfig",
    "AutoModelForCausalLM": "canary.CanaryForCausalLM",
    "AutoModelForSequenceClassification": "canary.CanaryForSequenceClassification",
}


@pytest.fixture(autouse=True)
def canary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file that the code of a model folder makes when it runs."""

    def asked(*arguments: object) -> NoReturn:
        raise AssertionError("a question on the terminal")

    monkeypatch.setattr(builtins, "input", asked)
    cache = str(tmp_path / "modules")
    monkeypatch.setattr(transformers.dynamic_module_utils, "HF_MODULES_CACHE", cache)
    monkeypatch.chdir(tmp_path)
    return tmp_path / "code-has-run"


def with_code(source: str, folder: Path, canary: Path, *, tokenizer: bool = False) -> str:
    """A copy of a bundled model that needs code of its own, for its model or its tokenizer."""
    shutil.copytree(MODELS / source, folder)
    (folder / "canary.py").write_text(CODE.format(canary=str(canary)), encoding="utf-8")
    name = "tokenizer_config.json" if tokenizer else "config.json"
    config = json.loads((folder / name).read_text(encoding="utf-8"))
    if tokenizer:
        config |= {"tokenizer_class": "CanaryTokenizer",
                   "auto_map": {"AutoTokenizer": [None, "canary.CanaryTokenizer"]}}  # fmt: skip
    else:
        config |= {"model_type": "own_llama", "auto_map": AUTO_MAP}
    (folder / name).write_text(json.dumps(config), encoding="utf-8")
    return str(folder)


def adapter_on(base: str, folder: Path, task: str) -> str:
    """An adapter folder with no more in it than says what it stands on."""
    folder.mkdir()
    config = {"peft_type": "LORA", "task_type": task, "base_model_name_or_path": base, "r": 4,
              "target_modules": ["q_proj"]}  # fmt: skip
    (folder / "adapter_config.json").write_text(json.dumps(config), encoding="utf-8")
    return str(folder)


def spec_file(folder: Path, model: str, reward: str) -> Path:
    """A PPO sweep of one step with a policy and a reward, written as YAML."""
    data = str(ROOT / "data" / "easyds")
    scored = {"model_name_or_path": reward}
    spec = {
        "name": "canary",
        "algorithm": {"type": "ppo", "reward": scored, "rollout_batch_size": 4,
                      "response_length": 4},
        "model": {"model_name_or_path": model, "dtype": "float32", "lora_r": 4},
        "data": {"train": {"path": f"{data}/prompts.jsonl", "limit": 16}},
        "judge": {"prompts": f"{data}/judge_prompts.jsonl", "num_prompts": 2, "max_new_tokens": 4,
                  "reward": scored},
        "training": {"max_steps": 1, "per_device_train_batch_size": 4, "learning_rate": 1e-4},
        "search_space": {"training.learning_rate": {"low": 1e-5, "high": 1e-3, "log": True}},
        "search": {"num_trials": 1},
        "resources": {"gpus_per_trial": 0},
        "finals": None,
    }  # fmt: skip
    path = folder / "canary.yaml"
    path.write_text(yaml.safe_dump(spec), encoding="utf-8")
    return path


PLACES = ("policy", "policy adapter's base", "reward", "reward adapter's base")


@pytest.mark.parametrize("command", [["plan", "--full"], ["sweep"], ["train", "--to", "out"]])
@pytest.mark.parametrize("place", PLACES)
def test_no_code_runs_without_the_spec_s_word(
    place: str,
    command: list[str],
    tmp_path: Path,
    canary: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    model, reward = str(MODELS / "tiny-tutor"), str(MODELS / "tiny-reward")
    if place.startswith("policy"):
        model = with_code("tiny-tutor", tmp_path / "policy", canary)
    else:
        reward = with_code("tiny-reward", tmp_path / "reward", canary)
    if place == "policy adapter's base":
        model = adapter_on(model, tmp_path / "adapter", "CAUSAL_LM")
    elif place == "reward adapter's base":
        reward = adapter_on(reward, tmp_path / "adapter", "SEQ_CLS")
    path = spec_file(tmp_path, model, reward)
    code = main([command[0], str(path), *command[1:]])
    error = capsys.readouterr().err
    assert not canary.exists()
    assert code == 2, error
    assert "trust_remote_code: true" in error
    assert not (tmp_path / "results").exists()
    assert not (tmp_path / "out").exists()


@pytest.mark.timeout(120)
def test_a_tokenizer_s_code_does_not_run_where_the_library_has_a_class_for_it(
    tmp_path: Path, canary: Path
) -> None:
    model = with_code("tiny-tutor", tmp_path / "policy", canary, tokenizer=True)
    reward = with_code("tiny-reward", tmp_path / "reward", canary, tokenizer=True)
    assert main(["train", str(spec_file(tmp_path, model, reward)), "--to", "out"]) == 0
    assert not canary.exists()


@pytest.mark.timeout(120)
def test_with_the_spec_s_word_policy_and_reward_train(tmp_path: Path, canary: Path) -> None:
    reward = with_code("tiny-reward", tmp_path / "reward", canary)
    path = spec_file(tmp_path, with_code("tiny-tutor", tmp_path / "policy", canary), reward)
    allowed = [f"{section}.trust_remote_code=true"
               for section in ("model", "algorithm.reward", "judge.reward")]  # fmt: skip
    overrides = [part for override in allowed for part in ("--set", override)]
    assert main(["train", str(path), "--to", "out", *overrides]) == 0
    assert canary.exists()


def test_every_place_that_loads_a_model_says_whether_its_code_may_run() -> None:
    """Transformers asks on the terminal where `trust_remote_code` is not given."""
    silent = []
    for path in sorted((ROOT / "easyds_tune").rglob("*.py")):
        for call in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Attribute):
                continue
            owner = ast.unparse(call.func.value)
            loads = call.func.attr in ("from_pretrained", "from_config")
            # PeftModel, PeftConfig, LoraConfig and GenerationConfig run no code of a folder.
            if not loads or not (owner.startswith("Auto") or owner == "auto"):
                continue
            given = {keyword.arg for keyword in call.keywords}
            if not given & {"trust_remote_code", None}:
                silent.append(f"{path.name}:{call.lineno}: {owner}.{call.func.attr}")
    assert silent == []
