"""PPO's own contradictions: sizes that divide, one reference, a KL target that can be met."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from easyds_tune.errors import SpecError
from easyds_tune.spec.algorithm import PPOSpec
from easyds_tune.spec.check import spec_problems, sweep_problems
from easyds_tune.spec.check_ppo import ppo_notes, reach
from easyds_tune.spec.check_search import searchable_paths
from easyds_tune.spec.load import parse_params
from easyds_tune.spec.sweep import Budget, SweepSpec, trial_spec

Make = Callable[..., SweepSpec]
ROLLOUT = "algorithm.rollout_batch_size"
MICRO = "training.per_device_train_batch_size"


def test_the_smallest_spec_has_no_problem_and_nothing_to_say(ppo: Make) -> None:
    assert spec_problems(ppo()) == []
    assert ppo_notes(ppo()) == []


def test_other_algorithms_are_not_asked(spec: Make) -> None:
    assert spec_problems(spec(**{"model.lora_dropout": 0.1})) == []
    assert ppo_notes(spec()) == []


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
        (
            "gradient_checkpointing_kwargs",
            {"use_reentrant": True, "preserve_rng_state": False},
            None,
        ),
        ("gradient_checkpointing_kwargs", {}, None),
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


@pytest.mark.parametrize(
    ("key", "value", "got"),
    [
        ("use_reentrant", "no", "'no'"),
        ("preserve_rng_state", None, "null"),
        ("use_reentrent", True, "true"),
        ("context_fn", 1, "1"),
    ],
)
def test_checkpointing_takes_what_a_trial_can_make_sense_of(
    ppo: Make, key: str, value: Any, got: str
) -> None:
    arguments = {
        "gradient_checkpointing_kwargs": {key: value, "use_reentrant": False} | {key: value}
    }
    assert spec_problems(ppo(**{"training.training_arguments": arguments})) == [
        f"training.training_arguments.gradient_checkpointing_kwargs.{key}: must be one of "
        f"use_reentrant, preserve_rng_state, and true or false, got {got}; correct or remove it"
    ]


@pytest.mark.parametrize(
    ("space", "fields", "got"),
    [
        ({}, {"lr_adjust_factor": 10}, None),
        ({}, {"lr_adjust_factor": 1.5, "lr_adjust_limit": 1.2}, "1.2 < 1.5"),
        ({}, {"lr_adjust_factor": 1, "lr_adjust_limit": 1}, None),
        ({"lr_adjust_factor": {"low": 1, "high": 12}}, {}, "10 < 12"),
        ({"lr_adjust_limit": [4, 2]}, {"lr_adjust_factor": 3}, "2 < 3"),
    ],
)
def test_one_adjustment_of_the_learning_rate_fits_into_its_limit(
    ppo: Make, space: dict[str, Any], fields: dict[str, Any], got: str | None
) -> None:
    found = spec_problems(ppo(_algorithm(space), **_algorithm(fields)))
    assert len(found) == (got is not None)
    for problem in found:
        assert problem.startswith(
            "algorithm.lr_adjust_limit: must be at least lr_adjust_factor, so that one adjustment "
            f"fits into it, got {got}; set lr_adjust_limit: "
        )


def _algorithm(fields: dict[str, Any]) -> dict[str, Any]:
    return {f"algorithm.{name}": value for name, value in fields.items()}


# ---- searches for nothing ---------------------------------------------------------------------

RANGE = {"low": 0.1, "high": 0.9}
WIDER = {"low": 1.5, "high": 9}
LIMITS = {"low": 10, "high": 1000}
OF_THE_CRITIC = dict.fromkeys(("gamma", "lam", "value_learning_rate", "cliprange_value"), RANGE)
FIXED = {"kl_controller": "fixed"}
ZIEGLER = {"kl_controller": "ziegler"}
GROUPS = {"advantage_estimator": "grpo", "num_generations": 4}


@pytest.mark.parametrize(
    ("fields", "space", "idle"),
    [
        (FIXED, {"kl_target": RANGE},
         {"kl_target": "kl_controller: fixed and lr_adjust_factor: 1"}),
        (FIXED | {"lr_adjust_factor": 2}, {"kl_target": RANGE}, {}),
        (FIXED, {"kl_target": RANGE, "lr_adjust_factor": [1, 2]}, {}),
        (FIXED, {"kl_target": RANGE, "kl_controller": ["fixed", "adaptive"]}, {}),
        ({}, {"kl_target": RANGE, "kl_horizon": WIDER}, {}),
        # Trial 0 has the spec's own controller, which is the adaptive one.
        ({}, {"kl_horizon": WIDER, "kl_controller": ["fixed"]}, {}),
        (FIXED, {"kl_horizon": WIDER}, {"kl_horizon": "kl_controller: fixed"}),
        ({}, {"kl_coef_limit": LIMITS}, {}),
        (ZIEGLER, {"kl_target": RANGE, "kl_horizon": WIDER}, {}),
        (ZIEGLER, {"kl_coef_limit": LIMITS}, {"kl_coef_limit": "kl_controller: ziegler"}),
        ({}, OF_THE_CRITIC, {}),
        (
            GROUPS,
            OF_THE_CRITIC | {"cliprange": RANGE},
            dict.fromkeys(OF_THE_CRITIC, "advantage_estimator: grpo"),
        ),
        (GROUPS, {"lam": RANGE, "advantage_estimator": ["gae", "grpo"]}, {}),
        (GROUPS, {"lam": RANGE, "advantage_estimator": ["rloo", "grpo"]},
         {"lam": "advantage_estimator: grpo"}),
        ({}, {"lr_adjust_band": WIDER, "lr_adjust_limit": WIDER},
         dict.fromkeys(("lr_adjust_band", "lr_adjust_limit"), "lr_adjust_factor: 1")),
        ({}, {"lr_adjust_band": WIDER, "lr_adjust_factor": [1, 1.5]}, {}),
        ({"lr_adjust_factor": 1.5}, {"lr_adjust_band": WIDER, "lr_adjust_limit": WIDER}, {}),
    ],
)  # fmt: skip
def test_a_search_of_what_no_trial_heeds_is_refused(
    ppo: Make, fields: dict[str, Any], space: dict[str, Any], idle: dict[str, str]
) -> None:
    sweep = ppo(_algorithm(space), **_algorithm(fields), **{"search.num_trials": 2})
    assert spec_problems(sweep) == []  # one trial alone may have them
    assert sweep_problems(sweep) == [
        f"search_space.algorithm.{field}: must change what is trained, and does nothing with "
        f"{why}; remove it from search_space"
        for field, why in idle.items()
    ]


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
    ("controller", "horizon", "steps", "factor"),
    [
        # A step multiplies by 1 + 0.2 / horizon at most; past e^700 a float ends, and far is far.
        ("ziegler", 1, 2, 1.44),
        ("ziegler", 10, 2, 1.0404),
        ("ziegler", 1, 10**7, math.exp(700)),
        # By 4^(2 / horizon), in all steps but the first and the last.
        ("adaptive", 2, 4, 16.0),
        ("adaptive", 20, 7, 2.0),
        ("adaptive", 1, 1, 1.0),
    ],
)
def test_the_reach_of_a_controller_is_its_largest_move_each_step(
    controller: str, horizon: float, steps: int, factor: float
) -> None:
    assert reach(controller, horizon, steps) == pytest.approx(factor)


def horizon_notes(sweep: SweepSpec, records: int | None = None) -> list[str]:
    return [note for note in ppo_notes(sweep, records) if note.startswith("algorithm.kl_horizon")]


@pytest.mark.parametrize(
    ("controller", "horizon", "factor", "enough"),
    [
        # 30 steps: 1.01^30 = 1.348. Doubling in 30 needs 0.2 / (2^(1/30) - 1) = 8.55.
        ("ziegler", 20, 1.35, 8.5),
        # 4^(2 × 28 / 200) = 1.474. Doubling in 28 needs 2 × 28 × log 4 / log 2 = 112.
        ("adaptive", 200, 1.47, 112),
    ],
)
def test_a_horizon_that_cannot_double_the_coefficient_is_told_with_one_that_can(
    ppo: Make, controller: str, horizon: float, factor: float, enough: float
) -> None:
    chosen = {"algorithm.kl_controller": controller}
    [note] = horizon_notes(ppo(**chosen, **{"algorithm.kl_horizon": horizon}))
    assert note == (
        f"algorithm.kl_horizon: in a trial of 30 steps a horizon of {horizon} moves the KL "
        f"coefficient by a factor of {factor} at most, too little to reach a target; set {enough} "
        "or less, or null"
    )
    assert horizon_notes(ppo(**chosen, **{"algorithm.kl_horizon": enough - 0.5})) == []
    assert horizon_notes(ppo(**chosen, **{"algorithm.kl_horizon": None})) == []
    [_] = horizon_notes(ppo({"algorithm.kl_horizon": {"low": 2, "high": horizon}}, **chosen))
    fixed = {"algorithm.kl_horizon": horizon, "algorithm.kl_controller": "fixed"}
    assert horizon_notes(ppo(**fixed)) == []


@pytest.mark.parametrize(
    ("controller", "fewest", "factor"), [("ziegler", 4, "1.73"), ("adaptive", 3, "1")]
)
def test_a_trial_too_short_for_any_horizon_is_told_how_long_it_takes(
    ppo: Make, controller: str, fewest: int, factor: str
) -> None:
    # 1.2^3 = 1.728 < 2 <= 1.2^4: four steps, whatever the horizon.
    chosen = {"algorithm.kl_controller": controller, "training.eval_steps": 1}
    [note] = horizon_notes(ppo(**chosen, **{"training.max_steps": fewest - 1}))
    assert note.endswith(
        f" {factor} at most, too little to reach a target; give it {fewest} steps or more"
    )
    assert horizon_notes(ppo(**chosen, **{"training.max_steps": fewest})) == []
    assert horizon_notes(ppo(**chosen, **{"training.max_steps": 0})) == []


def test_an_epochs_horizon_is_held_against_the_steps_it_comes_to(ppo: Make) -> None:
    sweep = ppo(training={"num_train_epochs": 1})
    [note] = horizon_notes(sweep, 64)
    assert note.startswith("algorithm.kl_horizon: in a trial of 1 step a horizon of 2 moves")
    assert horizon_notes(sweep, 640) == []


def test_searched_rollouts_are_asked_at_their_largest_whose_trials_are_shortest(ppo: Make) -> None:
    # 30 steps of 64 are 15 of 128, and a horizon of 160 steps of 64 is one of 80.
    [note] = horizon_notes(ppo({ROLLOUT: [64, 128]}, **{"algorithm.kl_horizon": 160}))
    assert "in a trial of 15 steps of 128 replies a horizon of 80 moves" in note
    # 2 × 13 × log 4 / log 2 = 52 of its steps, so 104 of those that the spec counts in.
    assert note.endswith("; set 104 or less, or null")
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


def test_a_factor_whose_square_no_float_holds_is_refused_in_words(ppo: Make) -> None:
    found = spec_problems(ppo({"algorithm.lr_adjust_factor": {"low": 1.0, "high": 1e300}}))
    assert any("must be at least lr_adjust_factor" in problem for problem in found)
