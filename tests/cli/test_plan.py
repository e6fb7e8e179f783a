"""`plan` refuses whatever can be known to be wrong without a model, and writes nothing."""

from __future__ import annotations

import json
import re
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from easyds_tune.cli.main import main
from easyds_tune.spec.model import ModelSpec
from easyds_tune.sweep.plan import trained_weights

Refusal = Callable[..., list[str]]
PAIR = '{"prompt": "栈是什么？", "chosen": "想想盘子。", "rejected": "后进先出。"}'

ONE_SLOT = ["--set", "resources.max_concurrent=1"]


def test_a_plan_shows_the_resolved_spec_and_what_it_comes_to(
    workspace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["plan", "dpo", "--set", "search.num_trials=7", *ONE_SLOT]) == 0
    out = capsys.readouterr().out
    assert "  lora_dropout: 0.0\n" in out  # a default that nobody wrote
    # 100 steps, evaluated every 25: 4 checkpoints a trial. 7 trials have one rung, after 100 / 3.
    assert "# trials: 7, the first is the configuration above" in out
    assert "# steps: 100 a trial, evaluated every 25\n" in out
    assert "# rungs: step 50; at each the best 1/3 go on (asha)" in out
    assert "in 28 checkpoints under results/" in out
    assert "records: 24 train, 0 held out, 24 judge prompts" in out


