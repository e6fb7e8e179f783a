"""The records of a sweep, read once: what trains, what is held out, what judge and finals ask."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from easyds_tune.data.read import ReadReport, read
from easyds_tune.data.records import (
    Kind,
    PreferencePair,
    Prompt,
    Record,
    content_hash,
    prompt_key,
)
from easyds_tune.data.split import remove_overlap, split_held_out
from easyds_tune.errors import DataError
from easyds_tune.journal.events import DEFAULT_FINALS_PER_JUDGE
from easyds_tune.spec.data import DataSource, DataSpec
from easyds_tune.spec.finals import FinalsSpec
from easyds_tune.spec.judge import JudgeSpec
from easyds_tune.spec.notes import WARNING
from easyds_tune.spec.sweep import SweepSpec

KINDS: dict[str, Kind] = {"sft": "conversations", "rm": "preferences", "dpo": "preferences",
                          "ppo": "prompts"}  # fmt: skip
HOLDS_OUT = ("sft", "rm")
"""Algorithms with a loss or accuracy of their own on held-out records."""
FEWEST_HELD_OUT = 2
"""Held-out records without which a loss or an accuracy has no spread."""
FEWEST_FINALS = 16
"""Prompts or held-out records below which finals are not worth their intervals."""
BIASED = "best then shows the search's own number, which is biased upward"


Sources = DataSource | tuple[DataSource, ...]


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
    finals_prompts: list[Prompt] = field(default_factory=list)
    """The judge's prompts in the finals; the search uses none of them."""
    finals_held_out: list[Record] = field(default_factory=list)
    """Held-out records that the search never sees, where its objective is measured on such."""

    mostly_left_out: str | None = None
    """How much of data.train reading left out, where that is more than half."""

    def sources(self) -> dict[str, Sequence[Record]]:
        """The records by where in a spec they come from."""
        return {
            "data.train": self.train,
            "held-out records": [*self.held_out, *self.finals_held_out],
            "judge.prompts": self.prompts,
            "finals.prompts": self.finals_prompts,
        }

    @property
    def hold_finals(self) -> bool:
        """Whether there is anything to judge finalists on."""
        return bool(self.finals_prompts or self.finals_held_out)


def finals_per_judge(records: SweepRecords) -> float:
    """Prompts of the finals for each of the search's; held-out records where there are none."""
    for finals, search in (
        (records.finals_prompts, records.prompts),
        (records.finals_held_out, records.held_out),
    ):
        if finals and search:
            return len(finals) / len(search)
    return DEFAULT_FINALS_PER_JUDGE


def records_of(spec: SweepSpec) -> SweepRecords:
    """The records of a sweep with those of its finals; as `read_records`."""
    return read_records(
        spec.data, spec.algorithm.type, spec.judge, spec.finals, spec.objective.metric
    )


