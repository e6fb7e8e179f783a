"""Random sweeps as their drivers would write them, and what holds of every record of one."""

from __future__ import annotations

import math

from hypothesis import strategies as st

from easyds_tune.journal.events import (
    CheckpointEvent,
    CollectEvent,
    DecideEvent,
    Entry,
    Event,
    FinalEvent,
    FinalistEvent,
    FinalsEvent,
    FinishEvent,
    NoteEvent,
    Objective,
    ReportEvent,
    ResumeEvent,
    StartEvent,
    StopEvent,
    SuggestEvent,
    SweepEvent,
    TrialError,
    TrialState,
    decode_line,
    encode_line,
)
from easyds_tune.journal.replay import SweepRecord, TrialRecord

NUMBERS = (0.5, -1.25, 1e-5, 3.0, math.nan, math.inf, -math.inf)
ENDS = (
    TrialState.COMPLETED,
    TrialState.PRUNED,
    TrialState.BOUNDED,
    TrialState.DIVERGED,
    TrialState.OUT_OF_MEMORY,
    TrialState.FAILED,
)


class Driver:
    """Writes one event after the other, each of which could follow; `choices` say which.

    Trials run side by side, pause and are promoted, fail and are tried again from a checkpoint;
    checkpoints are collected; the driver dies and a new one resumes, also a sweep that had ended.
    """

    def __init__(self) -> None:
        self.now = 1_763_700_000.0
        first = SweepEvent("随机", "dpo", Objective("eval/reward"), 8, 40, self.now)
        self.lines = [encode_line(0, self.now, first)]
        self.record = SweepRecord.begin(decode_line(self.lines[0]))

    def append(self, event: Event) -> None:
        self.lines.append(encode_line(len(self.lines), self.now, event))
        self.record.apply(decode_line(self.lines[-1]))

    def act(self, choice: int) -> None:
        """Do one of the things that can be done now."""
        self.now = round(self.now + (choice % 97) / 7 - 1, 6)  # clocks jump back, too
        choice, what = divmod(choice, 16)
        running = [t for t in self.record.trials.values() if t.state is TrialState.RUNNING]
        begun = [t for t in running if t.resumed is not None]
        paused = [t for t in self.record.trials.values() if t.state is TrialState.PAUSED]
        if what == 0:
            self.append(NoteEvent(f"第 {choice} 条"))
        elif what == 1:
            self.resume(choice)
        elif what == 2 and not running:
            self.finals(choice)
        elif what == 3 and paused:
            trial = paused[choice % len(paused)]
            self.append(DecideEvent(trial.id, trial.step, "asha", "promote", "the best"))
        elif what == 4:
            self.collect(choice)
        elif what == 5 and choice % 4 == 0:
            self.append(StopEvent("the limit is met"))
        elif what <= 6 and len(self.record.trials) < self.record.num_trials:
            number = self.record.next_number
            params = {"x": choice / 7, "kind": [None, "a", choice][choice % 3]}
            source = "sampler" if number else "default"
            self.append(SuggestEvent(f"{number:03d}", number, params, source))  # type: ignore[arg-type]
        elif waiting := [t for t in running if t.resumed is None]:
            self.append(StartEvent(waiting[0].id, waiting[0].attempt + 1))
        elif begun:
            self.go_on(begun[choice % len(begun)], choice, what)

    def go_on(self, trial: TrialRecord, choice: int, what: int) -> None:
        """A running trial reports, pauses, fails for now, or ends."""
        if what <= 12:
            self.report(trial, choice)
        elif what == 13:
            self.append(DecideEvent(trial.id, trial.step, "asha", "pause", "third of 4"))
            self.append(FinishEvent(trial.id, TrialState.PAUSED, trial.step, 1.5))
        elif what == 14:
            error = TrialError("WorkerDied", "killed") if choice % 2 else None
            self.append(FinishEvent(trial.id, TrialState.INTERRUPTED, trial.step, 0.5, error))
            self.append(StartEvent(trial.id, trial.attempt + 1))
        else:
            state = ENDS[choice % len(ENDS)]
            error = TrialError("ValueError", "坏") if state is TrialState.FAILED else None
            self.append(FinishEvent(trial.id, state, trial.step, 2.0, error))

    def report(self, trial: TrialRecord, choice: int) -> None:
        """From the newest checkpoint on, or from the start: a retry has gone back."""
        resumable = trial.resumable()
        fresh = trial.attempt > 1 and choice % 3 == 0
        step = ((resumable[0] if resumable else 0) if fresh else trial.step) + 1 + choice % 3
        metrics = {"eval/reward": NUMBERS[choice % 7], "eval/kl": choice / 3}
        if choice % 5:
            self.append(ReportEvent(trial.id, step, metrics))
        if choice % 4:
            path = f"trials/{trial.id}/checkpoints/step-{step:06d}"
            self.append(CheckpointEvent(trial.id, step, path, choice))

    def collect(self, choice: int) -> None:
        kept = [(t.id, s) for t in self.record.trials.values() for s in t.checkpoints]
        if kept:
            trial, step = kept[choice % len(kept)]
            self.append(CollectEvent(trial, step, "trainer" if choice % 2 else "checkpoint"))

    def resume(self, choice: int) -> None:
        """The driver died, at any moment; another one goes on."""
        extended = self.record.num_trials + choice % 2
        self.append(ResumeEvent(extended, ["num_trials"] if choice % 2 else []))
        for trial in self.record.trials.values():
            if trial.state in (TrialState.RUNNING, TrialState.INTERRUPTED) and trial.attempt:
                self.append(StartEvent(trial.id, trial.attempt + 1))

    def finals(self, choice: int) -> None:
        chosen = [(t.id, s) for t in self.record.trials.values() for s in t.checkpoints][:3]
        if chosen:
            self.append(FinalsEvent(chosen))
        for trial, step in chosen[: choice % 4]:
            self.append(FinalistEvent(trial, step, "path", {"eval/reward": [0.5, choice / 9]}))
        winner = chosen[0] if chosen else (None, None)
        self.append(FinalEvent(*winner, 0 if chosen else 3))


