"""Run a sweep from where its journal ends: Ray Tune, the finals, the winner."""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from easyds_tune.decisions.collector import bytes_over, disk_rules
from easyds_tune.errors import EasyDSError, SweepError
from easyds_tune.journal.events import NoteEvent
from easyds_tune.journal.replay import SweepRecord, TrialRecord
from easyds_tune.journal.writer import JournalWriter
from easyds_tune.results.derived import Boards, write_results
from easyds_tune.results.display import LiveDisplay
from easyds_tune.spec.deepspeed import deepspeed_config, zero_stage
from easyds_tune.spec.micro_batch import smaller_micro_batch
from easyds_tune.spec.resources import gpus_of, slot_count
from easyds_tune.spec.sweep import SweepSpec, trial_spec
from easyds_tune.sweep.collector import collect
from easyds_tune.sweep.disk import warn
from easyds_tune.sweep.ending import final_events, losses_of
from easyds_tune.sweep.exit_message import ExitMessage
from easyds_tune.sweep.orphans import end_orphans, private_folder
from easyds_tune.sweep.preflight import CheckedRecords
from easyds_tune.sweep.signals import EXIT_INTERRUPTED, Interrupted, Signals
from easyds_tune.sweep.supervisor import Supervisor

if TYPE_CHECKING:
    from easyds_tune.decisions.decider import Decider
    from easyds_tune.sweep.recorder import Recorder
    from easyds_tune.sweep.stage import Stage


@dataclass(frozen=True)
class Sweep:
    """What a driver has to know of a sweep besides its journal.

    points: configurations that are tried right after the default one. folder: the sweep's own.
    simulate: learning curves that stand in for training.
    """

    spec: SweepSpec
    records: CheckedRecords
    points: list[dict[str, Any]]
    folder: Path
    simulate: Path | None = None

    @property
    def holds_finals(self) -> bool:
        """Whether there is anything to judge finalists on."""
        return self.simulate is not None or self.records.hold_finals


def drive(
    sweep: Sweep,
    journal: JournalWriter,
    record: SweepRecord,
    begin: Callable[[Recorder, Decider], None],
    stream: TextIO | None = None,
) -> int:
    """Run what is left of a sweep and return the exit code of the command.

    begin: writes the first events of this driver, before anything is decided.
    """
    signals = Signals()
    with signals.heard():
        return _drive(sweep, journal, record, begin, stream or sys.stdout, signals)


def _drive(
    sweep: Sweep,
    journal: JournalWriter,
    record: SweepRecord,
    begin: Callable[[Recorder, Decider], None],
    out: TextIO,
    signals: Signals,
) -> int:
    from easyds_tune.decisions.make import make_decider

    slots = slot_count(sweep.spec.resources)
    # From the record as the last driver left it: its undecided report is decided again.
    decider = make_decider(
        sweep.spec,
        record,
        slots,
        sweep.records.fitting,
        sweep.points,
        holds_finals=sweep.holds_finals,
    )
    boards = Boards(sweep.folder, record, warn)
    orphans = end_orphans()
    with private_folder() as scratch, LiveDisplay(record, out) as display:
        from easyds_tune.sweep.actor import HEARTBEATS, STOP_FILE
        from easyds_tune.sweep.cluster import check_ray
        from easyds_tune.sweep.recorder import Recorder

        folder = sweep.folder.resolve()
        recorder = Recorder(
            journal,
            record,
            folder,
            boards,
            display,
            can_shrink=lambda trial: _can_shrink(sweep, trial),
            ask_to_stop=(scratch / STOP_FILE).touch,
            supervisor=Supervisor(
                scratch / HEARTBEATS,
                folder / "trials",
                sweep.spec.resources.host_memory,
                stopped_seconds=sweep.spec.resources.hang_seconds,
            ),
            tidy=lambda: _tidy(sweep, recorder),
            over_limit=lambda: bytes_over(record, disk_rules(sweep.spec)),
            signals=signals,
            check_ray=check_ray,
        )

        def start() -> None:
            begin(recorder, decider)
            if orphans:
                recorder.append(NoteEvent(f"{orphans} processes of a dead driver were ended"))
            boards.rebuild()  # a torn event file hides what is appended to it

        try:
            code = _search(sweep, recorder, decider, scratch, signals, start)
        finally:
            boards.close()
    try:
        with signals.raising():
            # After a second signal the sweep ends at once.
            write_results(record, sweep.folder, warn, with_best=not signals.is_second)
    except Interrupted as error:
        code = EXIT_INTERRUPTED[error.signum]
    return code