def read_records(
    data: DataSpec,
    algorithm: str,
    judge: JudgeSpec | None,
    finals: FinalsSpec | None = None,
    objective: str = "eval/reward",
) -> SweepRecords:
    """Read, split and clean the records of a sweep; the order of calls changes nothing.

    objective: decides whether the finals need held-out records or prompts.
    Raises DataError with the problems of all sources together.
    """
    problems: list[str] = []
    notes: list[str] = []
    kind = KINDS[algorithm]
    little: dict[str, str] = {}

    def collect(what: str, source: Sources, kind: Kind) -> list[Record]:
        try:
            report: ReadReport = read(source, kind)
        except DataError as error:
            problems.extend(f"{what}: {problem}" for problem in error.problems)
            return []
        notes.extend(f"{what}: {n} left out: {why}" for why, n in report.dropped.items())
        notes.extend(f"{what}: {note}" for note in report.notes)
        if _little_left(source, report):
            out, kept = report.dropped.total(), len(report.records)
            little[what] = f"{out} of {out + kept} records ({out / (out + kept):.0%})"
            notes.append(f"{WARNING}{what}: {little[what]} are left out, {kept} are left")
        notes.extend(margin_notes(what, report.records, algorithm))
        return report.records

    train = collect("data.train", data.train, kind)
    held_out: list[Record] = []
    notes += _unused_notes(data, algorithm)
    if algorithm in HOLDS_OUT:
        if data.eval is not None:
            given = collect("data.eval", data.eval, kind)
            held_out = _fresh(train, given, problems, notes)
        else:
            train, held_out = split_held_out(train, data.eval_fraction)
    prompts: list[Prompt] = []
    spare: list[Prompt] = []
    if judge is not None:
        asked = collect("judge.prompts", judge.prompts, "prompts")
        prompts, removed = remove_overlap(train, asked)
        if removed:
            notes.append(f"judge.prompts: {removed} removed, they are in the training data")
        distinct = _distinct(prompts)
        if repeated := len(prompts) - len(distinct):
            notes.append(f"judge.prompts: {repeated} removed, they repeat an earlier one")
        prompts, spare = distinct[: judge.num_prompts], distinct[judge.num_prompts :]
        if len(prompts) < judge.num_prompts:
            few = len(prompts) < FEWEST_FINALS
            notes.append(
                f"{WARNING if few else ''}judge.prompts: {len(prompts)} of the "
                f"{judge.num_prompts} asked for{', too few to tell trials apart' if few else ''}"
            )
        if asked and len(prompts) < 2:
            problems.append(
                f"judge.prompts: at least 2 prompts must not be in the training data, got "
                f"{len(prompts)} of {len(asked)}; add held-out prompts"
            )
    finals_prompts: list[Prompt] = []
    finals_held_out: list[Record] = []
    on_held_out = algorithm == "rm" or objective == "eval/loss"
    if finals is not None and on_held_out and held_out:
        held_out, finals_held_out = _halve(held_out, finals, notes)
    if finals is not None and judge is not None and not problems:
        if finals.prompts is not None:
            asked = collect("finals.prompts", finals.prompts, "prompts")
            spare = _unseen(train, prompts, asked, notes)  # type: ignore[arg-type]
        if not problems:
            finals_prompts = _enough(spare, finals, judge, problems, notes, silent=on_held_out)
    told = any(problem.startswith("data.eval:") for problem in problems)
    if algorithm == "rm" and train and len(held_out) < FEWEST_HELD_OUT and not told:
        problems.append(
            "data.eval: a reward model is judged on at least "
            f"{FEWEST_HELD_OUT} held-out pairs, got {len(held_out)}; give data.eval or a larger "
            "eval_fraction"
        )
    if problems:
        raise DataError(problems)
    parts = {
        "train": train,
        "held_out": held_out,
        "prompts": prompts,
        "finals_prompts": finals_prompts,
        "finals_held_out": finals_held_out,
    }
    hashes = {name: content_hash(part) for name, part in parts.items() if part}
    return SweepRecords(
        train,
        held_out,
        prompts,
        notes,
        hashes,
        finals_prompts,
        finals_held_out,
        little.get("data.train"),
    )


def _little_left(source: Sources, report: ReadReport) -> bool:
    """Whether reading left out more records than it kept; with a limit it kept enough."""
    sources = source if isinstance(source, tuple) else (source,)
    is_limited = any(one.limit is not None for one in sources)
    return not is_limited and report.dropped.total() > len(report.records)


def margin_notes(what: str, records: Sequence[Record], algorithm: str) -> list[str]:
    """Which margins of pairs no loss reads; the reward loss of training reads them."""
    pairs = [record for record in records if isinstance(record, PreferencePair)]
    given = sum(pair.margin is not None for pair in pairs)
    if not given:
        return []
    if algorithm != "rm":
        return [f"{what}: margin: {given} values not used by {algorithm}"]
    if what == "data.eval":
        return [f"{what}: margin: {given} values not used by the held-out loss and accuracy"]
    missing = len(pairs) - given
    return [f"{what}: margin: missing in {missing} pairs, it counts as 0"] if missing else []


