"""Everything beside the journal: tables, TensorBoard, best.json. Derived, and never worth a sweep.

Where one cannot be written, as on a full disk, it is left out with a warning. Boards are rewritten
at the end; everything by `easyds-tune repair`.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from easyds_tune.journal.replay import SweepRecord, TrialRecord
from easyds_tune.results.best import write_best
from easyds_tune.results.tables import write_tables
from easyds_tune.results.tensorboard import FOLDER_NAME, TensorBoardWriter, rebuild

Say = Callable[[str], object]


class Boards:
    """A `TensorBoardWriter` that an error ends, and not the sweep; `close` then rewrites it.

    say: told once what was left out, and why.
    """

    def __init__(self, folder: Path, record: SweepRecord, say: Say) -> None:
        self._folder = folder / FOLDER_NAME
        self._record = record
        self._say = say
        self._writer: TensorBoardWriter | None = TensorBoardWriter(self._folder, record)

    def start(self, trial: TrialRecord) -> None:
        """Open the trial's run."""
        self._try(lambda writer: writer.start(trial))

    def report(self, trial: TrialRecord) -> None:
        """Write the trial's newest report."""
        self._try(lambda writer: writer.report(trial))

    def finish(self, trial: TrialRecord) -> None:
        """Close the trial's run."""
        self._try(lambda writer: writer.finish(trial))

    def rebuild(self) -> None:
        """Rewrite the boards from the record, before anything is added."""
        _attempt(lambda: rebuild(self._record, self._folder), self._folder, self._say)

    def close(self) -> None:
        """Close every file; where something was left out, rewrite all of it."""
        self._try(lambda writer: writer.close())
        if self._writer is None:
            self.rebuild()

    def _try(self, write: Callable[[TensorBoardWriter], None]) -> None:
        if self._writer is None:
            return
        try:
            write(self._writer)
        except OSError as error:
            # What follows a torn event is never read, so nothing more is appended.
            self._say(
                f"{self._folder} is not updated until the sweep ends, then rewritten: {error}"
            )
            self._writer.abandon()
            self._writer = None


def write_results(record: SweepRecord, folder: Path, say: Say, *, with_best: bool = True) -> None:
    """Write the tables and best.json; say what could not be written, and why.

    with_best: False leaves out best.json, whose checkpoints are hashed, which may take minutes.
    """
    _attempt(lambda: write_tables(record, folder), folder / "*.parquet", say)
    if with_best:
        _attempt(lambda: write_best(record, folder), folder / "best.json", say)


def _attempt(write: Callable[[], object], what: Path, say: Say) -> None:
    try:
        write()
    except OSError as error:
        say(f"{what} could not be written; rewrite it with easyds-tune repair: {error}")
