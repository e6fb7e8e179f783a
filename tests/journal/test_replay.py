from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import pytest

from easyds_tune.errors import JournalError
from easyds_tune.journal.bounds import Bound
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
    LostEvent,
    NoteEvent,
    Objective,
    ReportEvent,
    RestoreEvent,
    ResumeEvent,
    StartEvent,
    SuggestEvent,
    SweepEvent,
    TrialError,
    TrialState,
)
from easyds_tune.journal.reader import JournalReader, read_events
from easyds_tune.journal.replay import SweepRecord, read_record, replay
from easyds_tune.journal.writer import JournalWriter


def stamped(events: list[Event]) -> list[Entry]:
    return [Entry(seq, 100.0 + seq, event) for seq, event in enumerate(events)]


def test_a_replayed_sweep_holds_what_its_events_said(journal: Path) -> None:
    record = replay(read_events(journal))

    assert (record.name, record.algorithm, record.num_trials) == ("小试", "dpo", 2)
    assert record.objective.metric == "eval/reward"
    assert record.final == FinalEvent("000", 40, 0)
    assert record.notes == ["第二个试验发散了"]

    default, diverged = record.trials.values()
    assert default.state is TrialState.COMPLETED
    assert default.source == "default"
    assert [(report.step, report.metrics["eval/reward"]) for report in default.reports] == [
        (20, 0.5),
        (40, 0.75),
    ]
    assert default.checkpoints[40] == "trials/000/checkpoints/step-000040"
    assert default.seconds == 12.5

    assert diverged.state is TrialState.DIVERGED
    assert diverged.error == TrialError("DivergedError", "奖励不是有限数")
    assert math.isnan(diverged.reports[0].metrics["eval/reward"])
    assert [(decision.by, decision.action) for decision in diverged.decisions] == [
        ("guard", "stop")
    ]


def test_bounds_objectives_and_finalists_survive_the_journal(
    tmp_path: Path, sweep_event: SweepEvent
) -> None:
    goals = (Objective("eval/reward", "max"), Objective("eval/kl", "min"))
    bounds = (Bound("eval/kl", max=0.2, patience=2, hard=False),)
    begin = dataclasses.replace(sweep_event, bounds=bounds, objectives=goals)
    values = {"eval/reward": [0.5, 1.5], "eval/kl": [2.0, 3.0]}
    finalist = FinalistEvent("000", 20, "trials/000/x", values, {"eval/kl": [20.0, 40.0]})
    writer, _ = JournalWriter.create(tmp_path / "journal.jsonl", begin)
    with writer:
        writer.append(SuggestEvent("000", 0, {"training.learning_rate": 1e-4}, "finals", seed=7))
        writer.append(finalist)
    record = replay(read_events(tmp_path / "journal.jsonl"))
    assert (record.bounds, record.objectives) == (bounds, goals)
    assert record.finalists == [finalist]
    assert (record.trials["000"].source, record.trials["000"].seed) == ("finals", 7)


def test_a_paused_trial_goes_on_where_it_started_again(sweep_event: SweepEvent) -> None:
    events = [
        sweep_event,
        SuggestEvent("000", 0, {}, "default"),
        StartEvent("000", 1),
        ReportEvent("000", 20, {"eval/reward": 0.5}),
        FinishEvent("000", TrialState.PAUSED, 20, 3.0),
    ]
    assert replay(stamped(events)).trials["000"].state is TrialState.PAUSED
    events += [StartEvent("000", 2), FinishEvent("000", TrialState.COMPLETED, 40, 4.0)]
    trial = replay(stamped(events)).trials["000"]
    assert (trial.state, trial.attempt, trial.seconds) == (TrialState.COMPLETED, 2, 7.0)


def test_the_live_record_equals_the_replayed_one(
    tmp_path: Path, sweep_event: SweepEvent, later_events: list[Event]
) -> None:
    path = tmp_path / "journal.jsonl"
    writer, first = JournalWriter.create(path, sweep_event)
    live = SweepRecord.begin(first)
    with writer:
        for event in later_events:
            live.apply(writer.append(event))
            assert repr(replay(read_events(path))) == repr(live)


def test_a_suggested_trial_has_not_started(sweep_event: SweepEvent) -> None:
    record = replay(stamped([sweep_event, SuggestEvent("000", 0, {}, "default")]))
    trial = record.trials["000"]
    assert (trial.state, trial.started, trial.attempt, trial.step) == ("RUNNING", None, 0, 0)


