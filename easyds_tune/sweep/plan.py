"""What a sweep would do, told without torch or Ray: for `easyds-tune plan`."""

from __future__ import annotations

import json
import math
import os
import re
import struct
from pathlib import Path

import yaml

from easyds_tune.data.markup import markup_notes, template_markers
from easyds_tune.data.template import read_tokenizer_files, template_notes
from easyds_tune.decisions.collector import RESUMABLE
from easyds_tune.errors import DataError, SpecError
from easyds_tune.spec.algorithm import length_field
from easyds_tune.spec.bounds import BoundSpec
from easyds_tune.spec.check import ADAPTER_CONFIG, budget_problems, sweep_problems
from easyds_tune.spec.check_model import model_config_problems, reward_specs, unchecked_models
from easyds_tune.spec.check_ppo import ppo_notes
from easyds_tune.spec.model import ModelSpec
from easyds_tune.spec.notes import decision_notes, shown_note
from easyds_tune.spec.resources import gpus_of, slot_count
from easyds_tune.spec.rungs import rungs, scheduler_type
from easyds_tune.spec.sweep import SweepSpec
from easyds_tune.trial.records import SweepRecords, records_of

WEIGHT_BYTES = 4
"""Bytes of a saved weight."""
STATE_BYTES = 20
"""Bytes a checkpoint holds per trained weight: itself twice, AdamW's master copy and moments."""
FIXED_BYTES = 60_000
"""Bytes of a checkpoint that do not grow with the adapter."""
FIXED_EXPORT_BYTES = 4_000
"""The same of one that has lost its trainer state."""
CANDIDATES = 3
"""Checkpoints of an unfinished trial, besides its newest, that may be the best one day."""


def plan_text(spec: SweepSpec) -> str:
    """The resolved spec as YAML, then a summary of trials, slots, steps, rungs and disk.

    Checks what the spec, the data and the models' config files tell, and lists what it leaves to
    the sweep's preflight.
    Raises SpecError where data is wrong or the machine lacks what the spec asks for.
    """
    problems = sweep_problems(spec) + model_config_problems(spec)
    try:
        records = records_of(spec)
    except DataError as error:
        problems += error.problems
    else:
        if spec.training.max_steps is None:
            problems += budget_problems(spec, len(records.train))
    if problems:
        raise SpecError(list(dict.fromkeys(problems)))
    notes = records.notes + ppo_notes(spec, len(records.train)) + decision_notes(spec)
    return _text(spec, _summary(spec, records, notes) + _not_checked(spec))


def full_plan_text(spec: SweepSpec) -> str:
    """As `plan_text`, after the preflight of `sweep`: every check that a sweep makes.

    Loads torch, the tokenizers and the models' configurations. Raises SpecError as `sweep` would.
    """
    from easyds_tune.sweep.preflight import preflight

    records = preflight(spec)
    return _text(spec, _summary(spec, records, records.notes, records.fitting))


def _text(spec: SweepSpec, summary: list[str]) -> str:
    resolved = yaml.safe_dump(spec.model_dump(mode="json"), allow_unicode=True, sort_keys=False)
    return resolved + "\n" + "\n".join(f"# {line}" for line in summary)


def _not_checked(spec: SweepSpec) -> list[str]:
    """What only the preflight checks."""
    names = unchecked_models(spec)
    absent = f", whether {' and '.join(names)} can be loaded" if names else ""
    return [
        "not checked: lengths in tokens, LoRA targets, optional packages, the "
        f"models' files{absent}; easyds-tune plan SPEC --full checks all that sweep does"
    ]


def _summary(
    spec: SweepSpec, records: SweepRecords, notes: list[str], fitting: int | None = None
) -> list[str]:
    """fitting: training records within the spec's length limit; None where not yet counted."""
    train_records = len(records.train) if fitting is None else fitting
    budget = spec.budget(train_records)
    evaluations = max(1, math.ceil(budget.max_steps / budget.eval_steps))
    gpus = gpus_of(spec.resources)
    slot = f"{gpus:g} GPU" if gpus else f"{spec.resources.cpus_per_trial} CPU core(s)"
    return [
        f"records: {len(records.train)} train, {len(records.held_out)} held out, "
        f"{len(records.prompts)} judge prompts",
        *dict.fromkeys([*map(shown_note, notes), *_template_lines(spec, records)]),
        f"trials: {spec.search.num_trials}, the first is the configuration above",
        f"slots: {slot_count(spec.resources)} at a time, each {slot}",
        f"steps: {budget.max_steps} a trial, evaluated every {budget.eval_steps}"
        f"{_per_batch(spec)}{_per_record(spec) if fitting is None else ''}",
        _rung_line(spec, train_records),
        _disk_line(spec, evaluations),
        _objective_line(spec),
        *_bound_lines(spec),
        *_stop_lines(spec),
        *_finals_lines(spec, records),
        *_remote_code_lines(spec),
    ]  # fmt: skip


