"""All that can be known to be wrong before anything starts: data, models, room, machine."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from easyds_tune.data.markup import markup_notes, template_markers
from easyds_tune.data.template import choose_template, template_notes
from easyds_tune.data.tokenise import Encoder, check_room
from easyds_tune.errors import ProblemsError, SpecError
from easyds_tune.journal.events import DEFAULT_FINALS_PER_JUDGE
from easyds_tune.models.hub import hub_problems
from easyds_tune.models.load import ModelKind, context_length, load_skeleton
from easyds_tune.models.lora import target_problems, trainable_parameters
from easyds_tune.models.stack import with_policy_adapter
from easyds_tune.models.start import load_start_tokenizer, start_of
from easyds_tune.rewards.check import check_reward_model
from easyds_tune.spec.base import written_fields
from easyds_tune.spec.check import budget_problems, is_local_path, sweep_problems
from easyds_tune.spec.check_metrics import NEEDS_HELD_OUT
from easyds_tune.spec.check_model import policy_problems, reward_specs, searched
from easyds_tune.spec.check_ppo import ppo_notes
from easyds_tune.spec.notes import decision_notes
from easyds_tune.spec.resources import resource_problems
from easyds_tune.spec.sweep import SweepSpec
from easyds_tune.sweep.check_arguments import argument_problems
from easyds_tune.sweep.check_deepspeed import deepspeed_problems
from easyds_tune.sweep.check_lengths import check_lengths, encode_parts
from easyds_tune.sweep.check_model import (
    attention_problems,
    base_problems,
    embedding_target_problems,
    vocabulary_problems,
)
from easyds_tune.sweep.check_training import dtype_problems, schedule_problems
from easyds_tune.sweep.folder import never_began
from easyds_tune.sweep.lock import holder
from easyds_tune.trial.quiet import quiet_libraries
from easyds_tune.trial.records import (
    FEWEST_HELD_OUT,
    SweepRecords,
    finals_per_judge,
    records_of,
)

SECTIONS = tuple(f"{name}{mark}" for name in written_fields(SweepSpec) for mark in ".:")
"""What a problem opens with that says itself where in the spec it is."""
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "tokenizer.model", "vocab.json",
                   "vocab.txt", "spiece.model", "sentencepiece.bpe.model")  # fmt: skip


def sweep_folder(spec: SweepSpec) -> Path:
    """The folder of a sweep, in the working directory's output folder."""
    return Path(spec.output.folder) / spec.name


@dataclass(frozen=True, kw_only=True)
class CheckedRecords(SweepRecords):
    """The records of a sweep that passed its preflight."""

    fitting: int
    """Training records that the spec's own max_length leaves: an epoch is a pass over these."""
    finals_per_judge: float = DEFAULT_FINALS_PER_JUDGE
    """Prompts of the finals for each one of the search."""


@dataclass(frozen=True)
class _ModelCheck:
    """What a model says to a spec and its records; the notes tell which records are left out."""

    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    fitting: int = 0


def preflight(spec: SweepSpec, *, new_folder: bool = True, is_sweep: bool = True) -> CheckedRecords:
    """Check a spec against this machine, its files and its models; return its records.

    new_folder: the sweep's folder must not be there yet. is_sweep: not a trial alone.

    Raises SpecError, with every problem found; nothing is started and nothing written.
    """
    quiet_libraries()
    problems = sweep_problems(spec) if is_sweep else resource_problems(spec.resources)
    problems += dtype_problems(spec)
    if new_folder:
        problems += folder_problems(spec)
    records: SweepRecords | None = None
    model = _ModelCheck()

    def collect(check: Callable[[], list[str]], path: str) -> None:
        try:
            found = check()
        except ProblemsError as error:
            found = error.problems
        # Below the spec nobody knows where in it a model's name stands.
        problems.extend(
            problem if problem.startswith(SECTIONS) else f"{path}: {problem}" for problem in found
        )

    def check_model() -> list[str]:
        nonlocal model
        model = _check_model(spec, records)
        return model.problems

    try:
        records = records_of(spec)
    except ProblemsError as error:
        problems.extend(error.problems)
    collect(check_model, "model.model_name_or_path")
    problems += schedule_problems(spec, model.fitting)
    if spec.training.max_steps is None and model.fitting:
        problems += budget_problems(spec, model.fitting)
    for section, reward in reward_specs(spec).items():
        collect(
            lambda reward=reward: (  # type: ignore[misc]
                hub_problems(reward.model_name_or_path)
                or file_problems(reward.model_name_or_path)
                or check_reward_model(reward)
            ),
            f"{section}.reward.model_name_or_path",
        )
    if spec.objective.metric == "eval/loss" and records is not None:
        if not records.held_out:
            problems.append(NEEDS_HELD_OUT)
        elif len(records.held_out) < FEWEST_HELD_OUT:
            problems.append(
                f"data.eval: eval/loss is measured on at least {FEWEST_HELD_OUT} held-out records, "
                f"got {len(records.held_out)}; give data.eval, or a larger eval_fraction"
            )
    if problems or records is None:
        raise SpecError(list(dict.fromkeys(problems)))
    notes = records.notes + model.notes + ppo_notes(spec, model.fitting)
    if is_sweep:
        notes += decision_notes(spec)
    parts = vars(records) | {"notes": notes}
    return CheckedRecords(
        **parts, fitting=model.fitting, finals_per_judge=finals_per_judge(records)
    )