def test_a_plan_shows_what_decides(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    overrides = [
        "objective=[{metric: eval/reward}, {metric: eval/kl}]",
        "bounds={eval/kl: {min: 0.01, max: 0.2}, train/grad_norm: {max: 50, from_step: 10, "
        "patience: 2, hard: false}}",
        "stop={hours: 2, no_improvement: 5}",
        "search.sampler=random",
    ]
    assert main(["plan", "dpo", *(word for text in overrides for word in ("--set", text))]) == 0
    out = capsys.readouterr().out
    assert "# note: search.sampler: random ignores bounds, and goes on outside them" in out
    assert "# rungs: none, every trial runs to its end\n" in out
    assert "# objective: eval/reward (max), eval/kl (min); the first ranks" in out
    assert (
        "# bounds: eval/kl 0.01 to 0.2 (stops outside); train/grad_norm at most 50 from step 10, "
        "2 reports in a row (infeasible outside)\n" in out
    )
    assert "# stop: after 2 hours, or 5 trials without an improvement, if that is before" in out
    assert "# finals: none, several objectives have a front; best shows it\n" in out


def test_a_plan_shows_the_finals(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    everything = ["--set", "output.keep=null"]
    assert main(["plan", "dpo", "--set", "finals.seeds=2", *everything]) == 0
    out = capsys.readouterr().out
    assert "# finals: the 5 best checkpoints on 24 fresh prompts, half to pick the winner" in out
    # 16 trials, and 5 and the default trained again on 2 seeds
    assert "in 112 checkpoints" in out


def test_all_that_is_wrong_with_decisions_is_told_together(plan_refused: Refusal) -> None:
    found = plan_refused(
        "bounds={eval/kl: {min: 3, max: 2}, eval/rewrd: {min: 1}}",
        "scheduler.grace_period=5",
        "search.points=[{model.lora_r: 3}]",
        "search_space.model.lora_alpha={choice: [8, 16], when: {model.lora_rr: 8}}",
        "search.points_from=nowhere",
        "finals.prompts=missing.jsonl",
    )
    assert [problem.split(": ")[0] for problem in found] == [
        "bounds.eval/kl",
        "bounds.eval/rewrd",
        "scheduler.grace_period",
        "search_space.model.lora_alpha.when",
        "search.points.0.model.lora_r",
        "search.points_from",
        "finals.prompts",
    ]


# ---- the spec ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("override", "problem"),
    [
        ("algorithm.betta=1", "algorithm.betta: unknown key; did you mean beta?"),
        ("trainng.max_steps=3", "trainng: unknown key; did you mean training?"),
        ("training.lora_r=3", "training.lora_r: unknown key; did you mean model.lora_r?"),
        ("algorithm.type=dppo", "type: must be sft, rm, dpo or ppo, got 'dppo'; did you mean ppo?"),
        ("algorithm.loss_type=hing", "got 'hing'; did you mean hinge?"),
        ("algorithm=dpo", "algorithm: must be a mapping of settings, got 'dpo'"),
        ("training.max_steps=1.5", "training.max_steps: must be a whole number, got 1.5"),
        ("training.max_steps=true", "training.max_steps: must be a whole number, got 'true'"),
        ("training.max_steps=9999999999", "must be at most 2147483647, got 9999999999"),
        ("training.max_steps=1e99", "must be a whole number of fewer digits, got 1e+99"),
        ("training.learning_rate=.inf", "training.learning_rate: must be a finite number, got inf"),
        ("training.learning_rate=.nan", "training.learning_rate: must be a finite number, got nan"),
        ("training.learning_rate=fast", "training.learning_rate: must be a number, got 'fast'"),
        ("training.num_train_epochs=1", "training: must have max_steps or num_train_epochs"),
        ("training.eval_steps=190", "training.eval_steps: must be at most max_steps, got 190"),
        ("training.training_arguments.output_dir=x", "the sweep keeps checkpoints and"),
        ("training.training_arguments.otpim=x", "unknown argument; did you mean optim?"),
        ("model.lora_target_modules=[]", "lora_target_modules: must name at least one module"),
        ("model.lora_target_modules=(", "must be a list of names or a regular expression, got '('"),
        ("deepspeed=zero4", "deepspeed: must be one of zero0, zero1, zero2, zero3 or a JSON file"),
        ("deepspeed=3", "deepspeed: must be text or a mapping, got 3"),
        ("deepspeed={train_batch_size: 7}", "accumulation × ranks, got 7 != 8"),
        ("resources.gpus_per_trial=2", "must be at most 1, got 2: a trial has one rank; several"),
        ("resources.cpus_per_trial=4096", "asks for 4096 cores, this machine has"),
        ("objective.metric=eval/rewrad", "eval/rewrad; did you mean eval/reward?"),
        ("objective.metric=train/loss", "objective.metric: train/loss cannot compare trials"),
        ("objective.metric=eval/length", "objective: must say whether longer replies are better"),
        ("search_space={}", "search_space: is empty, so 16 trials would all be the same; give"),
        ("search_space={model.lora_r: [4, 8]}", "search.num_trials: must be at most 2, as many"),
        ("judge=null", "judge: is required and missing, because the objective is eval/reward"),
        ("output.folder=~/x", "output.folder: must be a path written out, without ~, got '~/x'"),
    ],
)  # fmt: skip
def test_a_wrong_field_is_refused_by_its_path(
    plan_refused: Refusal, override: str, problem: str
) -> None:
    [found] = plan_refused(override)
    assert problem in found


@pytest.mark.parametrize(
    ("override", "problem"),
    [
        ("algorithm.kl_target=0", "algorithm.kl_target: must be greater than 0, got 0"),
        ("algorithm.kl_target=-0.1", "algorithm.kl_target: must be greater than 0, got -0.1"),
        ("algorithm.kl_target=.nan", "algorithm.kl_target: must be a finite number, got nan"),
        ("algorithm.kl_horizon=0", "algorithm.kl_horizon: must be at least 1, got 0"),
        ("algorithm.kl_horizon=-3", "algorithm.kl_horizon: must be at least 1, got -3"),
        ("algorithm.gamma=1.1", "algorithm.gamma: must be at most 1, got 1.1"),
        ("algorithm.lam=-1", "algorithm.lam: must be at least 0, got -1"),
        ("algorithm.temperature=0", "algorithm.temperature: must be greater than 0, got 0"),
        ("algorithm.response_length=0", "algorithm.response_length: must be at least 1, got 0"),
        ("algorithm.kl_estimator=k4", "algorithm.kl_estimator: must be k1, k2 or k3, got 'k4'"),
        ("algorithm.kl_targt=1", "algorithm.kl_targt: unknown key; did you mean kl_target?"),
        ("algorithm.beta=1", "algorithm.beta: unknown key; known here: type, reward, ref_model"),
        ("algorithm.reward.max_lenght=9", "unknown key; did you mean max_length?"),
        ("algorithm.reward=null", "algorithm.reward: must be a mapping of settings, got null"),
        ("algorithm.reward.model_name_or_path=./x", "reward.model_name_or_path: must be a model"),
        ("algorithm.ref_model_name_or_path=data/models/tiny-reward",
         "must be the policy's start, data/models/tiny-tutor, got data/models/tiny-reward"),
        ("algorithm.rollout_batch_size=60", "got 60 and 16 × 1; set rollout_batch_size: 64"),
        ("algorithm.num_generations=3", "got 64 and 3; set rollout_batch_size: 96"),
        ("algorithm.advantage_estimator=grpo", "must be at least 2 for grpo, which compares"),
        ("model.lora_dropout=0.05", "model.lora_dropout: must be 0 for ppo, got 0.05"),
        ("algorithm.kl_coef=0", "algorithm.kl_coef: must be above 0 for the adaptive controller"),
        ("judge=null", "judge: is required and missing, because the objective is eval/reward"),
        ("training.training_arguments.optim=sgd", "ppo does not take it; it takes adam_epsilon"),
        ("search_space.algorithm.kl_target=[0, 0.1]",
         "search_space.algorithm.kl_target: the value 0 is refused: algorithm.kl_target: must be"),
        ("search_space.algorithm.kl_targt=[0.1]", "did you mean algorithm.kl_target?"),
        ("search_space.algorithm.reward.model_name_or_path=[a, b]", "all trials train on one rew"),
        ("search_space.training.per_device_train_batch_size=[8, 24]", "got 64 and 24 × 1"),
    ],
)  # fmt: skip
def test_a_wrong_field_of_ppo_is_refused_by_its_path(
    plan_refused: Refusal, override: str, problem: str
) -> None:
    [found] = plan_refused(override, spec="ppo.yaml")
    assert problem in found


def test_all_that_is_wrong_with_a_ppo_sweep_is_told_at_once(plan_refused: Refusal) -> None:
    found = plan_refused(
        "algorithm.kl_target=0",
        "algorithm.kl_horizon=-1",
        "algorithm.gamma=2",
        "algorithm.rollout_batch_size=60",
        "algorithm.reward.model_name_or_path=nowhere/at/all",
        "model.lora_dropout=0.1",
        "data.train=nowhere.jsonl",
        spec="ppo.yaml",
    )
    assert [problem.split(":")[0] for problem in found] == [
        "algorithm.kl_target",
        "algorithm.kl_horizon",
        "algorithm.gamma",
        "model.lora_dropout",
        "algorithm.rollout_batch_size",
        "algorithm.reward.model_name_or_path",
        "data.train",
    ]


@pytest.mark.parametrize("spec", ["sft.yaml", "rm.yaml", "dpo.yaml"])
def test_only_ppo_starts_from_an_adapter(
    plan_refused: Refusal, workspace: Path, spec: str, capsys: pytest.CaptureFixture[str]
) -> None:
    adapter = workspace / "my-sft"
    adapter.mkdir()
    base = {"base_model_name_or_path": "data/models/tiny-tutor"}
    (adapter / "adapter_config.json").write_text(json.dumps(base), encoding="utf-8")
    [found] = plan_refused("model.model_name_or_path=my-sft", spec=spec)
    assert found == (
        f"model.model_name_or_path: must be a whole model for {spec.removesuffix('.yaml')}, and "
        "my-sft is an adapter; merge it first with easyds-tune export NAME --to DIR --merge"
    )
    assert main(["plan", "ppo", "--set", "model.model_name_or_path=my-sft"]) == 0
    assert "checkpoints under results/" in capsys.readouterr().out


def test_a_plan_of_ppo_counts_rollouts_and_says_what_deserves_a_word(
    workspace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # 5 passes over 24 prompts, one reply each: 120 replies in 2 steps of 64.
    epochs = ["training.max_steps=null", "training.num_train_epochs=5", "training.eval_steps=null"]
    assert main(["plan", "ppo", *(word for text in epochs for word in ("--set", text))]) == 0
    out = capsys.readouterr().out
    assert "# steps: 2 a trial, evaluated every 1; fewer where algorithm.max_prompt_length" in out
    assert "# note: judge.reward: is the very reward that PPO trains on" in out
    assert "# note: algorithm.kl_horizon: in a trial of 2 steps a horizon of 2 moves" in out


def test_a_plan_of_searched_rollouts_counts_in_examples(
    workspace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    searched = "search_space.algorithm.rollout_batch_size=[64, 128]"
    steps = ["training.max_steps=30", "training.eval_steps=10"]
    overrides = [word for text in (searched, *steps) for word in ("--set", text)]
    assert main(["plan", "ppo", *overrides, *ONE_SLOT]) == 0
    out = capsys.readouterr().out
    assert "# steps: 30 a trial, evaluated every 10 at the default batch; a trial with a lar" in out
    assert "# rungs: examples 640; at each the best 1/3 go on (asha)" in out


@pytest.mark.parametrize(
    "name", ["", "..", "../x", "a/b", "/x", ".x", "-x", "教学", "x" * 81, "a b"]
)
def test_a_name_that_is_no_folder_name_is_refused(plan_refused: Refusal, name: str) -> None:
    [found] = plan_refused(f"name='{name}'")
    assert found.startswith("name: must be 1 to 80 letters, digits, '.', '_' or '-', starting with")
    assert found.endswith(f"got {name!r}")


@pytest.mark.parametrize(
    ("override", "problem"),
    [
        ("training.learning_rat={low: 1, high: 2}",
         "training.learning_rat: is no field of the spec; did you mean training.learning_rate?"),
        ("training.training_arguments.optim=[sgd]", "what stands inside a field cannot be"),
        ("algorithm.type=[dpo]", "algorithm.type: cannot be searched: a sweep trains with one"),
        ("data.train=[a, b]", "data.train: cannot be searched; what can be is under algorithm"),
        ("algorithm={low: 1, high: 2}", "algorithm: names a section; name one of its fields"),
        ("algorithm.beta={low: -1, high: 2}",
         "the value -1.0 is refused: algorithm.beta: must be greater than 0, got -1.0"),
        ("algorithm.loss_type=[ipo, sigmod]", "the value 'sigmod' is refused"),
        ("algorithm.beta={low: 2, high: 1}", "low < high must hold, got low=2.0 and high=1.0"),
        ("algorithm.beta={low: 1, high: 1}", "low < high must hold, got low=1.0 and high=1.0"),
        ("training.weight_decay={low: 0, high: 1, log: true}",
         "low must be positive where log is true, got low=0.0"),
        ("algorithm.loss_type={choice: []}", "must hold at least 1 value, got []"),
        ("algorithm.loss_type=[]", "must hold at least 1 value, got []"),
        ("algorithm.loss_type=[ipo, ipo]", "choice must not repeat a value"),
        ("algorithm.beta={low: 1, hgih: 2, high: 2}", "hgih: unknown key; did you mean high?"),
        ("algorithm.beta={low: 1}", "algorithm.beta.high: is required and missing"),
        ("algorithm.beta=3", "must be a range such as {low: 1, high: 8} or a list"),
    ],
)  # fmt: skip
def test_a_wrong_search_space_is_refused(
    plan_refused: Refusal, override: str, problem: str
) -> None:
    [found] = plan_refused(f"search_space.{override}")
    assert found.startswith("search_space.")
    assert problem in found


def test_more_gpus_than_there_are_are_refused(
    plan_refused: Refusal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert plan_refused("resources.gpus_per_trial=0.5") == [
        "resources.gpus_per_trial: asks for 0.5 GPU, this machine has 0; "
        "set gpus_per_trial: 0 to train on the CPU"
    ]


def test_missing_files_and_models_are_refused_together(
    plan_refused: Refusal, workspace: Path
) -> None:
    assert plan_refused(
        "data.train=nowhere.jsonl",
        "model.model_name_or_path=./nowhere",
        "judge.prompts=nowhere/at/all",
        "judge.reward.model_name_or_path=data/easyds",
    ) == [
        "model.model_name_or_path: must be a model's folder or a hub name, "
        "and './nowhere' does not exist",
        "judge.reward.model_name_or_path: must be a model's folder or a hub name, "
        "and 'data/easyds' has no config.json",
        f"data.train: no such file: 'nowhere.jsonl'; looked in {workspace}",
        f"judge.prompts: no such file: 'nowhere/at/all'; looked in {workspace}",
    ]


def test_all_problems_of_a_file_are_reported_together(
    plan_refused: Refusal, workspace: Path
) -> None:
    text = (workspace / "sweeps" / "dpo.yaml").read_text("utf-8")
    text = text.replace("beta:", "betta:").replace("max_steps: 100", "max_steps: -3")
    text = text.replace("preferences.jsonl", "nowhere.jsonl").replace("lora_r: 8", "lora_r: eight")
    (workspace / "wrong.yaml").write_text(text + "search_space.x: 1\n", encoding="utf-8")
    found = plan_refused(
        "top",
        "deepspeed={train_batch_size: 7}",
        "resources.cpus_per_trial=4096",
        spec="wrong.yaml",
    )
    assert [problem.split(":")[0] for problem in found] == [
        "--set top",
        "algorithm.betta",
        "model.lora_r",
        "training.max_steps",
        "search_space.x",
        "deepspeed.train_batch_size",
        "data.train",
        "resources.cpus_per_trial",
    ]


# ---- files that hold no spec ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "spec.yaml: must hold settings such as `seed: 1`, got nothing"),
        (b"# only a comment", "spec.yaml: must hold settings such as `seed: 1`, got nothing"),
        (b"- a\n- b\n", "spec.yaml: must hold settings such as `seed: 1`, got list"),
        (b"dpo", "spec.yaml: must hold settings such as `seed: 1`, got str"),
        (b"a: 1\na: 2\n", "spec.yaml:2: not valid YAML: the key 'a' is written twice"),
        (b"a:\n  b: 1\n  b: 2\n", "spec.yaml:3: not valid YAML: the key 'b' is written twice"),
        (b"1: x\n", "spec.yaml:1: not valid YAML: a key must be text, got 1; put it in quotes"),
        (b"a:\n\tb: 1\n", "spec.yaml:2: not valid YAML: found character '\\t'"),
        (b"a: [1\nb: 2\n", "spec.yaml:2: not valid YAML"),
        (b"a: *nowhere\n", "spec.yaml:1: not valid YAML: found undefined alias"),
        (b"a: !!python/object:os.system x\n", "spec.yaml:1: not valid YAML: the tag python/objec"),
        ("名: 值\n".encode("gb18030"), "spec.yaml: must be UTF-8, and byte 0 is not"),
        (b"[" * 1500, "spec.yaml: not valid YAML"),
        (b"a: " + b"9" * 5000, "spec.yaml:1: not valid YAML: a number must have at most 100"),
    ],
    ids=lambda value: value[:12].decode(errors="replace") if isinstance(value, bytes) else "",
)
def test_a_file_that_holds_no_spec_is_refused_with_its_line(
    refused: Refusal, workspace: Path, content: bytes, problem: str
) -> None:
    (workspace / "spec.yaml").write_bytes(content)
    [found] = refused("plan", "spec.yaml")
    assert found.startswith(problem)


def test_a_spec_that_is_not_there_is_refused_with_those_that_are(refused: Refusal) -> None:
    known = f"sweeps/ has {', '.join(sorted(path.name for path in Path('sweeps').iterdir()))}"
    assert refused("plan", "dpp.yaml") == [f"dpp.yaml: no such file, here or in sweeps/; {known}"]
    assert refused("plan", "x" * 300) == [f"{'x' * 300}: no such file, here or in sweeps/; {known}"]
    assert refused("plan", "a\0b") == [f"a\0b: no such file, here or in sweeps/; {known}"]
    assert refused("plan", "") == [f"SPEC is empty: no such file, here or in sweeps/; {known}"]
    assert refused("plan", "data") == [
        f"data: is a folder, not a YAML file, here or in sweeps/; {known}"
    ]


@pytest.mark.parametrize("text", ["seed", "=1", "a..b=1", ".a=1", "a.=1", "a b=1", "1=1"])
def test_an_override_without_a_path_and_a_value_is_refused(
    plan_refused: Refusal, text: str
) -> None:
    assert plan_refused(text) == [f"--set {text}: must look like training.learning_rate=1e-4"]


def test_an_override_below_a_value_or_of_broken_yaml_is_refused(plan_refused: Refusal) -> None:
    known = ", ".join(sorted(path.stem for path in Path("search_spaces").iterdir()))
    assert plan_refused("algorithm.beta.x=1", "training=[1", "search_space=nonexistent") == [
        "search_space: no file 'nonexistent' here or in search_spaces/; "
        f"search_spaces/ has {known}",
        "--set algorithm.beta.x=1: a part of algorithm.beta.x before its end holds a value and "
        "no fields; set that part itself",
        "--set training:1: not valid YAML: expected ',' or ']', but got '<stream end>'",
    ]


# ---- data -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "content", "problems"),
    [
        ("broken.jsonl", f'{PAIR}\n{PAIR[:30]}\n{PAIR}\n[1]\n'.encode(),
         ["broken.jsonl:2: broken JSON line: ", "broken.jsonl:4: broken JSON line: a record"]),
        ("empty.jsonl", b"", ["empty.jsonl: holds no records; give a file with at least one"]),
        ("same.jsonl", b'{"prompt": "q", "chosen": "a", "rejected": "a"}\n' * 2,
         ["same.jsonl: all 2 records were dropped (2 × chosen equals rejected)"]),
        ("utf16.jsonl", PAIR.encode("utf-16"), ["utf16.jsonl: is not text in utf-8 or gb18030"]),
        ("latin.jsonl", '{"text": "café naïve"}'.encode("latin-1"), ["latin.jsonl: is not text"]),
        ("fields.jsonl", f'{PAIR}\n{{"prompt": "q", "chosen": "a"}}\n'.encode(),
         ["fields.jsonl:2: needs the field 'rejected', has 'prompt', 'chosen'"]),
        ("other.jsonl", b'{"question": "q", "answer": "a"}\n',
         ["other.jsonl: the columns 'question', 'answer' fit no known format"]),
        ("rows.csv", b"prompt,chosen,rejected\nq,a\n",
         ["rows.csv:2: has 2 fields where the header has 3"]),
        ("not.parquet", b"PAR1", ["not.parquet: is not a Parquet file that can be read"]),
        ("cut.jsonl.gz", b"\x1f\x8b\x08\x00", ["cut.jsonl.gz: is not a whole gzip file"]),
        ("notes.txt", b"x", ["notes.txt: the name must end in one of .jsonl, .json, .csv"]),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)  # fmt: skip
def test_broken_training_data_is_refused_with_file_and_line(
    plan_refused: Refusal, workspace: Path, name: str, content: bytes, problems: list[str]
) -> None:
    (workspace / name).write_bytes(content)
    found = plan_refused(f"data.train={name}")
    assert len(found) == len(problems)
    for text, problem in zip(found, problems, strict=True):
        assert text.startswith(f"data.train: {problem}")


def test_a_named_encoding_is_taken_at_its_word(plan_refused: Refusal, workspace: Path) -> None:
    (workspace / "gbk.jsonl").write_bytes(PAIR.encode("gb18030"))
    [found] = plan_refused("data.train={path: gbk.jsonl, encoding: utf-8}")
    assert found.startswith("data.train: gbk.jsonl: is not text in utf-8 (wrong bytes at byte 14)")
    [found] = plan_refused("data.train={path: gbk.jsonl, encoding: utf-9}")
    assert found.startswith(
        "data.train.encoding: must be auto or one that Python knows, got 'utf-9'"
    )


def test_problems_of_all_data_sources_are_reported_together(
    plan_refused: Refusal, workspace: Path
) -> None:
    (workspace / "a.jsonl").write_text("{", encoding="utf-8")
    (workspace / "b.jsonl").write_text("", encoding="utf-8")
    found = plan_refused("data.train=[a.jsonl, b.jsonl]", "judge.prompts=b.jsonl")
    assert [problem.split(":")[:2] for problem in found] == [
        ["data.train", " a.jsonl"],
        ["data.train", " b.jsonl"],
        ["judge.prompts", " b.jsonl"],
    ]


def test_data_of_another_kind_is_refused(plan_refused: Refusal) -> None:
    [found] = plan_refused("data.train=data/easyds/sft.jsonl")
    assert "holds conversations where preferences are asked for" in found


def test_judge_prompts_that_are_all_trained_on_are_refused(plan_refused: Refusal) -> None:
    [found] = plan_refused("judge.prompts=data/easyds/preferences.jsonl")
    assert found.startswith("judge.prompts: at least 2 prompts must not be in the training data")


def test_a_reward_model_without_held_out_pairs_is_refused(
    plan_refused: Refusal, workspace: Path
) -> None:
    [found] = plan_refused("data.eval_fraction=0", spec="rm.yaml")
    assert found.startswith("data.eval: a reward model is judged on at least 2 held-out pairs")
    (workspace / "pair.jsonl").write_text(PAIR, encoding="utf-8")
    [found] = plan_refused("data.eval=pair.jsonl", spec="rm.yaml")
    assert found.startswith(
        "data.eval: a reward model is judged on at least 2 held-out pairs, got 1"
    )


def test_a_damaged_model_file_only_hides_the_disk_it_takes(
    workspace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = workspace / "model"
    model.mkdir()
    (model / "config.json").write_text(json.dumps({"model_type": "qwen2"}), encoding="utf-8")
    for content in (b"", b"\xff" * 8, b"\x02" + b"\0" * 7 + b"[]", b"\x02" + b"\0" * 7 + b"{"):
        (model / "model.safetensors").write_bytes(content)
        assert main(["plan", "dpo", "--set", "model.model_name_or_path=./model"]) == 0
        assert "their size is known once the model is fetched" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("targets", "weights"),
    [
        ("all-linear", 4 * (6 + 6) + 4 * (6 + 8)),  # rank × (in + out) of q_proj and of up_proj
        (["q_proj"], 4 * 12),
        (["0.q_proj"], 4 * 12),
        (["proj"], 0),
        (["lm_head"], 4 * 106),
        (".*_proj", 4 * 12 + 4 * 14),
        ("q_proj", 0),  # a pattern is held against the whole name
    ],
)
def test_the_adapter_is_counted_where_peft_puts_it(
    tmp_path: Path, targets: str | list[str], weights: int
) -> None:
    shapes = {"model.0.q_proj.weight": [6, 6], "model.0.up_proj.weight": [8, 6],
              "model.0.norm.weight": [6], "lm_head.weight": [100, 6]}  # fmt: skip
    header = json.dumps({name: {"shape": shape} for name, shape in shapes.items()}).encode()
    content = len(header).to_bytes(8, "little") + header
    (tmp_path / "model.safetensors").write_bytes(content)
    model = ModelSpec(model_name_or_path=str(tmp_path), lora_r=4, lora_target_modules=targets)
    assert trained_weights(model, has_head=False) == weights


def disk_of(out: str) -> float:
    """Megabytes that the disk line tells for one checkpoint, whole or without trainer state."""
    line = next(line for line in out.splitlines() if line.startswith("# disk: "))
    found = re.search(r"at most ([\d.]+) MB in (\d+) checkpoints", line)
    assert found
    return float(found[1]) / int(found[2])


def test_a_stacked_adapter_is_saved_with_the_policys_own(
    workspace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["plan", "ppo"]) == 0
    plain = disk_of(capsys.readouterr().out)
    adapter = workspace / "my-sft"
    adapter.mkdir()
    base = {"base_model_name_or_path": "data/models/tiny-tutor"}
    (adapter / "adapter_config.json").write_text(json.dumps(base), encoding="utf-8")
    header = json.dumps({"a.lora_A.weight": {"shape": [1000, 500]}}).encode()
    content = len(header).to_bytes(8, "little") + header
    (adapter / "adapter_model.safetensors").write_bytes(content)
    assert main(["plan", "ppo", "--set", "model.model_name_or_path=my-sft"]) == 0
    # 500,000 more weights of 4 bytes each.
    assert disk_of(capsys.readouterr().out) == pytest.approx(plain + 2, abs=0.1)

    (adapter / "adapter_config.json").write_text("[]", encoding="utf-8")
    assert main(["plan", "ppo", "--set", "model.model_name_or_path=my-sft"]) == 0
    assert "their size is known once the model is fetched" in capsys.readouterr().out


def test_a_plan_says_what_is_kept(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Two slots without rungs: six with trainer state (two a trial, and one being written), ten
    best, six finalists, and three that each unfinished trial may yet bring."""
    common = ["plan", "dpo"]
    for override in ("scheduler.type=none", "search.num_trials=60",
                     "resources.max_concurrent=2", "resources.gpus_per_trial=0"):  # fmt: skip
        common += ["--set", override]
    assert main(common) == 0
    assert re.search(
        r"# disk: at most [\d.]+ MB in 28 checkpoints under results/: the 10 best, and what "
        "unfinished trials need\n",
        capsys.readouterr().out,
    )
    assert main([*common, "--set", "output.keep=null", "--set", "output.disk_limit=2GB"]) == 0
    out = capsys.readouterr().out
    assert re.search(r"in \d{3,} checkpoints under results/: all, and what unfinished", out)
    assert "trials need; from 2 GB on fewer, and no trial begins\n" in out
    assert "disk_limit: 2000000000\n" in out


def test_what_the_finals_need_must_be_kept(plan_refused: Refusal) -> None:
    assert plan_refused("output.keep=3") == [
        "output.keep: must be at least finals.top, got 3 < 5; set output.keep: 5"
    ]
    assert plan_refused("finals.top=12") == [
        "output.keep: must be at least finals.top, got 10 < 12; set output.keep: 12"
    ]


def test_keep_and_finals_go_together(workspace: Path) -> None:
    assert main(["plan", "dpo", "--set", "output.keep=3", "--set", "finals.top=3"]) == 0
    assert main(["plan", "dpo", "--set", "output.keep=1", "--set", "finals=null"]) == 0
    assert main(["plan", "dpo", "--set", "output.keep=null", "--set", "finals.top=40"]) == 0


def test_code_of_a_model_runs_only_where_the_spec_says_so(
    workspace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["plan", "dpo"]) == 0
    out = capsys.readouterr().out
    assert "trust_remote_code: false" in out
    assert "trust_remote_code: ON" not in out
    assert main(["plan", "dpo", "--set", "model.trust_remote_code=true"]) == 0
    assert "tiny-tutor will run\n" in (capsys.readouterr().out)


@pytest.mark.parametrize(
    "text",
    ["a: !!python/object/apply:os.system ['touch pwned']", "!!python/name:os.system",
     "a: !!python/object/new:os.system [touch pwned]", "!!python/module:os"],
)  # fmt: skip
def test_yaml_makes_no_objects(plan_refused: Refusal, workspace: Path, text: str) -> None:
    (workspace / "evil.yaml").write_text(text, encoding="utf-8")
    [problem] = plan_refused(spec="evil.yaml")
    assert "not valid YAML: the tag " in problem
    assert not (workspace / "pwned").exists()


def test_a_plan_takes_no_time(workspace: Path) -> None:
    start = time.perf_counter()
    assert main(["plan", "dpo"]) == 0
    assert main(["plan", "ppo"]) == 0
    assert time.perf_counter() - start < 1


def test_a_plan_names_what_it_did_not_check_and_full_checks_it(
    workspace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    long = ["--set", "judge.max_new_tokens=500"]  # of 512 positions: no prompt fits beside it
    assert main(["plan", "dpo", *long]) == 0
    out = capsys.readouterr().out
    assert "# not checked: lengths in tokens, LoRA targets, optional packages" in out
    assert main(["plan", "dpo", "--full", *long]) == 2
    assert "must leave room for a reply" in capsys.readouterr().err
    assert main(["plan", "dpo", "--full"]) == 0
    out = capsys.readouterr().out
    assert "# not checked" not in out
    assert "# trials: " in out
    assert not (workspace / "results").exists()


def test_a_hub_name_is_named_as_not_checked(
    workspace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    hub = ["--set", "judge.reward.model_name_or_path=results/mine"]
    assert main(["plan", "dpo", *hub]) == 0
    assert "whether results/mine can be loaded; easyds-tune plan" in capsys.readouterr().out


def planned(capsys: pytest.CaptureFixture[str], *overrides: str, spec: str = "dpo") -> list[str]:
    """The summary's lines of a plan that is fine."""
    assert main(["plan", spec, *(word for text in overrides for word in ("--set", text))]) == 0
    return [line for line in capsys.readouterr().out.splitlines() if line.startswith("# ")]


def tutor_without_a_template(folder: Path, **config: str) -> Path:
    """The bundled model without its chat template, and settings of its tokenizer."""
    shutil.copytree(Path("data/models/tiny-tutor"), folder)
    (folder / "chat_template.jinja").unlink()
    path = folder / "tokenizer_config.json"
    path.write_text(json.dumps(json.loads(path.read_text("utf-8")) | config), encoding="utf-8")
    return folder


def test_a_plan_says_which_chat_template_is_used_and_that_a_model_has_none(
    workspace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = planned(capsys)
    assert "# chat template: the tokenizer's own" in lines
    assert not any(line.startswith("# note: model.model_name_or_path") for line in lines)

    tutor_without_a_template(workspace / "plain", easyds_chat_template="none")
    lines = planned(capsys, "model.model_name_or_path=./plain")
    assert "# chat template: none, plain text with each message on a line of its own" in lines
    [note] = [line for line in lines if line.startswith("# note: model.model_name_or_path")]
    assert "has no chat template" in note
    assert note.endswith("give one in data.chat_template")
    written = "data.chat_template='{{ messages[0].content }}'"
    lines = planned(capsys, "model.model_name_or_path=./plain", written)
    assert "# chat template: the one of data.chat_template" in lines

    lines = planned(capsys, "model.model_name_or_path=some/hub-name")
    assert "# chat template: known once the model is fetched" in lines


def test_a_plan_counts_texts_to_which_the_template_was_applied_already(
    workspace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = "<|im_start|>user\n{}<|im_end|>\n<|im_start|>assistant\n"
    rows = [
        {"prompt": asked.format(f"Question {n}"), "completion": "Reply.<|im_end|>"}
        for n in range(10)
    ]
    rows.append({"prompt": "plain question", "completion": "reply"})
    (workspace / "chatml.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    changes = ("data.train=chatml.jsonl", "data.eval_fraction=0")
    lines = planned(capsys, *changes, spec="sft")
    assert (
        "# note: data.train: 10 records hold the chat template's own tokens, e.g. <|im_start|>; "
        "they would be applied twice; set data.chat_template: none, or remove them"
    ) in lines
    lines = planned(capsys, *changes, "data.chat_template=none", spec="sft")
    assert not any("own tokens" in line for line in lines)


def test_held_out_records_that_train_too_are_refused_where_none_are_left(
    plan_refused: Refusal, workspace: Path
) -> None:
    rows = [{"prompt": f"q{n}", "chosen": "good", "rejected": "bad"} for n in range(12)]
    (workspace / "pairs.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    [found] = plan_refused("data.train=pairs.jsonl", "data.eval=pairs.jsonl", spec="rm.yaml")
    assert found.startswith("data.eval: 12 removed, they are in the training data; at least 2 ")