def _remote_code_lines(spec: SweepSpec) -> list[str]:
    trusted = [spec.model.model_name_or_path] if spec.model.trust_remote_code else []
    trusted += [
        reward.model_name_or_path
        for reward in reward_specs(spec).values()
        if reward.trust_remote_code
    ]
    return [
        f"trust_remote_code: ON, Python code of {name} will run" for name in dict.fromkeys(trusted)
    ]


def _template_lines(spec: SweepSpec, records: SweepRecords) -> list[str]:
    """The chat template and what it means for the data, as far as a local model's files tell."""
    start = Path(os.path.expanduser(spec.model.model_name_or_path))
    is_whole = (start / "tokenizer_config.json").is_file()
    files = read_tokenizer_files(start if is_whole else Path(_base_of(start)))
    if files is None:
        return ["chat template: known once the model is fetched"]
    template = files.template(spec.data.chat_template)
    markers = template_markers(template.text, files.special, files.ends)
    notes = template_notes(template, spec.data.chat_template)
    notes += markup_notes(records.sources(), markers)
    return [*map(shown_note, notes), f"chat template: {template.in_words}"]


def _per_batch(spec: SweepSpec) -> str:
    if not spec.searches_batch:
        return ""
    return " at the default batch; a trial with a larger batch takes fewer, for the same examples"


def _per_record(spec: SweepSpec) -> str:
    if spec.training.max_steps is not None:
        return ""
    field = length_field(spec.algorithm)
    return f"; fewer where algorithm.{field} leaves records out, which only the tokenizer tells"


def _rung_line(spec: SweepSpec, train_records: int) -> str:
    milestones, kind = rungs(spec, train_records), scheduler_type(spec)
    if not milestones:
        why = "" if kind == "none" else f" ({kind}: too few trials or evaluations)"
        return f"rungs: none, every trial runs to its end{why}"
    unit = "examples" if spec.searches_batch else "step"
    if kind == "median":
        return (
            f"rungs: every evaluation from {unit} {milestones[0]} on; a trial stops where it is "
            "worse than the middle one (median)"
        )
    factor = spec.scheduler.reduction_factor
    return (
        f"rungs: {unit} {', '.join(map(str, milestones))}; at each the best 1/{factor:g} go on "
        f"({kind})"
    )


def _objective_line(spec: SweepSpec) -> str:
    several = "; the first ranks" if len(spec.objectives) > 1 else ""
    names = [f"{objective.metric} ({objective.mode})" for objective in spec.objectives]
    return f"objective: {', '.join(names)}{several}"


def _bound_lines(spec: SweepSpec) -> list[str]:
    told = [f"{metric} {_within(bound)}" for metric, of in spec.bounds.items() for bound in of]
    return [f"bounds: {'; '.join(told)}"] if told else []


def _within(bound: BoundSpec) -> str:
    if bound.min is None:
        limits = f"at most {bound.max:g}"
    elif bound.max is None:
        limits = f"at least {bound.min:g}"
    else:
        limits = f"{bound.min:g} to {bound.max:g}"
    start = f" from step {bound.from_step}" if bound.from_step else ""
    patience = f", {bound.patience} reports in a row" if bound.patience > 1 else ""
    return f"{limits}{start}{patience} ({'stops' if bound.hard else 'infeasible'} outside)"


def _stop_lines(spec: SweepSpec) -> list[str]:
    stop = spec.stop
    limits = {
        "tokens": stop.tokens,
        "GPU-hours": stop.gpu_hours,
        "hours": stop.hours,
        "trials without an improvement": stop.no_improvement,
    }
    told = [f"{limit:g} {what}" for what, limit in limits.items() if limit is not None]
    return [f"stop: after {', or '.join(told)}, if that is before the last trial"] if told else []


def _finals_lines(spec: SweepSpec, records: SweepRecords) -> list[str]:
    finals = spec.finals
    if len(spec.objectives) > 1:
        return ["finals: none, several objectives have a front; best shows it"]
    if finals is None or not records.hold_finals:
        return ["finals: none, best shows the search's own number, which is biased upward"]
    what = "held-out records" if records.finals_held_out else "fresh prompts"
    count = len(records.finals_held_out) or len(records.finals_prompts)
    again = f"; each is trained again on {finals.seeds} new seeds" if finals.seeds else ""
    return [
        f"finals: the {finals.top} best checkpoints on {count} {what}, half to pick the winner and "
        f"half to report it{again}"
    ]


