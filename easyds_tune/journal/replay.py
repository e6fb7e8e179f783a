"""The state of a sweep as its journal tells it. The live driver applies the same events."""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from easyds_tune.errors import JournalError
from easyds_tune.journal.bounds import Bound
from easyds_tune.journal.events import (
    DEFAULT_FINALS_PER_JUDGE,
    CheckpointEvent,
    CollectEvent,
    DecideEvent,
    Entry,
    Event,
    FinalEvent,
    FinalistEvent,
    FinalsEvent,
    FinishEvent,
    LostEvent,
    NoteEvent,
    Objective,
    ReportEvent,
    RestoreEvent,
    ResumeEvent,
    Source,
    StartEvent,
    StopEvent,
    SuggestEvent,
    SweepEvent,
    TrialError,
    TrialState,
)
from easyds_tune.journal.reader import JournalReader, repair_offer


class Interruption(NamedTuple):
    """A failure after which a trial may be tried again, and the newest step it had reported."""

    step: int
    error: TrialError


class LostCheckpoint(NamedTuple):
    """A checkpoint that is missing or damaged; `digest` of its manifest, empty where unknown."""

    path: str
    digest: str
    problem: str


class Report(NamedTuple):
    """The metrics of one trial at one step; `time` in unix seconds, `seq` its line's number.

    Values are packed and the names shared: a million reports take a fifth of what dicts would.
    """

    step: int
    time: float
    names: tuple[str, ...]
    values: array[float]
    seq: int = 0

    @property
    def metrics(self) -> dict[str, float]:
        """Name to value, NaN and infinity included."""
        return dict(zip(self.names, self.values, strict=True))

    def get(self, name: str, default: float) -> float:
        """One value, without the others."""
        return self.values[self.names.index(name)] if name in self.names else default


@dataclass(slots=True)
class TrialRecord:
    """One trial: what was tried, what it reported, how it ended. Times in unix seconds.

    A suggested trial that has not begun is `RUNNING` with `started` None and `attempt` 0.
    `seconds` is the work of its finished attempts together. Where an order matters, `suggested_seq`
    and `ended_seq` tell it, the numbers of their lines: clocks jump, and two events share a time.
    """

    id: str
    number: int
    params: dict[str, Any]
    source: Source
    suggested: float
    seed: int | None = None  # the trial's own, None for the sweep's
    state: TrialState = TrialState.RUNNING
    attempt: int = 0
    reports: list[Report] = field(default_factory=list)  # by step, each step once
    checkpoints: dict[int, str] = field(default_factory=dict)  # by step: path in the sweep folder
    sizes: dict[int, int] = field(default_factory=dict)  # step -> size of its checkpoint
    largest: int = 0  # bytes that its largest checkpoint ever took, trainer state included
    digests: dict[int, str] = field(default_factory=dict)  # step -> of its manifest
    final_only: set[int] = field(default_factory=set)  # steps whose trainer state was deleted
    collected: set[int] = field(default_factory=set)  # steps whose checkpoint was deleted
    lost: dict[int, LostCheckpoint] = field(
        default_factory=dict
    )  # step -> one that does not verify
    decisions: list[DecideEvent] = field(default_factory=list)
    error: TrialError | None = None
    failures: list[Interruption] = field(default_factory=list)  # those that were not the end
    started: float | None = None
    resumed: float | None = None  # when its newest attempt began
    resumed_ran: float = 0.0  # the sweep's `ran` then
    ended: float | None = None
    seconds: float = 0.0
    suggested_seq: int = 0
    ended_seq: int | None = None

    @property
    def step(self) -> int:
        """The newest step reported, 0 before the first."""
        return self.reports[-1].step if self.reports else 0

    def add_report(self, report: Report) -> None:
        """Append a report; a retry that goes back replaces what an earlier attempt left ahead."""
        self._forget_after(report.step)
        while self.reports and self.reports[-1].step >= report.step:
            del self.reports[-1]
        self.reports.append(report)

    def report_at(self, step: int) -> Report | None:
        """The report of a step, None where there is none."""
        place = bisect_left(self.reports, step, key=lambda report: report.step)
        found = self.reports[place : place + 1]
        return found[0] if found and found[0].step == step else None

    def add_checkpoint(self, event: CheckpointEvent) -> None:
        """A checkpoint is whole on disk; those of later steps belong to an attempt given up."""
        self._forget_after(event.step)
        self._keep(event)

    def restore(self, event: RestoreEvent) -> None:
        """A checkpoint that was lost is whole on disk again."""
        self._keep(event)
        self.checkpoints = dict(sorted(self.checkpoints.items()))

    def lose(self, step: int, problem: str) -> None:
        """A checkpoint is missing or damaged."""
        if step in self.checkpoints:
            digest = "" if step in self.final_only else self.digests[step]
            self.lost[step] = LostCheckpoint(self.checkpoints[step], digest, problem)
            self.forget(step)

    def _keep(self, event: CheckpointEvent | RestoreEvent) -> None:
        self.checkpoints[event.step] = event.path
        self.sizes[event.step] = event.bytes
        self.largest = max(self.largest, event.bytes)
        self.digests[event.step] = event.digest
        self.final_only.discard(event.step)
        self.collected.discard(event.step)
        self.lost.pop(event.step, None)

    def resumable(self) -> list[int]:
        """Steps whose checkpoints the trial can go on from, newest first."""
        return sorted(self.checkpoints.keys() - self.final_only, reverse=True)

    def forget(self, step: int) -> None:
        """A checkpoint is no more."""
        self.checkpoints.pop(step, None)
        self.sizes.pop(step, None)
        self.digests.pop(step, None)
        self.final_only.discard(step)

    def _forget_after(self, step: int) -> None:
        if self.reports and self.reports[-1].step > step:
            self.collected = {earlier for earlier in self.collected if earlier <= step}
            self.lost = {earlier: lost for earlier, lost in self.lost.items() if earlier <= step}
        while self.checkpoints and (last := next(reversed(self.checkpoints))) > step:
            self.forget(last)


