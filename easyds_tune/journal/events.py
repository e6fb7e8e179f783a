"""The events of a sweep and their one-line form. The vocabulary of the journal: no file I/O here.

A line is compact JSON whose first key is the CRC-32 of every byte after it::

    {"crc":"89abcdef","seq":7,"time":1763700000.123,"event":"report","trial":"003",...}

The checksum covers the line from ``"seq"`` to the closing brace, as written, so a reader checks it
before it parses anything. JSON has no NaN or infinity: inside ``metrics`` they are the strings
``"nan"``, ``"inf"`` and ``"-inf"`` and read back as floats; anywhere else they are refused.
Half of a surrogate pair, as the name of a file may hold and UTF-8 cannot, becomes the text of its
escape, such as ``\\udcff``.
"""

from __future__ import annotations

import json
import re
import zlib
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any, Literal, NamedTuple

import orjson

from easyds_tune.errors import JournalError
from easyds_tune.journal.bounds import Bound

SCHEMA_VERSION = 1
DEFAULT_FINALS_PER_JUDGE = 2
"""Prompts of the finals for each one of the judge, where neither spec nor journal says."""

LINE_START = b'{"crc":"'
_HEAD = LINE_START + b'%08x",'
_HEAD_BYTES = len(_HEAD % 0)
_HALF_PAIR = re.compile("[\ud800-\udfff]")
_WRITTEN_BY_PEOPLE = ("sweep", "suggest")
"""Events with values out of a search space. orjson, six times as fast as json, would make floats
of their whole numbers beyond 64 bits."""


class TrialState(StrEnum):
    """What a trial is or became; `RUNNING`, `PAUSED` and `INTERRUPTED` may still go on.

    `PAUSED` waits at a rung, with a checkpoint, until it is promoted or the sweep is over.
    """

    RUNNING = "RUNNING"
    PAUSED = "PAUSED"
    INTERRUPTED = "INTERRUPTED"
    COMPLETED = "COMPLETED"
    PRUNED = "PRUNED"
    BOUNDED = "BOUNDED"
    DIVERGED = "DIVERGED"
    OUT_OF_MEMORY = "OUT_OF_MEMORY"
    FAILED = "FAILED"

    @property
    def is_final(self) -> bool:
        """Whether the trial will never run again."""
        return self not in (TrialState.RUNNING, TrialState.PAUSED, TrialState.INTERRUPTED)


@dataclass(frozen=True, slots=True)
class Objective:
    """The metric that makes one trial better than another, and which way is better."""

    metric: str
    mode: Literal["max", "min"] = "max"


@dataclass(frozen=True, slots=True)
class TrialError:
    """Why a trial failed: the class of its exception and its message."""

    type: str
    message: str


@dataclass(frozen=True, slots=True)
class SweepEvent:
    """The first line of every journal. `space` maps a searched path to its domain, as
    ``{"type": "float" | "int", "low", "high", "log"}`` or ``{"type": "choice", "choice": [...]}``.
    `max_steps` is the budget of one trial in steps; `created` is in unix seconds. Where a sweep has
    several objectives, `objectives` holds them all and `objective` is the first.
    `finals_per_judge` is how many prompts (or held-out records) the finals have for each one of the
    search.
    """

    name: str
    algorithm: str
    objective: Objective
    num_trials: int
    max_steps: int
    created: float
    space: dict[str, dict[str, Any]] = field(default_factory=dict)
    bounds: tuple[Bound, ...] = ()
    objectives: tuple[Objective, ...] = ()
    finals_per_judge: float = DEFAULT_FINALS_PER_JUDGE
    version: int = SCHEMA_VERSION


Source = Literal["default", "point", "sampler", "finals"]
"""Who chose a configuration: the spec, a warm start, the sampler, or the finals that repeat it."""


@dataclass(frozen=True, slots=True)
class SuggestEvent:
    """A configuration was chosen for a new trial; `params` maps dotted paths to values.

    `seed` is the trial's own where it is not the sweep's: a configuration trained once more.
    """

    trial: str
    number: int
    params: dict[str, Any]
    source: Source
    seed: int | None = None


