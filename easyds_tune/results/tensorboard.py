"""TensorBoard event files: one run a trial, its HParams session open from start to final state.

TensorBoard shows the last value of a metric in HParams and keeps the first end record of a
session. So the values of the best step so far go to tags of their own (``best/eval/reward``),
written whenever the best moves, and a session is closed once, at a final state.
"""

from __future__ import annotations

import math
import shutil
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.plugins.hparams import api_pb2, metadata
from tensorboard.plugins.hparams.plugin_data_pb2 import (
    HParamsPluginData,
    SessionEndInfo,
    SessionStartInfo,
)
from tensorboard.summary.writer.record_writer import RecordWriter

from easyds_tune.drafts import draft_of, remove_dead_drafts
from easyds_tune.journal.events import TrialState
from easyds_tune.journal.replay import Report, SweepRecord, TrialRecord
from easyds_tune.results.ranking import finite_metric, improves
from easyds_tune.results.text import format_param, short_names

FOLDER_NAME = "tensorboard"
BEST_PREFIX = "best/"

_FAILED_STATES = frozenset({TrialState.DIVERGED, TrialState.OUT_OF_MEMORY, TrialState.FAILED})


@dataclass(slots=True)
class _Run:
    """An open event file and what it says so far."""

    stream: BinaryIO
    last_step: int
    best: Report | None

    def write(self, time: float, step: int, summary: Summary) -> None:
        self.write_event(Event(wall_time=time, step=step, summary=summary))

    def write_event(self, event: Event) -> None:
        RecordWriter(self.stream).write(event.SerializeToString())
        self.stream.flush()


class TensorBoardWriter:
    """Event files of a sweep under `folder`, one run a trial, written as the trials go.

    Call `start`, `report` and `finish` right after the record took in the same event. After a
    crash call `rebuild` first: a torn event file hides what is appended to it.
    """

    def __init__(self, folder: Path, record: SweepRecord) -> None:
        self._folder = folder
        self._record = record
        self._runs: dict[str, _Run] = {}
        self._described = False

    def start(self, trial: TrialRecord) -> None:
        """Open the trial's run; its HParams are there before its first report."""
        if trial.id not in self._runs:
            self._open(trial, best=self._best_of(trial.reports))

    def report(self, trial: TrialRecord) -> None:
        """Write the trial's newest report, and its best values where they moved."""
        run = self._runs[trial.id]
        if trial.reports[-1].step <= run.last_step:
            self._rewind(run, trial)
        self._write_report(run, trial.reports[-1])

    def finish(self, trial: TrialRecord) -> None:
        """Close the trial's run, and its session if the state is final."""
        self.start(trial)  # a trial may fail before it starts
        run = self._runs[trial.id]
        if trial.state.is_final:
            time = self._record.updated if trial.ended is None else trial.ended
            failed = trial.state in _FAILED_STATES
            status = api_pb2.STATUS_FAILURE if failed else api_pb2.STATUS_SUCCESS
            end = SessionEndInfo(status=status, end_time_secs=time)
            summary = _hparams_summary(
                metadata.SESSION_END_INFO_TAG, HParamsPluginData(session_end_info=end)
            )
            run.write(time, run.last_step, summary)
        del self._runs[trial.id]
        run.stream.close()

    def write_whole(self, trial: TrialRecord) -> None:
        """Write the run of a trial, as far as it came, into an empty folder."""
        run = self._open(trial, best=None)
        for report in trial.reports:
            self._write_report(run, report)
        self.finish(trial)

    def close(self) -> None:
        """Close every open file; the sessions of unfinished trials stay open."""
        for run in self._runs.values():
            run.stream.close()
        self._runs.clear()

    def abandon(self) -> None:
        """Close every open file, also those that the disk takes no more of."""
        for run in self._runs.values():
            with suppress(OSError):
                run.stream.close()
        self._runs.clear()

    def _file_name(self, run: str) -> str:
        return f"events.out.tfevents.{int(self._record.created):010d}.{run}"

    def _open(self, trial: TrialRecord, best: Report | None) -> _Run:
        path = self._folder / trial.id / self._file_name(trial.id)
        is_new = not path.exists()
        run = _Run(_open_events(path, self._record.created), trial.step, best)
        self._runs[trial.id] = run
        if is_new:
            time = trial.suggested if trial.started is None else trial.started
            run.write(time, 0, self._session_start(trial, time))
        return run

    def _write_report(self, run: _Run, report: Report) -> None:
        if not self._described:
            self._described = True
            self._describe_sweep(report)
        run.last_step = report.step
        values = report.metrics
        if self._better(report, run.best) is report:
            objective = self._record.objective.metric
            shown = _shown_in_hparams(report, objective)
            # A value that the new best step lacks must not stay on show from the old one.
            stale = {} if run.best is None else _shown_in_hparams(run.best, objective)
            for name in [*stale, *shown]:
                values[f"{BEST_PREFIX}{name}"] = shown.get(name, math.nan)
            values[f"{BEST_PREFIX}step"] = report.step
            run.best = report
        run.write(report.time, report.step, _scalars(values))

    def _best_of(self, reports: list[Report]) -> Report | None:
        best = None
        for report in reports:
            best = self._better(report, best)
        return best

    def _better(self, report: Report, best: Report | None) -> Report | None:
        """The report, if its objective beats the best one's; else the best one."""
        objective = self._record.objective
        value = finite_metric(report, objective.metric)
        if value is None:
            return best
        if best is None or improves(value, best.metrics[objective.metric], objective):
            return report
        return best

    def _rewind(self, run: _Run, trial: TrialRecord) -> None:
        """A retry went back: TensorBoard drops this step and later ones, and so does `best`."""
        report = trial.reports[-1]
        log = SessionLog(status=SessionLog.START)
        run.write_event(Event(wall_time=report.time, step=report.step, session_log=log))
        run.best = self._best_of(trial.reports[:-1])

    def _session_start(self, trial: TrialRecord, time: float) -> Summary:
        start = SessionStartInfo(group_name=trial.id, start_time_secs=time)
        for path, value in trial.params.items():
            shown = _hparam_value(value, self._record.space.get(path))
            if isinstance(shown, bool):
                start.hparams[path].bool_value = shown
            elif isinstance(shown, float):
                start.hparams[path].number_value = shown
            else:
                start.hparams[path].string_value = shown
        return _hparams_summary(
            metadata.SESSION_START_INFO_TAG, HParamsPluginData(session_start_info=start)
        )

    def _describe_sweep(self, report: Report) -> None:
        """Tell HParams, at the root, the columns: domains and the metrics of the best step."""
        path = self._folder / self._file_name("sweep")
        if path.exists() or not self._record.space:
            return  # TensorBoard then works the columns out from the runs
        names = [*_shown_in_hparams(report, self._record.objective.metric), "step"]
        labels = short_names(self._record.space)
        experiment = api_pb2.Experiment(
            name=self._record.name,
            time_created_secs=self._record.created,
            hparam_infos=[
                _hparam_info(path, labels[path], domain)
                for path, domain in self._record.space.items()
            ],
            metric_infos=[
                api_pb2.MetricInfo(
                    name=api_pb2.MetricName(tag=f"{BEST_PREFIX}{name}"),
                    display_name=f"best {name}",
                )
                for name in names
            ],
        )
        summary = _hparams_summary(
            metadata.EXPERIMENT_TAG, HParamsPluginData(experiment=experiment)
        )
        with _open_events(path, self._record.created) as stream:
            _Run(stream, 0, None).write(self._record.created, 0, summary)


