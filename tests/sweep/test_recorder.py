"""Tune's callbacks become journal events, in order, each shown and on disk at once."""

from __future__ import annotations

import json
import pickle
import signal
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from easyds_tune.decisions.decider import GoOn, Proposal, Verdict
from easyds_tune.journal.events import DecideEvent, Objective, SweepEvent, TrialState
from easyds_tune.journal.reader import read_events
from easyds_tune.journal.replay import SweepRecord
from easyds_tune.journal.writer import JournalWriter
from easyds_tune.results.derived import Boards
from easyds_tune.sweep.machine_memory import Memory
from easyds_tune.sweep.recorder import Interrupted, Recorder
from easyds_tune.sweep.supervisor import Supervisor
from easyds_tune.trial.failure import Failure, read_failure, write_failure


class Shown:
    """A display that counts."""

    def __init__(self) -> None:
        self.updates = 0

    def update(self, record: SweepRecord) -> None:
        self.updates += 1


@pytest.fixture
def tidied() -> list[list[TrialState]]:
    """The states of all trials, each time checkpoints may have become useless."""
    return []


@pytest.fixture
def recorder(tmp_path: Path, tidied: list[list[TrialState]]) -> Iterator[Recorder]:
    begin = SweepEvent("small", "dpo", Objective("eval/reward", "max"), 3, 30, 0.0, {})
    journal, first = JournalWriter.create(tmp_path / "journal.jsonl", begin)
    with journal:
        record = SweepRecord.begin(first)
        boards = Boards(tmp_path, record, print)

        def tidy() -> None:
            tidied.append([trial.state for trial in record.trials.values()])

        yield Recorder(journal, record, tmp_path, boards, Shown(), tidy=tidy)
        boards.close()


def started(recorder: Recorder, ray_id: str = "ray-a", number: int = 0) -> SimpleNamespace:
    recorder.suggested(ray_id, Proposal(number, {"algorithm.beta": 0.1}, "default"))
    trial = SimpleNamespace(trial_id=ray_id, last_result={}, get_error=lambda: None)
    recorder.on_trial_start(0, [], trial)
    return trial


COMPLETED = Verdict("stop", state=TrialState.COMPLETED)


def report(
    recorder: Recorder, trial: Any, step: int, reward: float, verdict: Verdict | None = None
) -> None:
    """A report and what was decided on it, as Tune's scheduler passes both on."""
    result = {
        "global_step": step, "eval/reward": reward, "time/train_seconds": 1, "examples": 8 * step,
        "checkpoint": f"trials/000/checkpoints/step-{step:06d}", "checkpoint_bytes": 1234,
        "checkpoint_digest": "ab",
        "is_last": step == 30, "trial_id": "ray-a", "config/params/algorithm.beta": 0.1,
        "config/a/b": "text",
    }  # fmt: skip
    name = recorder.reported(trial.trial_id, result)
    assert name is not None
    recorder.decided(name, verdict or (COMPLETED if step == 30 else Verdict("continue")))


def kinds(folder: Path) -> list[str]:
    return [type(entry.event).__name__ for entry in read_events(folder / "journal.jsonl")]


def test_a_trial_is_written_from_its_suggestion_to_its_end(
    recorder: Recorder, tmp_path: Path
) -> None:
    trial = started(recorder)
    report(recorder, trial, 15, 1.0)
    report(recorder, trial, 30, 2.0)
    recorder.on_trial_complete(0, [], trial)
    assert kinds(tmp_path) == [
        "SweepEvent", "SuggestEvent", "StartEvent", "ReportEvent", "CheckpointEvent",
        "ReportEvent", "CheckpointEvent", "FinishEvent",
    ]  # fmt: skip
    written = recorder.record.trials["000"]
    assert (written.state, written.step) == (TrialState.COMPLETED, 30)