@dataclass(frozen=True, slots=True)
class StartEvent:
    """A trial began to train; `attempt` counts from 1 and grows with every retry or resume."""

    trial: str
    attempt: int


@dataclass(frozen=True, slots=True)
class ReportEvent:
    """A trial reported its metrics at a step."""

    trial: str
    step: int
    metrics: dict[str, float]


@dataclass(frozen=True, slots=True)
class CheckpointEvent:
    """A checkpoint is whole on disk; `path` is relative to the sweep's folder.

    `digest` is the SHA-256 of its manifest, and so of all that it lists.
    """

    trial: str
    step: int
    path: str
    bytes: int
    digest: str = ""


@dataclass(frozen=True, slots=True)
class DecideEvent:
    """A scheduler, the guard or a limit decided something, such as ``by="asha", action="stop"``.

    ``"stop"`` and ``"pause"`` come before the trial's end, ``"promote"`` lets a paused one go on
    and ``"resume"`` an interrupted one, ``"note"`` changes nothing: a soft bound is broken.
    """

    trial: str
    step: int
    by: str
    action: str
    reason: str


@dataclass(frozen=True, slots=True)
class CollectEvent:
    """A checkpoint, or its trainer state alone, is deleted right after this line, to save disk.

    Without its trainer state a checkpoint can be judged and exported, and no trial can go on;
    `bytes` is then the size of what is left.
    """

    trial: str
    step: int
    what: Literal["checkpoint", "trainer"]
    bytes: int = 0


@dataclass(frozen=True, slots=True)
class LostEvent:
    """A checkpoint is missing or damaged: `problem` says which, after "is". It wins nothing until a
    RestoreEvent. Its files, if any, stay as they are.
    """

    trial: str
    step: int
    problem: str


@dataclass(frozen=True, slots=True)
class RestoreEvent:
    """A checkpoint that the journal had lost, or never named, is whole on disk.

    Fields as in CheckpointEvent. Checkpoints of later steps stay.
    """

    trial: str
    step: int
    path: str
    bytes: int
    digest: str


@dataclass(frozen=True, slots=True)
class FinishEvent:
    """A trial stopped running, for good or (`INTERRUPTED`) for now, after `seconds` of work.

    `INTERRUPTED` with an error is a failure that may be tried again.
    """

    trial: str
    state: TrialState
    step: int
    seconds: float
    error: TrialError | None = None


@dataclass(frozen=True, slots=True)
class ResumeEvent:
    """A driver took the sweep up again; `changes` says in words what differs from before."""

    num_trials: int
    changes: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class StopEvent:
    """The search ended before all of its trials had run: which limit was met, in words."""

    reason: str


@dataclass(frozen=True, slots=True)
class FinalsEvent:
    """A round of the finals began; `finalists` are the (trial, step) of all checkpoints to judge.

    They include those of earlier rounds. `round` counts from 1.
    """

    finalists: list[tuple[str, int]]
    round: int = 1