def test_a_retry_replaces_the_reports_and_checkpoints_it_went_back_over(
    sweep_event: SweepEvent,
) -> None:
    record = replay(
        stamped(
            [
                sweep_event,
                SuggestEvent("000", 0, {}, "default"),
                StartEvent("000", 1),
                ReportEvent("000", 10, {"eval/reward": 1.0}),
                CheckpointEvent("000", 10, "a", 1),
                ReportEvent("000", 20, {"eval/reward": 2.0}),
                CheckpointEvent("000", 20, "b", 1),
                ReportEvent("000", 30, {"eval/reward": 3.0}),
                CheckpointEvent("000", 30, "c", 1),
                FinishEvent("000", TrialState.INTERRUPTED, 30, 5.0),
                StartEvent("000", 2),
                ReportEvent("000", 20, {"eval/reward": 2.5}),
            ]
        )
    )
    trial = record.trials["000"]
    assert [(report.step, report.metrics["eval/reward"]) for report in trial.reports] == [
        (10, 1.0),
        (20, 2.5),
    ]
    assert trial.checkpoints == {10: "a", 20: "b"}
    assert (trial.state, trial.attempt, trial.ended) == (TrialState.RUNNING, 2, None)
    assert (trial.started, trial.seconds) == (102.0, 5.0)


def test_a_sweep_that_goes_on_after_its_end_is_unfinished_again(sweep_event: SweepEvent) -> None:
    events: list[Event] = [sweep_event, FinalEvent(None, None, 3)]
    assert replay(stamped(events)).final is not None
    events.append(SuggestEvent("000", 0, {}, "default"))
    assert replay(stamped(events)).final is None


def test_reports_share_their_metric_names(sweep_event: SweepEvent) -> None:
    events: list[Event] = [sweep_event, SuggestEvent("000", 0, {}, "default")]
    events += [ReportEvent("000", step, {f"eval/{'reward'}": 1.0}) for step in (1, 2)]
    first, second = replay(stamped(events)).trials["000"].reports
    assert first.names is second.names


def test_every_prefix_of_a_journal_is_a_valid_state(journal: Path) -> None:
    entries = list(read_events(journal))
    for length in range(1, len(entries) + 1):
        record = replay(entries[:length])
        assert record.updated == entries[length - 1].time


@pytest.mark.parametrize(
    ("events", "message"),
    [
        ([], "at least its first event"),
        ([NoteEvent("x")], "must open with the sweep event"),
    ],
)
def test_what_is_no_sweep_is_refused(events: list[Event], message: str) -> None:
    with pytest.raises(JournalError, match=message):
        replay(stamped(events))


def test_events_that_cannot_follow_are_refused(sweep_event: SweepEvent) -> None:
    suggest = SuggestEvent("000", 0, {}, "default")
    with pytest.raises(JournalError, match="trial 007 was never suggested"):
        replay(stamped([sweep_event, ReportEvent("007", 1, {})]))
    with pytest.raises(JournalError, match="trial 000 was suggested already"):
        replay(stamped([sweep_event, suggest, suggest]))
    with pytest.raises(JournalError, match="begins once"):
        replay(stamped([sweep_event, sweep_event]))
    for event in (FinalsEvent([("000", 1), ("007", 1)]), FinalEvent("007", 1, 0)):
        with pytest.raises(JournalError, match="trial 007 was never suggested"):
            replay(stamped([sweep_event, suggest, event]))


def test_an_event_that_cannot_follow_names_its_line_and_the_remedy(
    tmp_path: Path, sweep_event: SweepEvent
) -> None:
    path = tmp_path / "a sweep" / "journal.jsonl"
    path.parent.mkdir()
    writer, _ = JournalWriter.create(path, sweep_event)
    with writer:
        writer.append(StartEvent("007", 1))
    with pytest.raises(JournalError, match=r"jsonl:2: .*never suggested") as refused:
        read_record(JournalReader(path))
    assert str(refused.value).endswith(f"easyds-tune repair '{path.parent}'")


def test_a_checkpoint_ends_those_of_an_attempt_that_was_given_up(sweep_event: SweepEvent) -> None:
    """A trial that stops in between two reports leaves a checkpoint without a report."""
    trial = replay(
        stamped(
            [
                sweep_event,
                SuggestEvent("000", 0, {}, "default"),
                CheckpointEvent("000", 10, "a", 1),
                CheckpointEvent("000", 15, "b", 2),
                CheckpointEvent("000", 12, "c", 3),
            ]
        )
    ).trials["000"]
    assert trial.checkpoints == {10: "a", 12: "c"}
    assert (trial.sizes, trial.resumable()) == ({10: 1, 12: 3}, [12, 10])


