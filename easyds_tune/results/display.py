"""What a person sees while a sweep runs: a live view on a terminal, plain lines elsewhere."""

from __future__ import annotations

import io
import os
import time
from collections.abc import Callable
from types import TracebackType
from typing import TextIO, cast

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from easyds_tune.journal.events import TrialState
from easyds_tune.journal.replay import SweepRecord, TrialRecord
from easyds_tune.results.ranking import find_winner, finite_metric, rank, stderr_name
from easyds_tune.results.states import state_counts, state_text, trials_to_come
from easyds_tune.results.table import RankedTable
from easyds_tune.results.text import format_measured, format_params, format_seconds
from easyds_tune.spec.notes import WARNING, shown_note

_REFRESH_SECONDS = 0.25
_BAR_WIDTH = 20


class _Unfailing(io.TextIOBase):
    """A stream that may take nothing: its reader goes away, as `| head` does, or its disk is full.

    What it does not take is lost, and raises nothing: the sweep goes on unseen.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        self._try(lambda: self._stream.write(text))
        return len(text)

    def flush(self) -> None:
        self._try(self._stream.flush)

    def isatty(self) -> bool:
        return self._stream.isatty()

    def fileno(self) -> int:
        return self._stream.fileno()

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return self._stream.encoding

    def _try(self, do: Callable[[], object]) -> None:
        try:
            do()
        except BrokenPipeError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), self._stream.fileno())  # for good
        except OSError:
            pass


class LiveDisplay:
    """Shows a sweep on `stream` between ``with`` and its end, then prints the ranked table.

    Call `update` as often as you like: a terminal is redrawn at most four times a second. Where
    `stream` is no terminal, each trial that ends is one line. Notes are told once, either way.
    Where `stream` takes nothing, on a full disk, or is None for a closed one, that is no error.
    """

    def __init__(self, record: SweepRecord, stream: TextIO | None) -> None:
        self._record = record
        self._console = Console(file=cast(TextIO, _Unfailing(stream)) if stream else None)
        self._live = Live(console=self._console, auto_refresh=False, transient=True)
        self._drawn = float("-inf")
        self._opened = time.monotonic()
        self._steps_at_start = steps_done(record)
        self._told = {trial.id for trial in record.trials.values() if trial.state.is_final}
        self._notes_told = len(record.notes)

    def __enter__(self) -> LiveDisplay:
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._tell_notes()
        self._tell_ended()
        if self._console.is_terminal:
            self._live.stop()
        if self._record.trials:
            self._console.print(RankedTable(self._record))

    def update(self, record: SweepRecord) -> None:
        """Show the record as it is now."""
        self._record = record
        self._tell_notes()
        self._tell_ended()
        now = time.monotonic()
        if self._console.is_terminal and now - self._drawn >= _REFRESH_SECONDS:
            self._drawn = now
            self._live.update(live_view(record, *self._clock(now)), refresh=True)

    def _clock(self, now: float) -> tuple[float, float | None]:
        """Seconds since the display opened, and those left at the pace seen since then."""
        elapsed = now - self._opened
        done = steps_done(self._record) - self._steps_at_start
        left = steps_left(self._record) * elapsed / done if done > 0 else None
        return elapsed, left

    def _tell_notes(self) -> None:
        """What was left out of the data, once and above everything else."""
        for note in self._record.notes[self._notes_told :]:
            style = "bold red" if note.startswith(WARNING) else "yellow"
            self._console.print(Text(shown_note(note), style=style), soft_wrap=True)
        self._notes_told = len(self._record.notes)

    def _tell_ended(self) -> None:
        for trial in self._record.trials.values():
            if trial.state.is_final and trial.id not in self._told:
                self._told.add(trial.id)
                if not self._console.is_terminal:
                    line = ended_line(self._record, trial, len(self._told))
                    self._console.print(line, soft_wrap=True)


def live_view(record: SweepRecord, elapsed: float, left: float | None) -> Group:
    """Counts and times, the best trial so far, and a line for each running trial.

    `elapsed` and `left` are seconds; `left` None means that nothing can be said yet.
    """
    headline = Text.assemble(
        (record.name, "bold"), f" · {record.algorithm} · ", state_counts(record)
    )
    clock = Text(f"{format_seconds(elapsed)} so far")
    if left is not None:
        clock.append(f", about {format_seconds(left)} left")
    return Group(headline, clock, _best_line(record), _running_table(record))


def ended_line(record: SweepRecord, trial: TrialRecord, ended: int) -> Text:
    """One trial's end in a line; `ended` counts the trials that have ended so far."""
    line = Text.assemble(
        f"[{ended}/{trials_to_come(record)}] trial {trial.id} ",
        state_text(trial.state),
        f" step {trial.step} {record.objective.metric} {_last_objective(record, trial)}",
        f" in {format_seconds(trial.seconds)} ({format_params(trial.params)})",
    )
    if trial.decisions and trial.decisions[-1].by == "guard":
        line.append(f" {trial.decisions[-1].reason}")
    if trial.error is not None:
        line.append(f" {trial.error.type}: {trial.error.message.partition(chr(10))[0]}")
    return line


def steps_done(record: SweepRecord) -> int:
    """Steps of all trials so far."""
    return sum(trial.step for trial in record.trials.values())


def steps_left(record: SweepRecord) -> float:
    """Steps still to do: running trials to their end, and the others as long as ended ones were."""
    trials = list(record.trials.values())
    ended = [trial.step for trial in trials if trial.state.is_final]
    running = sum(max(record.max_steps - t.step, 0) for t in trials if not t.state.is_final)
    usual = sum(ended) / len(ended) if ended else record.max_steps
    return running + max(record.num_trials - len(trials), 0) * usual


def _best_line(record: SweepRecord) -> Text:
    best = find_winner(rank(record))
    if best is None:
        return Text("best so far: none yet", style="dim")
    return Text.assemble(
        "best so far: ",
        (f"{record.objective.metric} {format_measured(best.value, best.stderr)}", "bold"),
        f" (trial {best.trial.id}, step {best.step})",
    )


def _running_table(record: SweepRecord) -> Table:
    running = [t for t in record.trials.values() if t.state is TrialState.RUNNING]
    steps = [f"{trial.step}/{record.max_steps}" for trial in running]
    scores = [_last_objective(record, trial) for trial in running]
    table = Table.grid(padding=(0, 1))
    # Only the parameters give way where there is no room.
    for cells in ([trial.id for trial in running], [" " * _BAR_WIDTH], steps, scores):
        table.add_column(no_wrap=True, min_width=max((len(cell) for cell in cells), default=0))
    table.add_column(no_wrap=True, overflow="ellipsis")
    for trial, step, score in zip(running, steps, scores, strict=True):
        bar = ProgressBar(total=max(record.max_steps, 1), completed=trial.step, width=_BAR_WIDTH)
        params = Text(format_params(trial.params), style="dim")
        table.add_row(trial.id, bar, step, score, params)
    return table


def _last_objective(record: SweepRecord, trial: TrialRecord) -> str:
    if not trial.reports:
        return "–"
    report, metric = trial.reports[-1], record.objective.metric
    value = report.metrics.get(metric)
    return format_measured(value, finite_metric(report, stderr_name(metric)))
