"""PPO's own contradictions: sizes that divide, one reference, a KL target that can be met."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from easyds_tune.errors import SpecError
from easyds_tune.spec.algorithm import PPOSpec
from easyds_tune.spec.check import searchable_paths, spec_problems
from easyds_tune.spec.check_ppo import ppo_notes, reach
from easyds_tune.spec.load import parse_params
from easyds_tune.spec.sweep import Budget, SweepSpec, set_path, trial_spec

Make = Callable[..., SweepSpec]
ROLLOUT = "algorithm.rollout_batch_size"
MICRO = "training.per_device_train_batch_size"
ACCUMULATION = "training.gradient_accumulation_steps"
MULTIPLE_OF_BATCH = (
    "algorithm.rollout_batch_size: must be a multiple of the effective batch "
    "(per_device_train_batch_size × gradient_accumulation_steps), got "
)


@pytest.fixture
def ppo(raw: dict[str, Any]) -> Make:
    """The smallest PPO spec: 30 steps of 64 replies, mini-batches of 8."""
    raw["algorithm"] = {"type": "ppo", "reward": {"model_name_or_path": "someone/a-reward"}}
    raw["judge"] = {"prompts": "p", "reward": {"model_name_or_path": "someone/another-reward"}}

    def make(space: dict[str, Any] | None = None, /, **fields: Any) -> SweepSpec:
        for path, value in fields.items():
            set_path(raw, path, value)
        return SweepSpec.model_validate({**raw, "search_space": space or {}})

    return make


def test_the_smallest_spec_has_no_problem_and_nothing_to_say(ppo: Make) -> None:
    assert spec_problems(ppo()) == []
    assert ppo_notes(ppo()) == []


def test_other_algorithms_are_not_asked(spec: Make) -> None:
    assert spec_problems(spec(**{"model.lora_dropout": 0.1})) == []
    assert ppo_notes(spec()) == []


# ---- sizes ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({ROLLOUT: 60}, f"{MULTIPLE_OF_BATCH}60 and 8 × 1; set rollout_batch_size: 64"),
        ({ACCUMULATION: 3}, f"{MULTIPLE_OF_BATCH}64 and 8 × 3; set rollout_batch_size: 72"),
        # Fewer replies than one mini-batch are no mini-batch.
        ({MICRO: 128}, f"{MULTIPLE_OF_BATCH}64 and 128 × 1; set rollout_batch_size: 128"),
        (
            {"algorithm.num_generations": 5},
            "algorithm.rollout_batch_size: must be a multiple of num_generations, got 64 and 5; "
            "set rollout_batch_size: 65",
        ),
        (
            {"algorithm.advantage_estimator": "rloo"},
            "algorithm.num_generations: must be at least 2 for rloo, which compares replies to one "
            "prompt, got 1; set 4",
        ),
    ],
)
def test_sizes_that_do_not_divide_are_told_with_one_that_does(
    ppo: Make, fields: dict[str, Any], problem: str
) -> None:
    assert spec_problems(ppo(**fields)) == [problem]


@pytest.mark.parametrize("estimator", ["rloo", "grpo"])
def test_a_critic_free_estimator_takes_groups(ppo: Make, estimator: str) -> None:
    fields = {"algorithm.advantage_estimator": estimator, "algorithm.num_generations": 4}
    assert spec_problems(ppo(**fields)) == []


@pytest.mark.parametrize(
    ("space", "got"),
    [
        ({ROLLOUT: [64, 100]}, "100 and 8 × 1"),
        ({MICRO: [8, 16], ACCUMULATION: [1, 3]}, "64 and 8 × 3"),
        ({MICRO: {"low": 8, "high": 16}}, "64 and 9 × 1"),
        ({MICRO: {"low": 8, "high": 24, "step": 8}}, "64 and 24 × 1"),
        ({ROLLOUT: {"low": 64, "high": 96, "step": 4}}, "68 and 8 × 1"),
    ],
)
def test_every_combination_that_a_search_may_draw_has_to_divide(
    ppo: Make, space: dict[str, Any], got: str
) -> None:
    [problem] = spec_problems(ppo(space))
    assert problem.startswith(f"{MULTIPLE_OF_BATCH}{got}; set ")


@pytest.mark.parametrize(
    "space",
    [
        {ROLLOUT: [64, 128, 256], MICRO: [4, 8], ACCUMULATION: [1, 2]},
        {ROLLOUT: {"low": 16, "high": 256, "step": 16}},
        {"algorithm.num_generations": {"low": 8, "high": 8 * 8, "step": 56}},
    ],
)
def test_combinations_that_all_divide_are_sound(ppo: Make, space: dict[str, Any]) -> None:
    assert spec_problems(ppo(space)) == []


def test_a_searched_estimator_asks_for_groups_in_every_trial(ppo: Make) -> None:
    space = {"algorithm.advantage_estimator": ["gae", "grpo"]}
    [problem] = spec_problems(ppo({**space, "algorithm.num_generations": [1, 4]}))
    assert problem.startswith("algorithm.num_generations: must be at least 2 for grpo")
    assert spec_problems(ppo(space, **{"algorithm.num_generations": 4})) == []


@pytest.mark.parametrize("paths", [(ROLLOUT,), (MICRO,), (ROLLOUT, MICRO, ACCUMULATION)])
def test_a_wide_range_of_sizes_is_refused_at_once(ppo: Make, paths: tuple[str, ...]) -> None:
    wide = {"low": 1, "high": 2_000_000_000}
    start = time.perf_counter()
    assert spec_problems(ppo(dict.fromkeys(paths, wide))) == [
        "algorithm.rollout_batch_size: batch sizes must divide it in every trial; search them as "
        "short lists, such as [16, 32, 64]"
    ]
    assert time.perf_counter() - start < 1


@pytest.mark.parametrize("value", [float("inf"), float("nan"), 10**400, "inf", "x", None, 0, -8])
def test_a_searched_size_that_is_none_is_refused_by_its_own_rule_alone(
    ppo: Make, value: Any
) -> None:
    [problem] = spec_problems(ppo({ROLLOUT: [64, value]}))
    assert problem.startswith("search_space.algorithm.rollout_batch_size: the value ")


# ---- dropout, reference, controller, arguments ------------------------------------------------


@pytest.mark.parametrize("param", [None, {"low": 0, "high": 0.1}, [0.0, 0.1], ["0", "0.1"]])
def test_dropout_is_refused_whether_written_or_searched(ppo: Make, param: Any) -> None:
    sweep = (
        ppo(**{"model.lora_dropout": 0.1}) if param is None else ppo({"model.lora_dropout": param})
    )
    assert spec_problems(sweep) == [
        "model.lora_dropout: must be 0 for ppo, got 0.1: with dropout the probability ratio is not "
        "1 before the first update, and a quarter of the tokens are clipped; remove it"
    ]


def test_the_reference_is_the_policys_start_and_no_other(ppo: Make) -> None:
    reference = "algorithm.ref_model_name_or_path"
    assert spec_problems(ppo(**{reference: "someone/a-model"})) == []
    assert spec_problems(ppo(**{reference: "someone/else"})) == [
        "algorithm.ref_model_name_or_path: must be the policy's start, someone/a-model, got "
        "someone/else: KL is measured from where training begins; remove it, or start from that "
        "model"
    ]
    assert "algorithm.ref_model_name_or_path" not in searchable_paths(ppo())


def test_another_spelling_of_the_same_folder_is_the_same_start(
    ppo: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "config.json").write_text("{}", encoding="utf-8")
    (tmp_path / "link").symlink_to("mine")
    monkeypatch.chdir(tmp_path)
    start = {"model.model_name_or_path": "mine"}
    for spelling in ("./mine", "mine/", str(tmp_path / "mine"), "link"):
        sweep = ppo(**start, **{"algorithm.ref_model_name_or_path": spelling})
        assert spec_problems(sweep) == []


@pytest.mark.parametrize(
    ("space", "fields", "is_refused"),
    [
        ({}, {"kl_coef": 0}, True),
        ({}, {"kl_coef": 0, "kl_controller": "fixed"}, False),
        ({"kl_coef": {"low": 0, "high": 0.2}}, {}, True),
        ({"kl_coef": [0.1, 0]}, {"kl_controller": "fixed"}, False),
        ({"kl_controller": ["fixed", "adaptive"]}, {"kl_coef": 0, "kl_controller": "fixed"}, True),
    ],
)
def test_an_adaptive_coefficient_cannot_start_at_zero(
    ppo: Make, space: dict[str, Any], fields: dict[str, Any], is_refused: bool
) -> None:
    sweep = ppo(
        {f"algorithm.{name}": param for name, param in space.items()},
        **{f"algorithm.{name}": value for name, value in fields.items()},
    )
    assert spec_problems(sweep) == [
        "algorithm.kl_coef: must be above 0 for the adaptive controller, which multiplies it; "
        "set 0.05, or kl_controller: fixed"
    ] * is_refused  # fmt: skip


@pytest.mark.parametrize(
    ("name", "value", "problem"),
    [
        ("adam_epsilon", 1e-6, None),
        ("lr_scheduler_kwargs", {"min_lr": 1e-6}, None),
        ("adam_epsilon", 0, "must be a number above 0, got 0; set 1e-8"),
        ("adam_epsilon", "tiny", "must be a number above 0, got 'tiny'; set 1e-8"),
        ("lr_scheduler_kwargs", 3, "must be a mapping of settings, got 3"),
        ("optim", "sgd", "ppo does not take it; it takes adam_epsilon, gradient_checkpointing_kw"),
        ("adam_epsilom", 1, "unknown argument; did you mean adam_epsilon?"),
        ("report_to", "wandb", "cannot be passed through"),
    ],
)
def test_ppo_takes_few_training_arguments_and_looks_at_their_values(
    ppo: Make, name: str, value: Any, problem: str | None
) -> None:
    found = spec_problems(ppo(**{"training.training_arguments": {name: value}}))
    assert len(found) == (problem is not None)
    for text in found:
        assert text.startswith(f"training.training_arguments.{name}: {problem}")


def test_all_problems_are_told_together(ppo: Make) -> None:
    sweep = ppo(
        **{
            "model.lora_dropout": 0.1,
            "algorithm.ref_model_name_or_path": "someone/else",
            "algorithm.kl_coef": 0,
            "algorithm.advantage_estimator": "grpo",
            ROLLOUT: 60,
        }
    )
    assert [problem.split(":")[0] for problem in spec_problems(sweep)] == [
        "model.lora_dropout",
        "algorithm.ref_model_name_or_path",
        "algorithm.kl_coef",
        "algorithm.num_generations",
        "algorithm.rollout_batch_size",
    ]


@pytest.mark.parametrize(
    ("path", "why"),
    [
        ("algorithm.reward", "all trials train on one reward"),
        ("algorithm.reward.max_length", "all trials train on one reward"),
        ("algorithm.reward.model_name_or_path", "all trials train on one reward"),
        ("algorithm.ref_model_name_or_path", "KL is measured from where all trials start"),
    ],
)
def test_what_all_trials_share_is_not_searched(ppo: Make, path: str, why: str) -> None:
    assert spec_problems(ppo({path: ["a", "b"]})) == [
        f"search_space.{path}: cannot be searched: {why}"
    ]


def test_one_trials_parameters_have_to_fit_together(ppo: Make) -> None:
    params = {ROLLOUT: 96, MICRO: 12}
    assert parse_params(ppo(), [f"{path}={value}" for path, value in params.items()]) == params
    with pytest.raises(SpecError) as refused:
        parse_params(ppo(), [f"{ROLLOUT}=96", f"{MICRO}=10", "model.lora_dropout=0.1"])
    assert [problem.split(":")[0] for problem in refused.value.problems] == [
        "model.lora_dropout",
        ROLLOUT,
    ]


# ---- notes ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("horizon", "steps", "factor"),
    [(1, 2, 1.44), (10, 2, 1.0404), (1, 10**7, math.exp(700))],
)
def test_the_reach_of_a_controller_is_its_largest_move_each_step(
    horizon: float, steps: int, factor: float
) -> None:
    # A step multiplies by 1 + 0.2 / horizon at most; past e^700 a float ends, and far is far.
    assert reach(horizon, steps) == pytest.approx(factor)


def horizon_notes(sweep: SweepSpec, records: int | None = None) -> list[str]:
    return [note for note in ppo_notes(sweep, records) if note.startswith("algorithm.kl_horizon")]


def test_a_horizon_that_cannot_double_the_coefficient_is_told_with_one_that_can(ppo: Make) -> None:
    # 30 steps at horizon 20: 1.01^30 = 1.348. Doubling in 30 needs 0.2 / (2^(1/30) - 1) = 8.55.
    [note] = horizon_notes(ppo(**{"algorithm.kl_horizon": 20}))
    assert note == (
        "algorithm.kl_horizon: in a trial of 30 steps a horizon of 20 moves the KL coefficient by "
        "a factor of 1.35 at most, too little to reach a target; set 8.5 or less, or null"
    )
    assert horizon_notes(ppo(**{"algorithm.kl_horizon": 8.5})) == []
    assert horizon_notes(ppo(**{"algorithm.kl_horizon": None})) == []
    [_] = horizon_notes(ppo({"algorithm.kl_horizon": {"low": 2, "high": 20}}))
    fixed = {"algorithm.kl_horizon": 20, "algorithm.kl_controller": "fixed"}
    assert horizon_notes(ppo(**fixed)) == []


def test_a_trial_too_short_for_any_horizon_is_told_how_long_it_takes(ppo: Make) -> None:
    # 1.2^3 = 1.728 < 2 <= 1.2^4: four steps, whatever the horizon.
    [note] = horizon_notes(ppo(**{"training.max_steps": 3, "training.eval_steps": 1}))
    assert note.endswith("1.73 at most, too little to reach a target; give it at least 4 steps")
    assert horizon_notes(ppo(**{"training.max_steps": 4})) == []
    assert horizon_notes(ppo(**{"training.max_steps": 0})) == []


def test_an_epochs_horizon_is_held_against_the_steps_it_comes_to(ppo: Make) -> None:
    sweep = ppo(training={"num_train_epochs": 1})
    [note] = horizon_notes(sweep, 64)
    assert note.startswith("algorithm.kl_horizon: in a trial of 1 step a horizon of 1 moves")
    assert horizon_notes(sweep, 640) == []


def test_searched_rollouts_are_asked_at_their_largest_whose_trials_are_shortest(ppo: Make) -> None:
    # 30 steps of 64 are 15 of 128, and a horizon of 20 steps of 64 is one of 10.
    [note] = horizon_notes(ppo({ROLLOUT: [64, 128]}, **{"algorithm.kl_horizon": 20}))
    assert "in a trial of 15 steps of 128 replies a horizon of 10 moves" in note
    # 0.2 / (2^(1/15) - 1) = 4.23 of its steps, so 8.4 of those that the spec counts in.
    assert note.endswith("; set 8.4 or less, or null")
    [note] = horizon_notes(ppo({ROLLOUT: [64, 1024]}, **{"algorithm.kl_horizon": None}))
    assert "in a trial of 2 steps of 1024 replies" in note


@pytest.mark.parametrize("name", ["someone/a-reward", "someone/another-reward"])
def test_a_judge_that_is_ppos_own_reward_is_worth_a_word(ppo: Make, name: str) -> None:
    notes = ppo_notes(ppo(**{"judge.reward": {"model_name_or_path": name, "max_length": 64}}))
    assert [note.split(":")[0] for note in notes] == ["judge.reward"] * (name == "someone/a-reward")


# ---- budgets ----------------------------------------------------------------------------------


def test_an_epoch_is_a_reply_or_a_group_of_them_to_every_prompt(ppo: Make) -> None:
    # 2 × 100 prompts / 64 = 3.1 steps; in groups of four 2 × 400 / 64 = 12.5.
    sweep = ppo(training={"num_train_epochs": 2})
    assert sweep.budget(100) == Budget(max_steps=4, eval_steps=1)
    assert ppo(**{"algorithm.num_generations": 4}).budget(100) == Budget(max_steps=13, eval_steps=3)


@pytest.mark.parametrize(
    ("rollout", "budget", "warmup", "horizon"),
    [
        (64, Budget(max_steps=30, eval_steps=10), 6, 5.0),
        (128, Budget(max_steps=15, eval_steps=5), 3, 2.5),
        (32, Budget(max_steps=60, eval_steps=20), 12, 10.0),
        (1024, Budget(max_steps=2, eval_steps=1), 1, 1.0),  # 1.9 and 0.6 steps; 0.4; 0.3
    ],
)
def test_searched_rollouts_keep_the_number_of_replies(
    ppo: Make, rollout: int, budget: Budget, warmup: float, horizon: float
) -> None:
    sweep = ppo(
        {ROLLOUT: [64, 128]}, **{"training.warmup_steps": 6, "algorithm.kl_horizon": 5}
    )  # fmt: skip
    assert (sweep.searches_batch, sweep.time_attr) == (True, "examples")
    trial = trial_spec(sweep, "t", {ROLLOUT: rollout})
    assert (trial.budget, trial.examples_per_step) == (budget, rollout)
    assert trial.training.warmup_steps == warmup
    assert isinstance(trial.algorithm, PPOSpec)
    assert trial.algorithm.kl_horizon == horizon


def test_a_searched_mini_batch_changes_no_step(ppo: Make) -> None:
    sweep = ppo({MICRO: [8, 16]})
    assert (sweep.searches_batch, sweep.time_attr) == (False, "global_step")
    assert trial_spec(sweep, "t", {MICRO: 16}).budget == Budget(max_steps=30, eval_steps=10)
