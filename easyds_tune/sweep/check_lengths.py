"""Training, held-out and finals records against length limits: what is left out, cut or too few."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import product
from typing import NamedTuple

from datasets import Dataset

from easyds_tune.data.records import Record
from easyds_tune.data.tokenise import Encoder
from easyds_tune.data.training_sets import Fitted, fit
from easyds_tune.spec.algorithm import AlgorithmSpec, PPOSpec, length_field, length_limit
from easyds_tune.spec.check_model import length_problems, searched
from easyds_tune.spec.notes import WARNING
from easyds_tune.spec.sweep import SweepSpec
from easyds_tune.trial.records import FEWEST_HELD_OUT, SweepRecords
from easyds_tune.trial.workbench import ENCODE

MEASURED, JUDGED = "the fewest to measure on", "the fewest to judge on"


class LengthCheck(NamedTuple):
    """What the limits of a spec and its search do to its records; fitting: of the spec itself."""

    problems: list[str]
    notes: list[str]
    fitting: int


def encode_parts(spec: SweepSpec, records: SweepRecords, encoder: Encoder) -> dict[str, Dataset]:
    """The sets of records that are tokenised whole, by their field; empty ones are left out."""
    parts = {name: getattr(records, name) for name in ("train", "held_out", "finals_held_out")}
    encode = ENCODE[spec.algorithm.type]
    return {name: encode(part, encoder).dataset for name, part in parts.items() if part}


def check_lengths(
    spec: SweepSpec,
    records: SweepRecords,
    encoded: dict[str, Dataset],
    encoder: Encoder,
    limit: int | None,
) -> LengthCheck:
    """Lengths that the model has no positions for, or that leave too few records.

    encoded: the records by `encode_parts`. limit: the model's positions. Training records must
    fill an optimizer step (PPO draws new replies and needs one prompt), held-out sets need
    `FEWEST_HELD_OUT`, once a limit leaves records out; that it leaves out more than half is a
    warning.
    """
    problems = length_problems(spec, limit)
    if isinstance(spec.algorithm, PPOSpec) and not problems:
        problems = _reply_room_problems(spec, spec.algorithm, records, encoder, limit)
    step = 1 if spec.algorithm.type == "ppo" else spec.training.effective_batch
    if records.mostly_left_out and len(records.train) < step:
        problems.append(
            f"data.train: {records.mostly_left_out} are left out; at least {step}, one optimizer "
            f"step's batch, must be left to train on, got {len(records.train)}; repair the data"
        )
    tried = _algorithms(spec)
    # Trials are measured on one held-out set, fit to the spec's own length.
    parts = (
        ("train", _Part("training", records.train, step, "one optimizer step's batch")),
        ("held_out", _Part("held-out", records.held_out, FEWEST_HELD_OUT, MEASURED)),
        (
            "finals_held_out",
            _Part("finals' held-out", records.finals_held_out, FEWEST_HELD_OUT, JUDGED),
        ),
    )
    notes: list[str] = []
    fitting = 0
    for name, part in parts:
        if name not in encoded:
            continue
        for number, algorithm in enumerate(tried if name == "train" else tried[:1]):
            fitted = fit(encoded[name], algorithm)
            found = part.problems(fitted, algorithm)
            problems += found
            if not found and number == 0:
                notes += part.notes(fitted, algorithm)
                if name == "train" and len(fitted.dataset) < step:
                    notes.append(
                        f"{WARNING}training records: {len(fitted.dataset)}, fewer than one "
                        f"optimizer step's batch of {step}: each step sees all of them"
                    )
                fitting = fitting or len(fitted.dataset)
            elif not found:
                notes += part.warnings(fitted, algorithm)
    return LengthCheck(list(dict.fromkeys(problems)), list(dict.fromkeys(notes)), fitting)


class _Part(NamedTuple):
    """One set of records, and the fewest that a limit may leave of it."""

    name: str
    records: Sequence[Record]
    fewest: int
    why: str

    def problems(self, fitted: Fitted, algorithm: AlgorithmSpec) -> list[str]:
        """Too few records left."""
        left, all_of = len(fitted.dataset), len(self.records)
        field, limit = f"algorithm.{length_field(algorithm)}", length_limit(algorithm)
        if left == 0:
            return [f"{field}: {limit} tokens leave no {self.name} record; raise it"]
        if not fitted.dropped or left >= self.fewest:
            return []
        return [
            f"{field}: {limit} tokens must leave at least {self.fewest} {self.name} records, "
            f"{self.why}, got {left} of {all_of}; {_remedy(algorithm)}"
        ]

    def notes(self, fitted: Fitted, algorithm: AlgorithmSpec) -> list[str]:
        """What the spec's own limit leaves out and cuts."""
        left_out = [
            f"{self.name} records: {count} left out: {why}" for why, count in fitted.dropped.items()
        ]
        return [*(self.warnings(fitted, algorithm) or left_out), *self.cuts(fitted, algorithm)]

    def warnings(self, fitted: Fitted, algorithm: AlgorithmSpec) -> list[str]:
        """That a limit leaves out more than half."""
        all_of, dropped = len(self.records), fitted.dropped.total()
        if dropped <= all_of / 2:
            return []
        return [
            f"{WARNING}{self.name} records: {dropped} of {all_of} ({dropped / all_of:.0%}) left "
            f"out: {', '.join(fitted.dropped)}; {all_of - dropped} are left; {_remedy(algorithm)}"
        ]

    def cuts(self, fitted: Fitted, algorithm: AlgorithmSpec) -> list[str]:
        """Which texts lost their beginning or end; mostly unended replies are a warning."""
        if not fitted.cut:
            return []
        (first, count), *others = fitted.cut.items()
        counts = ", ".join([f"{first} cut in {count}", *(f"{what} in {n}" for what, n in others)])
        lost = "the beginning is lost" if first == "prompt" else "a cut reply has no end token"
        much = first != "prompt" and 2 * max(fitted.cut.values()) > len(fitted.dataset)
        warning = WARNING if much else ""
        return [
            f"{warning}{self.name} records: {counts} of {len(self.records)}; {lost} "
            f"(algorithm.truncation: {algorithm.truncation})"  # type: ignore[union-attr]
        ]


