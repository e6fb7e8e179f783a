"""One sweep as a whole, and the single trials that come out of it."""

from __future__ import annotations

import copy
import math
import typing
from typing import Any

from pydantic import (
    ConfigDict,
    Field,
    ValidationInfo,
    field_serializer,
    field_validator,
    model_validator,
)

from easyds_tune.spec.algorithm import AlgorithmSpec
from easyds_tune.spec.base import LARGEST, LARGEST_SEED, ByteCount, FileName, Spec
from easyds_tune.spec.bounds import BoundSpec
from easyds_tune.spec.conditions import active_paths
from easyds_tune.spec.data import DataSpec
from easyds_tune.spec.finals import FinalsSpec
from easyds_tune.spec.judge import JudgeSpec
from easyds_tune.spec.model import ModelSpec
from easyds_tune.spec.resources import ResourcesSpec
from easyds_tune.spec.search import ObjectiveSpec, Param, SchedulerSpec, SearchSpec, param_kind
from easyds_tune.spec.space_file import own_configuration
from easyds_tune.spec.stop import StopSpec
from easyds_tune.spec.training import TrainingSpec

NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,79}$"
NAME_RULE = "must be 1 to 80 letters, digits, '.', '_' or '-', starting with a letter or digit"


def batch_fields(algorithm: AlgorithmSpec) -> tuple[str, ...]:
    """The fields that decide how many examples a step takes."""
    if algorithm.type == "ppo":
        return ("algorithm.rollout_batch_size",)
    return ("training.per_device_train_batch_size", "training.gradient_accumulation_steps")


def examples_per_step(algorithm: AlgorithmSpec, training: TrainingSpec) -> int:
    """Records an optimizer step takes; for PPO, whose step is a rollout, the replies it draws."""
    if algorithm.type == "ppo":
        return algorithm.rollout_batch_size
    return training.effective_batch


def trial_id(number: int) -> str:
    """The name of a trial inside its sweep; number 0 is the configuration as written."""
    return f"{number:03d}"


class OutputSpec(Spec):
    """Where a sweep leaves what it made."""

    folder: FileName = "results"
    """Folder that holds one folder per sweep."""
    keep: int | None = Field(10, ge=1, le=LARGEST)
    """Best checkpoints that stay, feasible ones first; null for all. What running and paused
    trials, the finals and a front need stays besides. Those that no trial goes on from lose their
    optimizer state."""
    disk_limit: ByteCount | None = None
    """Bytes of all checkpoints together, such as 20GB or 500MiB; null for no limit. Above it the
    worst that `keep` would keep go too, and no trial begins before there is room."""

    @field_validator("folder")
    @classmethod
    def _is_a_plain_path(cls, folder: str) -> str:
        if folder.startswith("~"):
            raise ValueError(f"must be a path written out, without ~, got {folder!r}")
        return folder


class Budget(Spec):
    """A trial's length, in its own steps."""

    max_steps: int
    """Steps of the whole trial."""
    eval_steps: int
    """Steps between evaluations; the last step is always evaluated."""