def test_metrics_are_the_numbers_with_a_slash_in_their_name(recorder: Recorder) -> None:
    trial = started(recorder)
    report(recorder, trial, 15, 1.0)
    (written,) = recorder.record.trials["000"].reports
    assert written.metrics == {"eval/reward": 1.0, "time/train_seconds": 1.0}


def test_every_event_is_shown(recorder: Recorder) -> None:
    trial = started(recorder)
    report(recorder, trial, 15, 1.0)
    assert recorder._display.updates == 4  # type: ignore[attr-defined]


def test_a_stopped_trial_is_pruned_and_its_decision_follows_the_report(
    recorder: Recorder, tmp_path: Path
) -> None:
    trial = started(recorder)
    report(recorder, trial, 15, 1.0, Verdict("stop", "asha_stop", "too low", TrialState.PRUNED))
    recorder.on_trial_complete(0, [], trial)
    assert kinds(tmp_path)[3:] == ["ReportEvent", "CheckpointEvent", "DecideEvent", "FinishEvent"]
    assert recorder.record.trials["000"].state is TrialState.PRUNED


def test_a_paused_trial_is_promoted_and_starts_again_with_its_slot(
    recorder: Recorder, tmp_path: Path
) -> None:
    trial = started(recorder)
    report(recorder, trial, 15, 1.0, Verdict("pause", "asha", "2nd of 3", TrialState.PAUSED))
    written = recorder.record.trials["000"]
    assert written.state is TrialState.PAUSED
    told = recorder.goes_on("ray-b", GoOn("000", "asha", "promote", "the best of 4"))
    assert told["checkpoints"] == {"trials/000/checkpoints/step-000015": "ab"}
    assert written.state is TrialState.RUNNING  # its slot is taken from now on
    trial = SimpleNamespace(trial_id="ray-b")  # to Tune a trial of its own
    recorder.on_trial_start(1, [], trial)
    assert (written.state, written.attempt) == (TrialState.RUNNING, 2)
    assert kinds(tmp_path)[5:] == ["DecideEvent", "FinishEvent", "DecideEvent", "StartEvent"]
    report(recorder, trial, 30, 2.0)
    assert written.state is TrialState.COMPLETED


def test_a_trial_that_still_waits_at_the_end_is_pruned_and_its_checkpoints_are_tidied(
    recorder: Recorder, tidied: list[list[TrialState]]
) -> None:
    trial = started(recorder)
    report(recorder, trial, 15, 1.0, Verdict("pause", "asha", "2nd of 3", TrialState.PAUSED))
    recorder.release_paused()
    assert recorder.record.trials["000"].state is TrialState.PRUNED
    assert tidied[-1] == [TrialState.PRUNED]


def test_what_the_guard_notes_is_written_and_the_trial_goes_on(recorder: Recorder) -> None:
    trial = started(recorder)
    note = Verdict("continue", "guard", "eval/kl is 0.3, must be at most 0.2", note=True)
    report(recorder, trial, 15, 1.0, note)
    written = recorder.record.trials["000"]
    assert written.decisions == [DecideEvent("000", 15, "guard", "note", note.reason)]
    assert written.state is TrialState.RUNNING


def test_a_diverged_trial_keeps_class_and_message(recorder: Recorder) -> None:
    trial = started(recorder)
    failure = Failure("DIVERGED", "DivergedError", "train/loss is nan at step 3", "...")
    assert recorder.reported(trial.trial_id, {"failure": json.dumps(vars(failure))}) is None
    recorder.on_trial_complete(0, [], trial)
    written = recorder.record.trials["000"]
    assert written.state is TrialState.DIVERGED
    assert (written.error.type, written.error.message) == (failure.type, failure.message)


def test_a_trial_that_raised_says_what_its_worker_wrote(recorder: Recorder, tmp_path: Path) -> None:
    trial = started(recorder)
    failure = Failure("OUT_OF_MEMORY", "OutOfMemoryError", "2 GiB", "...")
    write_failure(tmp_path / "trials" / "000", failure)
    recorder.on_trial_error(0, [], trial)
    assert recorder.record.trials["000"].state is TrialState.OUT_OF_MEMORY


