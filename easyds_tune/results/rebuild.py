"""Write every derived file of a sweep anew, from its record alone."""

from __future__ import annotations

from pathlib import Path

from easyds_tune.journal.replay import SweepRecord
from easyds_tune.results import tensorboard
from easyds_tune.results.best import BEST_NAME, write_best
from easyds_tune.results.tables import METRICS_NAME, TRIALS_NAME, write_tables

DERIVED = (TRIALS_NAME, METRICS_NAME, BEST_NAME, f"{tensorboard.FOLDER_NAME}/")
"""What `rebuild` writes into a sweep's folder."""


def rebuild(record: SweepRecord, folder: Path) -> None:
    """Replace all derived files in a sweep's folder, damaged or missing, by what the record says.

    Raises:
        OSError: the disk refused; what was written so far is whole.
    """
    write_tables(record, folder)
    write_best(record, folder)
    tensorboard.rebuild(record, folder / tensorboard.FOLDER_NAME)