def _tidy(sweep: Sweep, recorder: Recorder) -> None:
    """Delete checkpoints that nothing needs any more; a simulated sweep has none."""
    if sweep.simulate is None:
        rules = disk_rules(sweep.spec)
        collect(recorder.record, rules, sweep.folder.resolve(), recorder.append, warn)


def _search(
    sweep: Sweep,
    recorder: Recorder,
    decider: Decider,
    scratch: Path,
    signals: Signals,
    start: Callable[[], None],
) -> int:
    from easyds_tune.sweep.cluster import RayDied

    try:
        with signals.raising():
            start()
        _tune(sweep, recorder, decider, scratch, signals)
        signals.check()  # one may have come while Ray ended
        code = write_end(recorder, sweep.folder, signals)
    except (Interrupted, KeyboardInterrupt, RayDied, Exception) as error:
        with contextlib.suppress(Interrupted):  # a full disk takes no more events
            recorder.interrupt()
        return _early_end(error, sweep, signals)
    return code


def write_end(recorder: Recorder, folder: Path, signals: Signals) -> int:
    """Verify the contenders, write the sweep's end, and return the exit code of the command.

    Raises Interrupted, and writes nothing, where a signal comes while checkpoints are hashed.
    """
    with signals.raising():
        events = final_events(recorder.record, folder, warn)
    signals.check()
    for event in events:
        recorder.append(event)
    assert recorder.record.final is not None
    return recorder.record.final.exit_code


def _early_end(error: BaseException, sweep: Sweep, signals: Signals) -> int:
    """Return the exit code of a sweep that a signal stopped; raise any other error."""
    if isinstance(error, Interrupted | KeyboardInterrupt):
        return EXIT_INTERRUPTED[getattr(error, "signum", signal.SIGINT)]
    if signals.first is not None:  # who ends a sweep may end Ray as well
        warn(f"while the sweep stopped: {type(error).__name__}: {error}")
        return EXIT_INTERRUPTED[signals.first]
    if isinstance(error, EasyDSError):
        raise error
    what = str(error)
    if isinstance(error, Exception):
        what = f"the sweep ended early ({type(error).__name__}: {error})"
    raise SweepError(f"{what}; {_how_to_resume(sweep)}") from error


def _how_to_resume(sweep: Sweep) -> str:
    folder = shlex.quote(str(sweep.folder.resolve()))
    return f"interrupted; continue with easyds-tune resume {folder}"


def _tune(
    sweep: Sweep,
    recorder: Recorder,
    decider: Decider,
    scratch: Path,
    signals: Signals,
) -> None:
    """Let Ray Tune run the trials, then judge the finalists; the recorder keeps it all."""
    from easyds_tune.sweep.cluster import DRIVER_ENVIRONMENT, RayDied, check_ray, local_ray

    os.environ.update(DRIVER_ENVIRONMENT)  # Tune reads some of it when it is imported
    with signals.raising():
        stage = _stage(sweep, scratch)
    signals.check()
    # In the middle of its start or its end, Ray would be half there: no signal raises then.
    with (
        ExitMessage(_how_to_resume(sweep), signals) as message,
        local_ray(sweep.spec.resources, message.give_up),
    ):
        try:
            signals.check()
            try:
                with signals.raising():
                    _run_trials(sweep, recorder, decider, scratch, stage)
                    while judge_finalists(sweep, recorder, stage):
                        _run_trials(sweep, recorder, decider, scratch, stage)
            except Exception:
                check_ray()  # Ray says many things once a part of it is gone
                raise
        except BaseException as error:
            # Ray's end takes seconds, and may take this process along where Ray is broken.
            with contextlib.suppress(Interrupted):
                recorder.interrupt()
            if isinstance(error, RayDied):
                warn(f"{error}: the sweep ends")
            raise