@dataclass(slots=True)
class SweepRecord:
    """A sweep so far. `updated` is the time of its newest event, in unix seconds.

    `ran` is for how many seconds drivers have run it, as of its newest event: by the monotonic
    clocks of its writers, or by the wall clock in journals without them.
    """

    name: str
    algorithm: str
    objective: Objective
    num_trials: int
    max_steps: int
    space: dict[str, dict[str, Any]]
    created: float
    updated: float
    trials: dict[str, TrialRecord] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    bounds: tuple[Bound, ...] = ()
    objectives: tuple[Objective, ...] = ()  # all of them; `objective` is the first
    ran: float = 0.0
    resumed_seq: int = 0  # the line in which the newest driver took the sweep up
    undecided: str | None = None  # the trial whose report is the newest thing that happened
    stopped: str | None = None  # the limit that ended the search, in words
    chosen: list[tuple[str, int]] = field(default_factory=list)  # for the finals: trial, step
    finals_round: int = 0  # the newest round of the finals, 0 while the search runs
    finals_per_judge: float = DEFAULT_FINALS_PER_JUDGE  # see SweepEvent
    finalists: list[FinalistEvent] = field(default_factory=list)  # those judged so far
    final: FinalEvent | None = None
    torn_bytes: int = 0  # left out at the end of the journal when it was read
    _up: float = 0.0  # of the newest entry
    _ran_before: float = 0.0  # what `ran` was when the newest writer's `up` was 0
    _metric_names: dict[tuple[str, ...], tuple[str, ...]] = field(default_factory=dict, repr=False)

    @classmethod
    def begin(cls, entry: Entry) -> SweepRecord:
        """Start from the first entry of a journal.

        Raises:
            JournalError: the entry is not the sweep's own event.
        """
        event = entry.event
        if not isinstance(event, SweepEvent):
            raise JournalError(
                f"a journal must open with the sweep event, got {type(event).__name__}"
            )
        return cls(
            name=event.name,
            algorithm=event.algorithm,
            objective=event.objective,
            num_trials=event.num_trials,
            max_steps=event.max_steps,
            space=event.space,
            bounds=event.bounds,
            objectives=event.objectives or (event.objective,),
            finals_per_judge=event.finals_per_judge,
            created=event.created,
            updated=entry.time,
            _up=entry.up or 0.0,
            _ran_before=-(entry.up or 0.0),
        )

    @property
    def next_number(self) -> int:
        """The number of the next trial; numbers have holes where a repair lost trials."""
        return 1 + max((trial.number for trial in self.trials.values()), default=-1)

    def apply(self, entry: Entry) -> None:
        """Take in the next entry.

        Raises:
            JournalError: the event cannot follow what came before, such as a report of a trial
                that was never suggested; the record is as it was.
        """
        ran = self._ran_by(entry)
        match entry.event:
            case ReportEvent() as event:  # most lines are one of these two
                self._trial(event.trial, entry).add_report(self._pack(event, entry))
            case CheckpointEvent() as event:
                self._trial(event.trial, entry).add_checkpoint(event)
            case CollectEvent() as event:
                self._collect(event, entry)
            case LostEvent() as event:
                self._trial(event.trial, entry).lose(event.step, event.problem)
            case RestoreEvent() as event:
                self._trial(event.trial, entry).restore(event)
            case ResumeEvent() as event:
                self._resume(event, entry)
            case DecideEvent() as event:
                self._decide(event, entry)
            case SuggestEvent() as event:
                self._suggest(event, entry)
            case StartEvent() as event:
                self._start(event, entry)
            case FinishEvent() as event:
                self._finish(event, entry)
            case StopEvent() as event:
                self.stopped = event.reason
            case FinalsEvent() as event:
                for name, _ in event.finalists:
                    self._trial(name, entry)
                self.chosen = [(trial, step) for trial, step in event.finalists]
                self.finals_round = event.round
            case FinalistEvent() as event:
                self._trial(event.trial, entry)
                self.finalists.append(event)
            case NoteEvent() as event:
                self.notes.append(event.text)
            case FinalEvent() as event:
                if event.winner is not None:
                    self._trial(event.winner, entry)
                self.final = event
            case SweepEvent():
                raise JournalError(f"event {entry.seq}: a sweep begins once, got a second start")
        self._note_undecided(entry.event)
        self.updated, self.ran = entry.time, ran
        if entry.up is not None:
            self._up, self._ran_before = entry.up, ran - entry.up

    def ran_at(self, up: float) -> float:
        """`ran` now, `up` seconds after the newest writer opened the journal."""
        return max(self.ran, self._ran_before + up)

    def _ran_by(self, entry: Entry) -> float:
        """`ran` at an entry. What passed before a driver resumed the sweep does not count."""
        if isinstance(entry.event, ResumeEvent):
            return self.ran
        if entry.up is None:
            return self.ran + max(0.0, entry.time - self.updated)
        is_new_writer = entry.up < self._up
        return self.ran if is_new_writer else self.ran_at(entry.up)

    def _note_undecided(self, event: Event) -> None:
        """A report waits for its decision until anything happens that is not part of it."""
        match event:
            case ReportEvent(trial=trial):
                self.undecided = trial
            case CheckpointEvent(trial=trial) | DecideEvent(trial=trial) if trial == self.undecided:
                pass
            case ResumeEvent() | CollectEvent() | NoteEvent() | StopEvent():
                pass
            case LostEvent() | RestoreEvent():
                pass
            case _:
                self.undecided = None

    def _collect(self, event: CollectEvent, entry: Entry) -> None:
        trial = self._trial(event.trial, entry)
        if event.step not in trial.checkpoints:
            return
        if event.what == "checkpoint":
            trial.forget(event.step)
            trial.collected.add(event.step)
        else:
            trial.final_only.add(event.step)
            trial.sizes[event.step] = event.bytes

    def _resume(self, event: ResumeEvent, entry: Entry) -> None:
        for trial in self.trials.values():
            if trial.state is TrialState.RUNNING and trial.resumed is not None:
                # It died with its driver, which came to write no end of it.
                trial.seconds += self.ran - trial.resumed_ran
                trial.resumed = None
        self.num_trials = event.num_trials
        self.stopped = None  # a limit that is still met says so again
        self.final = None
        self.resumed_seq = entry.seq
        self.notes.extend(event.changes)

    def _suggest(self, event: SuggestEvent, entry: Entry) -> None:
        if event.trial in self.trials:
            raise JournalError(f"event {entry.seq}: trial {event.trial} was suggested already")
        self.final = None  # a finished sweep that goes on is unfinished again
        if event.source != "finals":
            self.finals_round = 0
        self.trials[event.trial] = TrialRecord(
            id=event.trial,
            number=event.number,
            params=event.params,
            source=event.source,
            suggested=entry.time,
            seed=event.seed,
            suggested_seq=entry.seq,
        )

    def _decide(self, event: DecideEvent, entry: Entry) -> None:
        trial = self._trial(event.trial, entry)
        trial.decisions.append(event)
        if event.action in ("promote", "resume"):
            trial.state = TrialState.RUNNING  # and starts once it has got its slot
            trial.ended = trial.ended_seq = trial.resumed = None

    def _start(self, event: StartEvent, entry: Entry) -> None:
        trial = self._trial(event.trial, entry)
        self.final = None
        if trial.source != "finals":
            self.finals_round = 0
        trial.state = TrialState.RUNNING
        trial.attempt = event.attempt
        trial.error = trial.ended = trial.ended_seq = None
        trial.resumed, trial.resumed_ran = entry.time, self._ran_by(entry)
        if trial.started is None:
            trial.started = entry.time

    def _finish(self, event: FinishEvent, entry: Entry) -> None:
        trial = self._trial(event.trial, entry)
        trial.state = event.state
        trial.error = event.error
        if event.error is not None and event.state is TrialState.INTERRUPTED:
            trial.failures.append(Interruption(event.step, event.error))
        trial.ended, trial.ended_seq = entry.time, entry.seq
        trial.seconds += event.seconds

    def _trial(self, trial_id: str, entry: Entry) -> TrialRecord:
        trial = self.trials.get(trial_id)
        if trial is None:
            raise JournalError(f"event {entry.seq}: trial {trial_id} was never suggested")
        return trial

    def _pack(self, event: ReportEvent, entry: Entry) -> Report:
        names = tuple(event.metrics)
        shared = self._metric_names.setdefault(names, names)
        values = array("d", list(event.metrics.values()))  # of a list: at once, with no room left
        return Report(event.step, entry.time, shared, values, entry.seq)


def replay(entries: Iterable[Entry]) -> SweepRecord:
    """Build the record that a journal's entries describe.

    Raises:
        JournalError: there is no entry, or one cannot follow the others.
    """
    remaining = iter(entries)
    first = next(remaining, None)
    if first is None:
        raise JournalError("a journal must hold at least its first event, got none")
    record = SweepRecord.begin(first)
    for entry in remaining:
        record.apply(entry)
    return record


def read_record(reader: JournalReader) -> SweepRecord:
    """Replay a journal that was not read before; `torn_bytes` says what its end lost.

    Raises:
        JournalError: see `JournalReader` and `replay`; the message names the file and the line.
    """
    entries = iter(reader)
    first = next(entries, None)
    if first is None:
        raise JournalError(
            f"{reader.path}: a journal must hold at least its first event, got none; begin the "
            "sweep anew if it never ran a trial, else restore the journal from a copy"
        )
    record = SweepRecord.begin(first)
    for entry in entries:
        try:
            record.apply(entry)
        except JournalError as error:
            place = f"{reader.path}:{reader.lines}"
            raise JournalError(f"{place}: {error}; {repair_offer(reader.path)}") from error
    record.torn_bytes = reader.torn_bytes
    return record