class SweepSpec(Spec):
    """Everything a person may write about one sweep."""

    model_config = ConfigDict(serialize_by_alias=True)

    name: str
    """Name of the sweep and of its folder; the file's name without its ending by default."""
    seed: int = Field(0, ge=0, le=LARGEST_SEED)
    """Seed of the search and of every trial."""
    algorithm: AlgorithmSpec
    """What is trained."""
    model: ModelSpec
    """The base model and its adapter."""
    data: DataSpec
    """Training data."""
    judge: JudgeSpec | None = None
    """The evaluation that SFT, DPO and PPO trials share; a reward model has none."""
    training: TrainingSpec
    """Optimiser and budget."""
    deepspeed: str | dict[str, Any] = "zero2"
    """zero0, zero1, zero2, zero3, a JSON file, or a DeepSpeed config written here."""
    search_space: dict[str, Param] = Field(default_factory=dict, max_length=200)
    """Dotted field of this spec -> values to search; or the name of a file in search_spaces/."""
    space_file: FileName | None = None
    """A Python file with `search_space(trial)`, Optuna's define-by-run; instead of search_space."""
    search: SearchSpec = SearchSpec()
    """How many trials, and what proposes them."""
    scheduler: SchedulerSpec = SchedulerSpec()
    """What stops trials early."""
    objectives: tuple[ObjectiveSpec, ...] = Field(alias="objective")
    """What makes one trial better, or a list of several; eval/reward, or eval/accuracy for a reward
    model. The first one ranks; several have a Pareto front."""
    bounds: dict[str, tuple[BoundSpec, ...]] = Field(default_factory=dict)
    """Metric -> its bound, or a list of them: outside of it no trial is fit to be deployed."""
    stop: StopSpec = StopSpec()
    """What ends the search, besides search.num_trials."""
    finals: FinalsSpec | None = FinalsSpec()
    """How the best checkpoints are judged anew, on fresh prompts or records; null: not at all."""
    resources: ResourcesSpec = ResourcesSpec()
    """The slot of one trial."""
    output: OutputSpec = OutputSpec()
    """Where results go."""

    @model_validator(mode="before")
    @classmethod
    def _objective_of_the_algorithm(cls, raw: Any) -> Any:
        if isinstance(raw, dict) and "objective" not in raw:
            algorithm = raw.get("algorithm")
            is_rm = isinstance(algorithm, dict) and algorithm.get("type") == "rm"
            return {**raw, "objective": {"metric": "eval/accuracy" if is_rm else "eval/reward"}}
        return raw

    @field_validator("objectives", mode="before")
    @classmethod
    def _one_is_a_list(cls, objectives: Any) -> Any:
        if isinstance(objectives, list | tuple) and not objectives:
            raise ValueError("must name a metric, got an empty list; remove it for the default")
        return objectives if isinstance(objectives, list | tuple) else [objectives]

    @field_serializer("objectives")
    def _one_is_no_list(self, objectives: tuple[ObjectiveSpec, ...]) -> Any:
        dumped = [objective.model_dump() for objective in objectives]
        return dumped[0] if len(dumped) == 1 else dumped

    @field_validator("bounds", mode="before")
    @classmethod
    def _one_bound_is_a_list(cls, bounds: Any) -> Any:
        if not isinstance(bounds, dict):
            return bounds
        if empty := [metric for metric, bound in bounds.items() if bound in ([], ())]:
            raise ValueError(f"must give {empty[0]} a bound, got an empty list; remove it")
        return {
            metric: bound if isinstance(bound, list | tuple) else [bound]
            for metric, bound in bounds.items()
        }

    @field_validator("name")
    @classmethod
    def _is_a_slug(cls, name: str) -> str:
        import re

        if not re.fullmatch(NAME_PATTERN, name):
            raise ValueError(f"{NAME_RULE}, got {name!r}")
        return name

    @field_validator("search_space", mode="before")
    @classmethod
    def _kinds_of_params(cls, space: Any, info: ValidationInfo) -> Any:
        if not isinstance(space, dict):
            return space
        return {
            path: param_kind(value, takes_fractions=_takes_fractions(path, info.data))
            for path, value in space.items()
        }

    @property
    def objective(self) -> ObjectiveSpec:
        """The first objective, which ranks trials."""
        return self.objectives[0]

    @property
    def searches_batch(self) -> bool:
        """Whether the effective batch differs between trials; budgets are then in examples."""
        searched = self.default_params() if self.space_file else self.search_space
        return any(field in searched for field in batch_fields(self.algorithm))

    @property
    def examples_per_step(self) -> int:
        """Examples a step of the default configuration takes."""
        return examples_per_step(self.algorithm, self.training)

    @property
    def time_attr(self) -> str:
        """The report's field that rungs are counted in."""
        return "examples" if self.searches_batch else "global_step"

    def default_params(self) -> dict[str, Any]:
        """The searched fields as the spec itself sets them: the parameters of trial 0.

        A field whose `when` does not hold is left out.
        """
        raw = self.model_dump()
        if self.space_file is not None:
            return own_configuration(self.space_file, _leaves(raw))
        params = {path: get_path(raw, path) for path in self.search_space}
        active = set(active_paths(self.search_space, params))
        return {path: value for path, value in params.items() if path in active}

    def with_params(self, params: dict[str, Any]) -> SweepSpec:
        """This spec with some fields replaced; raises pydantic's error where one is refused."""
        raw = self.model_dump()
        for path, value in params.items():
            set_path(raw, path, value)
        return SweepSpec.model_validate(raw)

    def budget(self, train_records: int | None = None) -> Budget:
        """Steps of the default configuration; epochs need the number of training records."""
        training = self.training
        if training.max_steps is not None:
            steps = training.max_steps
        else:
            if train_records is None:
                raise ValueError("a budget in epochs needs the number of training records")
            algorithm = self.algorithm
            replies = algorithm.num_generations if algorithm.type == "ppo" else 1
            examples = (training.num_train_epochs or 0.0) * train_records * replies
            steps = max(1, math.ceil(examples / self.examples_per_step))
        return Budget(
            max_steps=steps, eval_steps=training.eval_steps or max(1, math.ceil(steps / 5))
        )