def _run_trials(
    sweep: Sweep, recorder: Recorder, decider: Decider, scratch: Path, stage: Stage
) -> None:
    from ray import tune

    from easyds_tune.sweep.adapters import DecidingScheduler, DecidingSearcher

    resources = sweep.spec.resources
    tuner = tune.Tuner(
        tune.with_resources(
            stage.trainable(), {"cpu": resources.cpus_per_trial, "gpu": gpus_of(resources)}
        ),
        tune_config=tune.TuneConfig(
            search_alg=DecidingSearcher(decider, recorder),
            scheduler=DecidingScheduler(decider, recorder),
            num_samples=-1,
            # ZeRO-3's engines keep a copy of the base each, whatever one releases.
            reuse_actors=zero_stage(deepspeed_config(sweep.spec.deepspeed)) != 3,
        ),
        run_config=tune.RunConfig(
            name=f"tune-{recorder.record.finals_round}",
            storage_path=str(scratch),
            callbacks=[recorder],
            verbose=0,
            # Tune never retries a failed run; the decider resumes the trial in another.
            failure_config=tune.FailureConfig(max_failures=0),
            # Trials write checkpoints of their own, at every report.
            checkpoint_config=tune.CheckpointConfig(
                checkpoint_frequency=0, checkpoint_at_end=False
            ),
        ),
    )
    tuner.fit()


def judge_finalists(sweep: Sweep, recorder: Recorder, stage: Stage) -> bool:
    """Judge the finalists, round by round; True where those of the next are to be trained again."""
    from easyds_tune.decisions.finals import find_finals, is_written, next_round

    finals = sweep.spec.finals
    found = find_finals(recorder.record, sweep.spec) if sweep.holds_finals else None
    while finals is not None and found is not None:
        if not is_written(recorder.record, found):
            recorder.append(found)
        for event in stage.judge(recorder.record, found.finalists, recorder.tick):
            recorder.append(event)
        # A lost winner may make another round due, which needs Ray.
        for loss in losses_of(recorder.record, sweep.folder, warn)[1]:
            recorder.append(loss)
        found = next_round(recorder.record, finals.top)
        if found is not None and finals.seeds:
            recorder.append(found)
            return True
    return False


def _stage(sweep: Sweep, scratch: Path) -> Stage:
    """Where trials run and finalists are judged: for real, or on curves."""
    spec, records = sweep.spec, sweep.records
    if sweep.simulate is not None:
        from easyds_tune.sweep.simulated import SimulatedStage

        simulated: Stage = SimulatedStage(spec, sweep.simulate)
        return simulated
    from easyds_tune.sweep.actor import SweepSetting
    from easyds_tune.sweep.stage import TrainingStage

    return TrainingStage(
        SweepSetting(
            spec=spec,
            train_records=records.fitting,
            working_folder=str(Path.cwd()),
            folder=str(sweep.folder.resolve()),
            scratch=str(scratch),
            hashes=records.hashes,
            gpus=gpus_of(spec.resources),
            threads=spec.resources.cpus_per_trial,
        )
    )


def _can_shrink(sweep: Sweep, trial: TrialRecord) -> bool:
    """Whether a trial's micro-batch can be halved once more than it was."""
    if sweep.simulate is not None:
        return False
    from easyds_tune.decisions.retries import times_out_of_memory

    spec = trial_spec(sweep.spec, trial.id, trial.params, sweep.records.fitting)
    return smaller_micro_batch(spec, times_out_of_memory(trial) + 1) is not None
