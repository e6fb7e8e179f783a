"""trials.parquet and metrics.parquet: derived from the record, rebuilt at will."""

from __future__ import annotations

import json
from array import array
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from easyds_tune.journal.replay import SweepRecord
from easyds_tune.results.files import replacing
from easyds_tune.results.ranking import rank

TRIALS_NAME = "trials.parquet"
METRICS_NAME = "metrics.parquet"


def write_tables(record: SweepRecord, folder: Path) -> None:
    """Write both tables into the sweep's folder, each whole or not at all."""
    for name, table in ((TRIALS_NAME, trials_table(record)), (METRICS_NAME, metrics_table(record))):
        with replacing(folder / name) as draft:
            pq.write_table(table, draft)


def trials_table(record: SweepRecord) -> pa.Table:
    """One row a trial, in the order suggested. Times are unix seconds.

    `rank` counts from 1; `seed` is null where a trial has the sweep's; `best_*` are of the trial's
    best step, `best_violation` how far outside of the bounds it is, 0 inside; each searched path is
    a column ``params.<path>``, a JSON text where its values have no common type.
    """
    ranked = {entry.trial.id: (place, entry) for place, entry in enumerate(rank(record), start=1)}
    trials = list(record.trials.values())
    best = [ranked[trial.id][1] for trial in trials]
    columns: dict[str, pa.Array] = {
        "trial": pa.array([t.id for t in trials], pa.string()),
        "number": pa.array([t.number for t in trials], pa.int64()),
        "rank": pa.array([ranked[t.id][0] for t in trials], pa.int64()),
        "state": pa.array([str(t.state) for t in trials], pa.string()),
        "source": pa.array([t.source for t in trials], pa.string()),
        "seed": pa.array([t.seed for t in trials], pa.int64()),
        "attempt": pa.array([t.attempt for t in trials], pa.int64()),
        "step": pa.array([t.step for t in trials], pa.int64()),
        "best_step": pa.array([b.step for b in best], pa.int64()),
        "best_value": pa.array([b.value for b in best], pa.float64()),
        "best_stderr": pa.array([b.stderr for b in best], pa.float64()),
        "best_violation": pa.array([b.violation for b in best], pa.float64()),
        "best_checkpoint": pa.array([b.checkpoint for b in best], pa.string()),
        "started": pa.array([t.started for t in trials], pa.float64()),
        "ended": pa.array([t.ended for t in trials], pa.float64()),
        "seconds": pa.array([t.seconds for t in trials], pa.float64()),
        "error_type": pa.array([t.error.type if t.error else None for t in trials], pa.string()),
        "error_message": pa.array(
            [t.error.message if t.error else None for t in trials], pa.string()
        ),
    }
    for path in dict.fromkeys(path for trial in trials for path in trial.params):
        columns[f"params.{path}"] = _param_column([trial.params.get(path) for trial in trials])
    return pa.table(columns)


def metrics_table(record: SweepRecord) -> pa.Table:
    """One row a report: trial, step, time (unix seconds) and a column a metric, null where the
    trial did not report it and NaN where it reported NaN.
    """
    names = dict.fromkeys(
        name
        for trial in record.trials.values()
        for shape in dict.fromkeys(report.names for report in trial.reports)
        for name in shape
    )
    trials: list[str] = []
    steps, times = array("q"), array("d")
    values: dict[str, list[float | None]] = {name: [] for name in names}
    for trial in record.trials.values():
        for report in trial.reports:
            trials.append(trial.id)
            steps.append(report.step)
            times.append(report.time)
            metrics = report.metrics
            for name, column in values.items():
                column.append(metrics.get(name))
    return pa.table(
        {
            "trial": pa.array(trials, pa.string()).dictionary_encode(),
            "step": pa.array(steps, pa.int64()),
            "time": pa.array(times, pa.float64()),
            **{name: pa.array(column, pa.float64()) for name, column in values.items()},
        }
    )


def _param_column(values: list[Any]) -> pa.Array:
    kinds = {type(value) for value in values if value is not None}
    if kinds <= {bool}:
        return pa.array(values, pa.bool_())
    if kinds <= {int}:
        return pa.array(values, pa.int64())
    if kinds <= {int, float}:
        return pa.array(values, pa.float64())
    if kinds <= {str}:
        return pa.array(values, pa.string())
    texts = [None if value is None else json.dumps(value, ensure_ascii=False) for value in values]
    return pa.array(texts, pa.string())