def test_a_worker_that_died_silently_is_failed_and_rays_account_is_kept(
    recorder: Recorder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trial = started(recorder)
    trial.error_file = tmp_path / "error.txt"
    trial.error_file.write_text("ActorDiedError: killed", encoding="utf-8")
    recorder.on_trial_error(0, [], trial)
    error = recorder.record.trials["000"].error
    assert error.type == "WorkerDied"
    assert "was killed" in error.message
    failure = read_failure(recorder._folder / "trials" / "000")
    assert failure.traceback == "ActorDiedError: killed"
    assert capsys.readouterr().err == (
        "warning: trial 000: WorkerDied; it is tried again from its last checkpoint\n"
    )


def test_a_worker_that_dies_while_the_sweep_stops_has_not_failed(recorder: Recorder) -> None:
    trial = started(recorder)
    recorder.stop_signal = signal.SIGTERM
    recorder.on_trial_error(0, [], trial)
    stopped = recorder.record.trials["000"]
    assert stopped.state is TrialState.INTERRUPTED
    assert stopped.failures == []


def test_nothing_begins_while_memory_is_short(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    begin = SweepEvent("small", "dpo", Objective("eval/reward", "max"), 3, 30, 0.0, {})
    journal, first = JournalWriter.create(tmp_path / "journal.jsonl", begin)
    record, memory = SweepRecord.begin(first), [Memory(97, 100)]
    supervisor = Supervisor(tmp_path, tmp_path / "trials", memory=lambda: memory[0])
    boards = Boards(tmp_path, record, print)
    recorder = Recorder(journal, record, tmp_path, boards, Shown(), supervisor=supervisor)
    with journal:
        recorder.tick()
        assert not recorder.has_room()
        assert "no trial begins until there is room" in capsys.readouterr().err
        memory[0] = Memory(50, 100)
        supervisor.check()
        assert recorder.has_room()
    boards.close()


def test_an_interrupt_ends_the_trials_that_are_not_over_alone(recorder: Recorder) -> None:
    done = started(recorder, "ray-a", 0)
    report(recorder, done, 30, 1.0)
    recorder.on_trial_complete(0, [], done)
    started(recorder, "ray-b", 1)
    recorder.suggested("ray-c", Proposal(2, {}, "sampler"))
    recorder.interrupt()
    states = {name: trial.state for name, trial in recorder.record.trials.items()}
    assert states == {
        "000": TrialState.COMPLETED,
        "001": TrialState.INTERRUPTED,
        "002": TrialState.INTERRUPTED,  # suggested, waiting for its slot
    }


def test_a_signal_stops_the_sweep_between_two_steps(recorder: Recorder) -> None:
    recorder.on_step_begin(0, [])
    recorder.stop_signal = 15
    with pytest.raises(Interrupted) as stop:
        recorder.on_step_begin(1, [])
    assert stop.value.signum == 15


def test_a_second_signal_does_not_wait_for_what_runs(recorder: Recorder) -> None:
    started(recorder)
    recorder.stop_signal = 15
    recorder.tick()  # the trial may write a checkpoint
    recorder._signals.is_second = True
    with pytest.raises(Interrupted):
        recorder.tick()


def test_what_the_look_at_ray_raises_ends_the_sweep_and_is_no_fault_of_a_trial(
    recorder: Recorder,
) -> None:
    class Died(BaseException):
        pass

    def died() -> None:
        raise Died

    trial = started(recorder)
    recorder._check_ray = died
    with pytest.raises(Died):
        recorder.on_trial_error(0, [], trial)
    assert recorder.record.trials["000"].failures == []
    with pytest.raises(Died):
        recorder.tick()


def test_tune_may_pickle_it_but_learns_nothing(recorder: Recorder) -> None:
    assert type(pickle.loads(pickle.dumps(recorder))) is object