def _unused_notes(data: DataSpec, algorithm: str) -> list[str]:
    """What the spec says about held-out records and this algorithm does not use."""
    notes = []
    if algorithm not in HOLDS_OUT and data.eval is not None:
        notes.append(f"data.eval: not read, {algorithm} is measured by the judge alone")
    default = DataSpec.model_fields["eval_fraction"].default
    if data.eval_fraction != default and (algorithm not in HOLDS_OUT or data.eval is not None):
        why = "data.eval is given" if algorithm in HOLDS_OUT else f"{algorithm} holds nothing out"
        notes.append(f"data.eval_fraction: not used, {why}")
    return notes


def _fresh(
    train: list[Record], given: list[Record], problems: list[str], notes: list[str]
) -> list[Record]:
    """The records of data.eval that training does not ask; too few of them are a problem."""
    kept, removed = remove_overlap(train, given)
    told = f"data.eval: {removed} removed, they are in the training data"
    if removed and len(kept) < FEWEST_HELD_OUT:
        problems.append(
            f"{told}; at least {FEWEST_HELD_OUT} must be left, got {len(kept)} of {len(given)}; "
            "give others, or leave data.eval out to hold out eval_fraction of data.train"
        )
    elif removed:
        few = f", {len(kept)} are left" if removed > len(kept) else ""
        notes.append(f"{WARNING if few else ''}{told}{few}")
    return kept


def _distinct(prompts: list[Prompt]) -> list[Prompt]:
    """The first of each that ask the same."""
    first: dict[str, Prompt] = {}
    for prompt in prompts:
        first.setdefault(prompt_key(prompt.messages), prompt)
    return list(first.values())


def _unseen(
    train: list[Record], prompts: list[Prompt], asked: list[Prompt], notes: list[str]
) -> list[Prompt]:
    """Those of `asked` that neither training nor the judge asks, each once."""
    fresh, _ = remove_overlap([*train, *prompts], asked)
    kept = _distinct(fresh)
    if removed := len(asked) - len(kept):
        notes.append(
            f"finals.prompts: {removed} removed, they are in the training data or the judge's, or "
            "repeat an earlier one"
        )
    return kept


def _enough(
    spare: list[Prompt],
    finals: FinalsSpec,
    judge: JudgeSpec,
    problems: list[str],
    notes: list[str],
    *,
    silent: bool,
) -> list[Prompt]:
    """As many as the finals ask for; none where too few are left, which is said unless `silent`."""
    wanted = finals.num_prompts or max(FEWEST_FINALS, DEFAULT_FINALS_PER_JUDGE * judge.num_prompts)
    fewest = min(FEWEST_FINALS, finals.num_prompts or FEWEST_FINALS)
    if len(spare) >= fewest:
        if len(spare) < (finals.num_prompts or 0):
            notes.append(f"finals: {len(spare)} of the {wanted} prompts asked for")
        return spare[:wanted]
    if finals.prompts is not None:
        problems.append(
            f"finals.prompts: at least {fewest} prompts must be left that are neither in the "
            f"training data nor the judge's, got {len(spare)}; add prompts"
        )
    elif not silent:
        notes.append(
            f"finals: no finals, {len(spare)} prompts are left beyond the judge's and {fewest} are "
            f"needed; {BIASED}; give finals.prompts"
        )
    return []


def _halve(
    held_out: list[Record], finals: FinalsSpec, notes: list[str]
) -> tuple[list[Record], list[Record]]:
    """(what the search is measured on, what the finals are): half each, or as finals ask."""
    share = min(0.5, (finals.num_prompts or len(held_out)) / len(held_out))
    search, kept = split_held_out(held_out, share, seed=1)
    fewest = min(FEWEST_FINALS, finals.num_prompts or FEWEST_FINALS)
    if len(kept) < fewest or len(search) < fewest:
        notes.append(
            f"finals: no finals, half of {len(held_out)} held-out records is fewer than {fewest}; "
            f"{BIASED}; give data.eval or a larger eval_fraction"
        )
        return held_out, []
    return search, kept