@dataclass(frozen=True, slots=True)
class FinalistEvent:
    """A checkpoint was judged anew, on prompts and draws that no decision has seen.

    `values` has one number a prompt for each metric. The metric is their mean, or where `weights`
    holds the metric too, their sum over the sum of the weights: nats over tokens for ``eval/kl``.
    Prompts stand in one order for all finalists.
    """

    trial: str
    step: int
    checkpoint: str
    values: dict[str, list[float]]
    weights: dict[str, list[float]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class FinalEvent:
    """The sweep ended. `winner` is a trial id, or None where no trial is fit to win."""

    winner: str | None
    step: int | None
    exit_code: int


@dataclass(frozen=True, slots=True)
class NoteEvent:
    """Something a reader of the sweep should know, in words."""

    text: str


Event = (
    SweepEvent
    | SuggestEvent
    | StartEvent
    | ReportEvent
    | CheckpointEvent
    | DecideEvent
    | CollectEvent
    | LostEvent
    | RestoreEvent
    | FinishEvent
    | ResumeEvent
    | StopEvent
    | FinalsEvent
    | FinalistEvent
    | FinalEvent
    | NoteEvent
)

_KINDS: dict[str, type[Event]] = {
    "sweep": SweepEvent,
    "suggest": SuggestEvent,
    "start": StartEvent,
    "report": ReportEvent,
    "checkpoint": CheckpointEvent,
    "decide": DecideEvent,
    "collect": CollectEvent,
    "lost": LostEvent,
    "restore": RestoreEvent,
    "finish": FinishEvent,
    "resume": ResumeEvent,
    "stop": StopEvent,
    "finals": FinalsEvent,
    "finalist": FinalistEvent,
    "final": FinalEvent,
    "note": NoteEvent,
}
_NAMES: dict[type[Event], str] = {kind: name for name, kind in _KINDS.items()}


class Entry(NamedTuple):
    """One line of the journal: its place, when it was written (unix seconds), what happened.

    up: seconds since its writer opened the journal, by a monotonic clock; None in older journals.
    """

    seq: int
    time: float
    event: Event
    up: float | None = None


def encode_line(seq: int, time: float, event: Event, up: float | None = None) -> bytes:
    """Return the journal line of an event, newline included.

    Raises:
        ValueError: a number outside `metrics` is not finite.
    """
    if isinstance(event, ReportEvent):
        metrics = {name: _json_number(value) for name, value in event.metrics.items()}
        fields = {"trial": event.trial, "step": event.step, "metrics": metrics}
    else:
        fields = asdict(event)
    clock = {} if up is None else {"up": up}
    payload = {"seq": seq, "time": time, **clock, "event": _NAMES[type(event)], **fields}
    text = json.dumps(payload, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    try:
        body = text[1:].encode()
    except UnicodeEncodeError:
        body = _HALF_PAIR.sub(lambda half: f"\\\\u{ord(half[0]):04x}", text[1:]).encode()
    return _HEAD % zlib.crc32(body) + body + b"\n"


def has_other_end(line: bytes) -> bool:
    """Whether a line is whole but for its end, CR LF in place of LF."""
    return line.endswith(b"\r\n") and checksum_holds(line[:-2] + b"\n")


def checksum_holds(line: bytes) -> bool:
    """Whether a line, with its newline, is whole."""
    return line.endswith(b"\n") and line.startswith(_HEAD % zlib.crc32(line[_HEAD_BYTES:-1]))


def decode_line(line: bytes) -> Entry:
    """Return the entry of a line whose checksum holds.

    Raises:
        JournalError: the line is not an event of this schema version.
    """
    try:
        payload = orjson.loads(line)
        kind = payload["event"]
        if kind in _WRITTEN_BY_PEOPLE:
            payload = json.loads(line)
        up = payload.pop("up", None)
        return Entry(payload["seq"], payload["time"], _decode_event(kind, payload), up)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise JournalError(
            f"a journal line must be an event of schema version {SCHEMA_VERSION}, got "
            f"{line[:120]!r} ({type(error).__name__}: {error}); was it written by a newer release?"
        ) from error


def _decode_event(kind: str, fields: dict[str, Any]) -> Event:
    if kind == "report":
        metrics = fields["metrics"]
        try:
            sum(metrics.values())
        except TypeError:  # what is not finite is a string: the quickest way to find it
            metrics = {name: float(value) for name, value in metrics.items()}
        return ReportEvent(fields["trial"], fields["step"], metrics)
    for name in ("crc", "seq", "time", "event"):
        del fields[name]
    if kind == "sweep":
        fields["objective"] = Objective(**fields["objective"])
        fields["objectives"] = tuple(Objective(**o) for o in fields.get("objectives", ()))
        fields["bounds"] = tuple(Bound(**bound) for bound in fields.get("bounds", ()))
    elif kind == "finish":
        fields["state"] = TrialState(fields["state"])
        if fields["error"] is not None:
            fields["error"] = TrialError(**fields["error"])
    return _KINDS[kind](**fields)


def _json_number(value: float) -> float | str:
    number = float(value)
    finite = number - number == 0.0
    return number if finite else str(number)