def _remedy(algorithm: AlgorithmSpec) -> str:
    raise_it = f"raise algorithm.{length_field(algorithm)}"
    if algorithm.type == "ppo" or algorithm.truncation != "drop":
        return raise_it
    return f"{raise_it}, or set algorithm.truncation: keep_end"


def _algorithms(spec: SweepSpec) -> list[AlgorithmSpec]:
    """The spec's algorithm, then those of the limits that a search may set."""
    own = spec.algorithm
    names = [length_field(own), *([] if own.type == "ppo" else ["truncation"])]
    choices = [searched(spec, f"algorithm.{name}", getattr(own, name)) for name in names]
    tried = [own.model_copy(update=dict(zip(names, values, strict=True)))
             for values in product(*choices)]  # fmt: skip
    return [algorithm for n, algorithm in enumerate(tried) if algorithm not in tried[:n]]


def _reply_room_problems(
    spec: SweepSpec, ppo: PPOSpec, records: SweepRecords, encoder: Encoder, limit: int | None
) -> list[str]:
    """Prompts after which the model has no positions left for PPO's longest reply."""
    if limit is None:
        return []
    room = limit - max(searched(spec, "algorithm.response_length", ppo.response_length))
    allowed = max(
        searched(spec, "algorithm.max_prompt_length", ppo.max_prompt_length),
        key=lambda length: math.inf if length is None else length,
    )
    lengths = [len(ids) for ids in encoder.prompts([r.messages for r in records.train])]  # type: ignore[union-attr]
    taken = [length for length in lengths if length <= (allowed or length)]
    too_long = sum(length > room for length in taken)
    if not too_long:
        return []
    shorter = limit - max(taken)
    remedies = [
        *([f"set algorithm.max_prompt_length: {room} to leave them out"] if min(lengths) <= room
          else []),
        *([f"lower response_length to {shorter}"] if shorter > 0 else []),
    ]  # fmt: skip
    return [
        f"data.train: {too_long} of {len(lengths)} prompts are longer than the {room} tokens that "
        f"the model's {limit} positions leave beside response_length {limit - room} (the longest "
        f"has {max(taken)}); {', or '.join(remedies) or 'shorten them'}"
    ]
