from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

import pytest
from rich.console import Console

from easyds_tune.journal.events import DecideEvent, FinishEvent, NoteEvent, TrialState
from easyds_tune.journal.replay import replay
from easyds_tune.results import display
from easyds_tune.results.display import (
    LiveDisplay,
    ended_line,
    live_view,
    steps_done,
    steps_left,
)
from tests.results.conftest import row


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_without_a_terminal_each_ended_trial_is_one_line_and_the_table_comes_last(
    demo_sweep: Any,
) -> None:
    stream = io.StringIO()
    entries = demo_sweep.entries()
    live = replay(entries[:1])
    with LiveDisplay(live, stream) as shown:
        for entry in entries[1:]:
            live.apply(entry)
            shown.update(live)

    lines = stream.getvalue().splitlines()
    assert lines[0] == (
        "[1/8] trial 000 COMPLETED step 40 eval/reward 0.500 ± 0.050 in 30 s (learning_rate=2.5e-5 "
        "beta=0.1 lora_r=8 lora_target_modules=q_proj+v_proj)"
    )
    assert lines[4].endswith("ValueError: 学习率太高")
    assert [line[:5] for line in lines[:5]] == [f"[{n}/8]" for n in (1, 2, 3, 4, 5)]
    assert lines[5].split()[:3] == ["#", "trial", "state"]
    assert "\x1b" not in stream.getvalue()


class FullTerminal(io.TextIOWrapper):
    def isatty(self) -> bool:
        return True


@contextmanager
def full_disk(kind: type[io.TextIOWrapper]) -> Iterator[TextIO]:
    """A stream that takes nothing, by the system's own means."""
    stream = kind(open("/dev/full", "wb"), encoding="utf-8")  # noqa: SIM115 - closed below
    try:
        yield stream
    finally:
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())  # else its end raises
        stream.close()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.parametrize("kind", [io.TextIOWrapper, FullTerminal])