class TrialSpec(Spec):
    """One complete configuration: what a trial needs to know, and nothing of the search."""

    trial_id: str
    """Name of the trial inside its sweep."""
    params: dict[str, Any]
    """The searched fields and their values, for display and the record."""
    seed: int
    """Seed of initialisation, data order and dropout."""
    algorithm: AlgorithmSpec
    """What is trained."""
    model: ModelSpec
    """The base model and its adapter."""
    data: DataSpec
    """Training data."""
    judge: JudgeSpec | None
    """The evaluation."""
    training: TrainingSpec
    """Optimiser and schedule."""
    budget: Budget
    """How long to train, and how often to evaluate."""
    deepspeed: str | dict[str, Any]
    """DeepSpeed settings."""
    objective: ObjectiveSpec
    """The metric the trial is judged by."""

    @property
    def examples_per_step(self) -> int:
        """Examples a step takes."""
        return examples_per_step(self.algorithm, self.training)


def trial_spec(
    sweep: SweepSpec, trial_id: str, params: dict[str, Any], train_records: int | None = None
) -> TrialSpec:
    """The complete configuration of one trial of `sweep`.

    A searched batch keeps the number of examples: the trial's steps shrink as its batch grows, and
    so does what is counted in steps: a warm-up, a KL horizon. Evaluations never come before a rung.
    """
    spec = sweep.with_params(params)
    budget = sweep.budget(train_records)
    scale = sweep.examples_per_step / spec.examples_per_step
    training, algorithm = spec.training, spec.algorithm
    if scale != 1:
        budget = Budget(
            max_steps=max(min(1, budget.max_steps), round(budget.max_steps * scale)),
            eval_steps=max(1, math.ceil(budget.eval_steps * scale - 1e-9)),
        )
        if training.warmup_steps >= 1:
            warmup_steps = max(1, round(training.warmup_steps * scale))
            training = training.model_copy(update={"warmup_steps": warmup_steps})
        if algorithm.type == "ppo" and algorithm.kl_horizon is not None:
            horizon = max(1.0, algorithm.kl_horizon * scale)
            algorithm = algorithm.model_copy(update={"kl_horizon": horizon})
    return TrialSpec(
        trial_id=trial_id,
        params=params,
        budget=budget,
        training=training,
        algorithm=algorithm,
        **{
            key: getattr(spec, key)
            for key in (
                "seed", "model", "data", "judge", "deepspeed", "objective",
            )
        },
    )  # fmt: skip


def _takes_fractions(path: str, sections: dict[str, Any]) -> bool:
    """Whether a searched field is a real number, so that whole bounds leave it one."""
    name, _, leaf = path.partition(".")
    section = sections.get(name)
    field = type(section).model_fields.get(leaf) if isinstance(section, Spec) else None
    if field is None:
        return False
    return float in {field.annotation, *typing.get_args(field.annotation)}


def _leaves(raw: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Every field that is no mapping, by its dotted path."""
    found: dict[str, Any] = {}
    for key, value in raw.items():
        if isinstance(value, dict):
            found |= _leaves(value, f"{prefix}{key}.")
        else:
            found[f"{prefix}{key}"] = value
    return found


def get_path(raw: dict[str, Any], path: str) -> Any:
    """The value at a dotted path; KeyError where there is none."""
    value: Any = raw
    for key in path.split("."):
        if not isinstance(value, dict):
            raise KeyError(path)
        value = value[key]
    return value


def set_path(raw: dict[str, Any], path: str, value: Any) -> None:
    """Set the value at a dotted path in place, making the dicts on the way."""
    *parents, last = path.split(".")
    for key in parents:
        child = raw.setdefault(key, {})
        if not isinstance(child, dict):
            raise KeyError(path)
        raw = child
    raw[last] = copy.deepcopy(value)