def rebuild(record: SweepRecord, folder: Path) -> None:
    """Replace everything under `folder` by what the record says; after an error it is as it was."""
    remove_dead_drafts(folder)
    draft = draft_of(folder)
    shutil.rmtree(draft, ignore_errors=True)
    writer = TensorBoardWriter(draft, record)
    try:
        draft.mkdir(parents=True)
        for trial in record.trials.values():
            if trial.started is not None or trial.state.is_final:
                writer.write_whole(trial)
        shutil.rmtree(folder, ignore_errors=True)
        draft.rename(folder)
    finally:
        writer.abandon()
        shutil.rmtree(draft, ignore_errors=True)


def _open_events(path: Path, created: float) -> BinaryIO:
    """Open an event file for appending; a new one gets the header that every reader wants."""
    path.parent.mkdir(parents=True, exist_ok=True)
    stream = path.open("ab")
    if stream.tell() == 0:
        header = Event(wall_time=created, file_version="brain.Event:2")
        try:
            RecordWriter(stream).write(header.SerializeToString())
            stream.flush()
        except OSError:
            with suppress(OSError):
                stream.close()
            raise
    return stream


def _scalars(values: dict[str, float]) -> Summary:
    return Summary(value=[Summary.Value(tag=tag, simple_value=v) for tag, v in values.items()])


def _shown_in_hparams(report: Report, objective: str) -> dict[str, float]:
    """The judge's metrics and the objective, without standard errors."""
    return {
        name: value
        for name, value in report.metrics.items()
        if name == objective or (name.startswith("eval/") and not name.endswith("_stderr"))
    }


def _hparams_summary(tag: str, data: HParamsPluginData) -> Summary:
    value = Summary.Value(
        tag=tag, metadata=metadata.create_summary_metadata(data), tensor=metadata.NULL_TENSOR
    )
    return Summary(value=[value])


def _hparam_value(value: Any, domain: dict[str, Any] | None) -> bool | float | str:
    """A value as HParams can hold it. All values of one column must have one type."""
    choices = [value] if domain is None or domain["type"] != "choice" else domain["choice"]
    kinds = {type(choice) for choice in choices}
    if kinds == {bool}:
        return bool(value)
    if kinds <= {int, float}:
        return float(value)
    return format_param(value)


def _hparam_info(path: str, label: str, domain: dict[str, Any]) -> api_pb2.HParamInfo:
    info = api_pb2.HParamInfo(name=path, display_name=label)
    if domain["type"] != "choice":
        info.type = api_pb2.DATA_TYPE_FLOAT64
        info.domain_interval.min_value = domain["low"]
        info.domain_interval.max_value = domain["high"]
        return info
    choices = [_hparam_value(choice, domain) for choice in domain["choice"]]
    if isinstance(choices[0], bool):
        info.type = api_pb2.DATA_TYPE_BOOL
    elif isinstance(choices[0], float):
        info.type = api_pb2.DATA_TYPE_FLOAT64
    else:
        info.type = api_pb2.DATA_TYPE_STRING
    info.domain_discrete.extend(choices)
    return info