def folder_problems(spec: SweepSpec) -> list[str]:
    """Why the sweep cannot have its folder: there already, or not to be made."""
    folder = sweep_folder(spec)
    if who := holder(folder):
        return [f"name: {folder} is being run by {who}; choose another with --set name=..."]
    if os.path.lexists(folder) and not never_began(folder):
        return [f"name: {folder} exists already; choose another with --set name=..., or remove it"]
    parent = next(path for path in folder.absolute().parents if os.path.lexists(path))
    if not parent.is_dir():
        return [f"output.folder: must be a folder, and {parent} is a file; choose another"]
    if not os.access(parent, os.W_OK | os.X_OK):
        return [f"output.folder: must be writable, and {parent} is not; choose another"]
    return []


def file_problems(model: str) -> list[str]:
    """What a local model's folder lacks: Transformers makes up a tokenizer where there is none."""
    folder = Path(os.path.expanduser(model) if is_local_path(model) else model)
    if not (folder / "config.json").is_file():
        return []  # a hub name, or an adapter
    problems = []
    if not any((folder / name).is_file() for name in TOKENIZER_FILES):
        problems.append(f"{model}: has no tokenizer, none of {', '.join(TOKENIZER_FILES)}")
    weights = [*folder.glob("*.safetensors"), *folder.glob("pytorch_model*.bin")]
    if not weights:
        problems.append(f"{model}: has no weights, no *.safetensors and no pytorch_model*.bin")
    problems += [
        f"{model}: has no {shard}, which {index.name} names; fetch it again"
        for index in sorted(folder.glob("*.index.json"))
        for shard in _shards(index)
        if not (folder / shard).is_file()
    ]
    for path in weights:
        if path.suffix == ".safetensors":
            try:
                with safe_open(path, "pt"):
                    pass
            except (SafetensorError, OSError) as error:
                problems.append(
                    f"{model}: {path.name} is not whole ({error}); fetch it again, "
                    "with git lfs where it came by git"
                )
    return problems


def _shards(index: Path) -> list[str]:
    """The files that hold a model's weights by its index; none where that cannot be read."""
    try:
        return sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return []


def _check_model(spec: SweepSpec, records: SweepRecords | None) -> _ModelCheck:
    """What the policy's files, its tokenizer and the records say against the spec."""
    kind: ModelKind = "reward" if spec.algorithm.type == "rm" else "causal"
    if problems := hub_problems(spec.model.model_name_or_path, spec.model.revision):
        return _ModelCheck(problems)
    start = start_of(spec.model)
    for rank in searched(spec, "model.lora_r", spec.model.lora_r):
        start_of(spec.model.model_copy(update={"lora_r": rank}))
    problems = file_problems(start.base.model_name_or_path)
    if problems:
        return _ModelCheck(problems)
    whole = load_skeleton(start.base, kind)
    problems += base_problems(start.base, whole)
    problems += attention_problems(spec, start.base, kind)
    problems += deepspeed_problems(spec, whole)
    architecture = (whole.config.architectures or [""])[0]
    problems += policy_problems(spec, start.base.model_name_or_path, architecture)
    for params in _target_choices(spec):
        changed = spec.with_params(params).model
        changed = changed.model_copy(
            update={"model_name_or_path": start.base.model_name_or_path,
                    "revision": start.base.revision}
        )  # fmt: skip
        skeleton = load_skeleton(changed, kind)
        found = target_problems(skeleton, changed)
        problems += found
        if not found and start.adapter is not None and not problems:
            with_policy_adapter(skeleton, changed, start.adapter)
        elif not found:
            trainable_parameters(changed, kind, skeleton)
        problems += embedding_target_problems(skeleton, spec.algorithm.type)
    tokenizer = load_start_tokenizer(start)
    if not problems:  # they would fail of the same causes
        problems += argument_problems(spec, start.base, kind, tokenizer)
    if records is None:
        return _ModelCheck(problems)
    template = choose_template(tokenizer, spec.data.chat_template)
    encoder = Encoder(tokenizer, template)
    notes = template_notes(template, spec.data.chat_template)
    ends = (tokenizer.bos_token, tokenizer.eos_token)
    markers = template_markers(encoder.markup or None, tokenizer.all_special_tokens, ends)
    notes += markup_notes(records.sources(), markers)
    encoded = encode_parts(spec, records, encoder)
    problems += vocabulary_problems(records, encoded, encoder, whole)
    limit = context_length(whole)
    if spec.judge is not None and limit is not None:
        room = check_room(records.prompts, encoder, spec.judge.max_new_tokens, limit)
        problems += [f"judge.prompts: {problem}" for problem in room]
        room = check_room(records.finals_prompts, encoder, spec.judge.max_new_tokens, limit)
        section = "judge" if spec.finals is None or spec.finals.prompts is None else "finals"
        problems += [f"{section}.prompts: {problem}" for problem in room]
    lengths = check_lengths(spec, records, encoded, encoder, limit)
    return _ModelCheck(problems + lengths.problems, notes + lengths.notes, lengths.fitting)


def _target_choices(spec: SweepSpec) -> list[dict[str, Any]]:
    path = "model.lora_target_modules"
    param = spec.search_space.get(path)
    return [{}, *({path: value} for value in (param.end_points() if param else []))]