def _disk_line(spec: SweepSpec, evaluations: int) -> str:
    start = Path(os.path.expanduser(spec.model.model_name_or_path))
    model = spec.model.model_dump() | {"model_name_or_path": _base_of(start)}
    largest = [
        trained_weights(ModelSpec.model_validate(model | change), has_head=_has_head(spec))
        for change in _rank_choices(spec)
    ]
    known = [weights for weights in largest if weights is not None]
    whole, bare = _checkpoint_counts(spec, evaluations)
    output = spec.output
    stay = "all" if output.keep is None else f"the {output.keep} best"
    also = f"{stay}, and what unfinished trials need"
    if output.disk_limit is not None:
        also += f"; from {format_bytes(output.disk_limit)} on fewer, and no trial begins"
    if not known:
        return (
            f"disk: at most {whole + bare} checkpoints, {also}; "
            "their size is known once the model is fetched"
        )
    # An adapter that the policy starts from is saved as one with the policy's own.
    stacked = WEIGHT_BYTES * (_weights(_shapes(start)) if _is_adapter(start) else 0)
    size = whole * (STATE_BYTES * max(known) + stacked + FIXED_BYTES)
    size += bare * (WEIGHT_BYTES * max(known) + stacked + FIXED_EXPORT_BYTES)
    return (
        f"disk: at most {format_bytes(size)} in {whole + bare} checkpoints under "
        f"{output.folder}/: {also}"
    )


def _checkpoint_counts(spec: SweepSpec, evaluations: int) -> tuple[int, int]:
    """Checkpoints that are there at once, at most: with trainer state, and without."""
    finals = spec.finals
    finalists = (finals.top + 1) * (1 + finals.seeds) if finals else 0
    retrained = finalists - (finals.top + 1) if finals else 0
    every = (spec.search.num_trials + retrained) * evaluations
    slots = slot_count(spec.resources)
    waits = scheduler_type(spec) in ("asha", "halving")
    unfinished = spec.search.num_trials if waits else min(slots, spec.search.num_trials)
    # Each slot may be writing one more than what stays.
    whole = min(every, RESUMABLE * unfinished + slots)
    if spec.output.keep is None:
        return whole, every - whole
    bare = spec.output.keep + finalists + CANDIDATES * unfinished
    return whole, min(every - whole, bare)


def _rank_choices(spec: SweepSpec) -> list[dict[str, object]]:
    """The default and every end point of what decides a checkpoint's size."""
    changes: list[dict[str, object]] = [{}]
    for field in ("lora_r", "lora_target_modules"):
        param = spec.search_space.get(f"model.{field}")
        if param is not None:
            changes += [{field: value} for value in param.end_points()]
    return changes


def _has_head(spec: SweepSpec) -> bool:
    """Whether a trial trains a head of one output: a reward, or PPO's value."""
    algorithm = spec.algorithm
    return algorithm.type == "rm" or (
        algorithm.type == "ppo" and algorithm.advantage_estimator == "gae"
    )


def _is_adapter(folder: Path) -> bool:
    return os.path.isfile(folder / ADAPTER_CONFIG)


def _base_of(folder: Path) -> str:
    """The model under an adapter's folder, or the model itself; whether it fits is not asked."""
    if not _is_adapter(folder):
        return str(folder)
    try:
        config = json.loads((folder / ADAPTER_CONFIG).read_text(encoding="utf-8"))
        return str(config["base_model_name_or_path"])
    except (OSError, ValueError, KeyError, TypeError):
        return str(folder / "no-base")


def trained_weights(model: ModelSpec, *, has_head: bool) -> int | None:
    """Weights that a trial trains, from the headers of local safetensors; None if not local."""
    shapes = _shapes(Path(os.path.expanduser(model.model_name_or_path)))
    if not shapes:
        return None
    if model.lora_r is None:
        return _weights(shapes)
    trained = sum(
        model.lora_r * sum(shape)
        for name, shape in shapes.items()
        if len(shape) == 2 and _is_target(name.removesuffix(".weight"), model.lora_target_modules)
    )
    return trained + (max(shape[-1] for shape in shapes.values()) if has_head else 0)


def _is_target(module: str, targets: str | list[str]) -> bool:
    """Whether PEFT gives a module an adapter, by its full name and PEFT's own rules."""
    if targets == "all-linear":
        leaf = module.rsplit(".", 1)[-1]
        return "embed" not in leaf and leaf not in ("lm_head", "score", "wte", "wpe")
    if isinstance(targets, str):
        return re.fullmatch(targets, module) is not None
    return any(module == target or module.endswith(f".{target}") for target in targets)


def _weights(shapes: dict[str, list[int]]) -> int:
    return sum(math.prod(shape) for shape in shapes.values())


def _shapes(folder: Path) -> dict[str, list[int]]:
    """Tensor names and shapes of a model folder, read from the files' headers alone."""
    shapes: dict[str, list[int]] = {}
    for path in folder.glob("*.safetensors"):
        try:
            with path.open("rb") as stream:
                (length,) = struct.unpack("<Q", stream.read(8))
                header = json.loads(stream.read(length))
            shapes |= {name: entry["shape"] for name, entry in header.items() if "shape" in entry}
        # Whatever a file that is no safetensors may hold where its header should be.
        except (
            OSError,
            ValueError,
            TypeError,
            AttributeError,
            OverflowError,
            MemoryError,
            struct.error,
        ):
            return {}
    return shapes


def format_bytes(count: float) -> str:
    """Bytes with a unit, such as 1.5 GB."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} TB"