def test_a_full_disk_under_the_output_ends_nothing(
    demo_sweep: Any, kind: type[io.TextIOWrapper], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TERM", "xterm")
    entries = demo_sweep.entries()
    live = replay(entries[:1])
    with full_disk(kind) as stream:
        with pytest.raises(OSError, match="No space left"):
            print("a line", file=stream, flush=True)
        with LiveDisplay(live, stream) as shown:
            for entry in entries[1:]:
                live.apply(entry)
                shown.update(live)


def test_once_there_is_room_again_the_output_goes_on(sweep: Callable[..., Any]) -> None:
    class Disk(io.StringIO):
        is_full = True

        def write(self, text: str) -> int:
            if self.is_full:
                raise OSError(28, "No space left on device")
            return super().write(text)

    stream = Disk()
    builder = sweep().trial({10: {"eval/reward": 1.0}}).trial({10: {"eval/reward": 2.0}})
    entries = builder.entries()
    live = replay(entries[:1])
    with LiveDisplay(live, stream) as shown:
        for entry in entries[1:]:
            live.apply(entry)
            shown.update(live)
            stream.is_full = not any(trial.state.is_final for trial in live.trials.values())
    lines = stream.getvalue().splitlines()
    assert [line.split()[2] for line in lines if line.startswith("[")] == ["001"]
    assert lines[1].startswith("#")


def test_a_closed_output_ends_nothing(demo_sweep: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdout", None)
    record = demo_sweep.record()
    with LiveDisplay(record, None) as shown:
        shown.update(record)


def test_a_bounded_trial_says_on_which_number(sweep: Callable[..., Any]) -> None:
    builder = sweep()
    builder.trial({10: row(1.0, kl=0.3)}, None)
    reason = "eval/kl is 0.3, must be at most 0.2"
    builder.events.append(DecideEvent("000", 10, "guard", "stop", reason))
    builder.events.append(FinishEvent("000", TrialState.BOUNDED, 10, 30.0))
    record = builder.record()
    assert ended_line(record, record.trials["000"], 1).plain.endswith(f") {reason}")


def test_trials_that_ended_before_the_display_opened_are_not_told_again(demo_sweep: Any) -> None:
    stream = io.StringIO()
    record = demo_sweep.record()
    with LiveDisplay(record, stream) as shown:
        shown.update(record)
    assert stream.getvalue().startswith("#")


def test_a_note_is_told_once_and_before_the_trials(sweep: Callable[..., Any]) -> None:
    builder = sweep()
    builder.events.append(NoteEvent("data.train: 2 left out: empty reply"))
    entries = builder.trial({10: {"eval/reward": 1.0}}).entries()
    stream = io.StringIO()
    live = replay(entries[:1])
    with LiveDisplay(live, stream) as shown:
        for entry in entries[1:]:
            live.apply(entry)
            shown.update(live)

    lines = stream.getvalue().splitlines()
    assert lines[0] == "note: data.train: 2 left out: empty reply"
    assert [line.startswith("note") for line in lines].count(True) == 1


def test_a_warning_is_told_as_one(sweep: Callable[..., Any]) -> None:
    builder = sweep()
    builder.events.append(NoteEvent("warning: data.train: 9 of 10 records are left out"))
    entries = builder.trial({10: {"eval/reward": 1.0}}).entries()
    stream = io.StringIO()
    live = replay(entries[:1])
    with LiveDisplay(live, stream) as shown:
        for entry in entries[1:]:
            live.apply(entry)
            shown.update(live)
    lines = stream.getvalue().splitlines()
    assert lines[0] == "warning: data.train: 9 of 10 records are left out"


def test_a_terminal_is_redrawn_at_most_four_times_a_second(
    demo_sweep: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 100.0
    monkeypatch.setattr(display.time, "monotonic", lambda: now)
    monkeypatch.setenv("TERM", "xterm")
    drawn = 0

    def count(*args: object) -> str:
        nonlocal drawn
        drawn += 1
        return "view"

    monkeypatch.setattr(display, "live_view", count)
    record = demo_sweep.record()
    with LiveDisplay(record, Terminal()) as shown:
        for _ in range(100):
            shown.update(record)
            now += 0.0625  # 16 updates a second, over 6.25 seconds
    assert drawn == 25


def test_the_live_view_shows_counts_times_best_and_running_trials(demo_sweep: Any) -> None:
    stream = io.StringIO()
    Console(file=stream, width=100).print(live_view(demo_sweep.record(), 75.0, 133.0))
    lines = [line.rstrip() for line in stream.getvalue().splitlines()]
    assert lines[:3] == [
        "试验 · dpo · 5/8 trials · 1 RUNNING · 2 COMPLETED · 1 PRUNED · 1 DIVERGED · 1 FAILED",
        "1 min 15 s so far, about 2 min 13 s left",
        "best so far: eval/reward 0.900 ± 0.050 (trial 001, step 20)",
    ]
    assert lines[3].startswith("005 ")
    assert "20/40 0.600 ± 0.050 learning_rate=1.5e-4" in lines[3]
    assert len(lines) == 4


def test_steps_left_counts_running_trials_and_those_to_come(sweep: Callable[..., Any]) -> None:
    builder = sweep(num_trials=5).trial({20: {}, 40: {}}).trial({20: {}}).trial({20: {}}, None)
    record = builder.record()
    assert steps_done(record) == 80
    # 20 of the running one, and two to come at the 30 steps that the ended ones took on average.
    assert steps_left(record) == 20 + 2 * 30


def test_before_the_first_step_no_time_is_promised(sweep: Callable[..., Any]) -> None:
    stream = io.StringIO()
    Console(file=stream, width=100).print(live_view(sweep().record(), 3.0, None))
    assert stream.getvalue().splitlines()[1] == "3 s so far"
    assert "none yet" in stream.getvalue()