@st.composite
def journals(draw: st.DrawFn, max_size: int = 60) -> Driver:
    """A sweep that was driven for a while."""
    driver = Driver()
    for choice in draw(st.lists(st.integers(0, 4000), max_size=max_size)):
        driver.act(choice)
    return driver


def check_valid(record: SweepRecord) -> None:
    """What holds of every record, wherever its journal ends and whatever a repair left out."""
    numbers = [trial.number for trial in record.trials.values()]
    assert len(set(numbers)) == len(numbers)
    assert all(number < record.next_number for number in numbers)
    assert record.ran >= 0
    assert record.undecided is None or record.undecided in record.trials
    assert {trial for trial, _ in record.chosen} <= record.trials.keys()
    assert {event.trial for event in record.finalists} <= record.trials.keys()
    assert record.final is None or record.final.winner in (None, *record.trials)
    for name, trial in record.trials.items():
        assert trial.id == name
        steps = [report.step for report in trial.reports]
        lines = [report.seq for report in trial.reports]
        assert steps == sorted(set(steps))
        assert [trial.suggested_seq, *lines] == sorted({trial.suggested_seq, *lines})
        assert list(trial.checkpoints) == sorted(trial.checkpoints)
        assert trial.sizes.keys() == trial.checkpoints.keys() >= trial.final_only
        assert trial.resumable() == sorted(trial.resumable(), reverse=True)
        assert (trial.attempt == 0) == (trial.started is None)
        assert trial.seconds >= 0
        has_ended = trial.state is not TrialState.RUNNING
        assert (trial.ended is not None) == has_ended
        assert (trial.ended_seq is not None) == has_ended
        assert trial.ended_seq is None or trial.ended_seq > trial.suggested_seq
        assert trial.error is None or has_ended


def shown(entries: list[Entry]) -> list[str]:
    """What entries say, apart from their numbers; as text, for NaN never equals itself."""
    return [repr(entry[1:]) for entry in entries]
