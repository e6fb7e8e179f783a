"""The records of a sweep, read once: what trains, what is held out, what the judge asks."""

from __future__ import annotations

from dataclasses import dataclass, field

from easyds_tune.data.read import ReadReport, read
from easyds_tune.data.records import Kind, Prompt, Record, content_hash, prompt_key
from easyds_tune.data.split import remove_overlap, split_held_out
from easyds_tune.errors import DataError
from easyds_tune.spec.data import DataSpec
from easyds_tune.spec.judge import JudgeSpec

KINDS: dict[str, Kind] = {"sft": "conversations", "rm": "preferences", "dpo": "preferences",
                          "ppo": "prompts"}  # fmt: skip
HOLDS_OUT = ("sft", "rm")
"""Algorithms with a loss or accuracy of their own on held-out records."""


@dataclass(frozen=True)
class SweepRecords:
    """Everything a sweep reads from files, the same in the driver and in every worker."""

    train: list[Record]
    held_out: list[Record]
    prompts: list[Prompt]
    notes: list[str] = field(default_factory=list)
    """What was left out and why, in words."""
    hashes: dict[str, str] = field(default_factory=dict)
    """SHA-256 of the records of each part."""


def read_records(data: DataSpec, algorithm: str, judge: JudgeSpec | None) -> SweepRecords:
    """Read, split and clean the records of a sweep; the order of calls changes nothing.

    Raises DataError with the problems of all sources together.
    """
    problems: list[str] = []
    notes: list[str] = []
    kind = KINDS[algorithm]

    def collect(what: str, source: object, kind: Kind) -> list[Record]:
        try:
            report: ReadReport = read(source, kind)  # type: ignore[arg-type]
        except DataError as error:
            problems.extend(f"{what}: {problem}" for problem in error.problems)
            return []
        notes.extend(f"{what}: {n} left out: {why}" for why, n in report.dropped.items())
        return report.records

    train = collect("data.train", data.train, kind)
    held_out: list[Record] = []
    if algorithm in HOLDS_OUT:
        if data.eval is not None:
            held_out = collect("data.eval", data.eval, kind)
        else:
            train, held_out = split_held_out(train, data.eval_fraction)
    prompts: list[Prompt] = []
    if judge is not None:
        asked = collect("judge.prompts", judge.prompts, "prompts")
        prompts, removed = remove_overlap(train, asked)  # type: ignore[arg-type]
        if removed:
            notes.append(f"judge.prompts: {removed} removed, they are in the training data")
        distinct: dict[str, Prompt] = {}
        for prompt in prompts:
            distinct.setdefault(prompt_key(prompt.messages), prompt)
        if repeated := len(prompts) - len(distinct):
            notes.append(f"judge.prompts: {repeated} removed, they repeat an earlier one")
        prompts = list(distinct.values())[: judge.num_prompts]
        if len(prompts) < judge.num_prompts:
            notes.append(f"judge.prompts: {len(prompts)} of the {judge.num_prompts} asked for")
        if asked and len(prompts) < 2:
            problems.append(
                f"judge.prompts: at least 2 prompts must not be in the training data, got "
                f"{len(prompts)} of {len(asked)}; add held-out prompts"
            )
    if algorithm == "rm" and train and len(held_out) < 2:
        problems.append(
            "data.eval: a reward model is judged on at least 2 held-out pairs, got "
            f"{len(held_out)}; give data.eval or a larger eval_fraction"
        )
    if problems:
        raise DataError(problems)
    parts = {"train": train, "held_out": held_out, "prompts": prompts}
    hashes = {name: content_hash(part) for name, part in parts.items() if part}
    return SweepRecords(train, held_out, prompts, notes, hashes)