def test_only_a_checkpoint_that_is_known_can_lose_its_trainer(sweep_event: SweepEvent) -> None:
    trial = replay(
        stamped(
            [
                sweep_event,
                SuggestEvent("000", 0, {}, "default"),
                CheckpointEvent("000", 10, "a", 1),
                CollectEvent("000", 10, "trainer"),
                CollectEvent("000", 20, "trainer"),
                CollectEvent("000", 30, "checkpoint"),
            ]
        )
    ).trials["000"]
    assert (trial.checkpoints, trial.final_only, trial.resumable()) == ({10: "a"}, {10}, [])


def test_order_is_told_by_lines_whatever_the_clock_says(sweep_event: SweepEvent) -> None:
    events: list[Event] = [
        sweep_event,
        SuggestEvent("000", 0, {}, "default"),
        StartEvent("000", 1),
        FinishEvent("000", TrialState.PAUSED, 5, 1.0),
        DecideEvent("000", 5, "asha", "promote", "the best"),
        StartEvent("000", 2),
        FinishEvent("000", TrialState.COMPLETED, 9, 1.0),
    ]
    record = SweepRecord.begin(Entry(0, 50.0, sweep_event))
    ended = []
    for seq, event in enumerate(events[1:], start=1):
        record.apply(Entry(seq, 50.0 - seq, event))
        ended.append(record.trials["000"].ended_seq)
    assert record.trials["000"].suggested_seq == 1
    assert ended == [None, None, 3, None, None, 6]


def test_a_trial_that_died_with_its_driver_worked_until_the_last_event(
    sweep_event: SweepEvent,
) -> None:
    record = SweepRecord.begin(Entry(0, 100.0, sweep_event))
    events: list[tuple[float, Event]] = [
        (110.0, SuggestEvent("000", 0, {}, "default")),
        (120.0, StartEvent("000", 1)),
        (150.0, ReportEvent("000", 5, {})),
        (1150.0, ResumeEvent(2)),
        (1160.0, ResumeEvent(2)),
        (1170.0, FinishEvent("000", TrialState.INTERRUPTED, 5, 0.0)),
        (1180.0, StartEvent("000", 2)),
    ]
    for seq, (time, event) in enumerate(events, start=1):
        record.apply(Entry(seq, time, event))
    trial = record.trials["000"]
    assert (trial.seconds, trial.resumed, record.ran) == (30.0, 1180.0, 70.0)


def test_time_that_ran_goes_by_monotonic_clocks_whatever_the_wall_clock_does(
    sweep_event: SweepEvent,
) -> None:
    record = SweepRecord.begin(Entry(0, 100.0, sweep_event, up=1.0))
    events: list[tuple[float, Event, float]] = [
        (101.0, SuggestEvent("000", 0, {}, "default"), 2.0),
        (101.0, StartEvent("000", 1), 3.0),
        (90_000.0, ReportEvent("000", 5, {}), 10.0),  # a day later by the wall clock
        (90_500.0, ResumeEvent(2), 4.0),  # another driver, four seconds after it opened the journal
        (50.0, StartEvent("000", 2), 6.0),  # long before
        (60.0, ReportEvent("000", 10, {}), 11.0),
        (61.0, NoteEvent("repaired"), 0.1),  # of a repair
    ]
    ran = []
    for seq, (time, event, up) in enumerate(events, start=1):
        record.apply(Entry(seq, time, event, up))
        ran.append(record.ran)
    assert ran == [1.0, 2.0, 9.0, 9.0, 11.0, 16.0, 16.0]
    assert record.trials["000"].seconds == 7.0
    assert record.trials["000"].resumed_ran == 11.0
    assert record.ran_at(2.1) == 18.0


def test_a_lost_checkpoint_comes_back_and_later_ones_stay(sweep_event: SweepEvent) -> None:
    name = "000"
    events: list[Event] = [sweep_event, SuggestEvent(name, 0, {}, "default")]
    for step in (10, 20, 30):
        events.append(ReportEvent(name, step, {}))
        events.append(CheckpointEvent(name, step, f"step-{step}", 9, f"digest-{step}"))
    events.append(LostEvent(name, 20, "missing"))
    trial = replay(stamped(events)).trials[name]
    assert list(trial.checkpoints) == [10, 30]
    assert trial.lost == {20: ("step-20", "digest-20", "missing")}
    events.append(RestoreEvent(name, 20, "step-20", 9, "digest-20"))
    trial = replay(stamped(events)).trials[name]
    assert list(trial.checkpoints) == [10, 20, 30]
    assert trial.lost == {}


def test_the_next_number_is_behind_the_largest(sweep_event: SweepEvent) -> None:
    events: list[Event] = [sweep_event]
    assert replay(stamped(events)).next_number == 0
    events += [SuggestEvent(f"{n:03d}", n, {}, "sampler") for n in (0, 5, 3)]
    assert replay(stamped(events)).next_number == 6
