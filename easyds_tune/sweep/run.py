"""Run a sweep from a checked spec to its winner."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, TextIO

import yaml

from easyds_tune import __version__
from easyds_tune.decisions.rules import bounds_of, objectives_of
from easyds_tune.errors import SpecError
from easyds_tune.journal.events import FinalEvent, FinalsEvent, NoteEvent, SweepEvent
from easyds_tune.journal.replay import SweepRecord
from easyds_tune.journal.writer import JournalWriter
from easyds_tune.redact import redact
from easyds_tune.results.derived import Boards, write_results
from easyds_tune.results.display import LiveDisplay
from easyds_tune.results.finals import find_best
from easyds_tune.spec.deepspeed import deepspeed_config, zero_stage
from easyds_tune.spec.resources import gpus_of, slot_count
from easyds_tune.spec.sweep import SweepSpec
from easyds_tune.sweep.preflight import CheckedRecords, preflight, sweep_folder

if TYPE_CHECKING:
    from easyds_tune.sweep.recorder import Recorder
    from easyds_tune.sweep.stage import Stage

EXIT_DONE, EXIT_NOTHING_FIT = 0, 3
EXIT_INTERRUPTED: dict[int, int] = {signal.SIGINT: 130, signal.SIGTERM: 143}
VERSIONED = ("ray", "torch", "transformers", "peft", "trl", "deepspeed", "optuna", "datasets",
             "accelerate", "tensorboard", "pyarrow")  # fmt: skip


def run_sweep(
    spec: SweepSpec,
    written: str | None = None,
    stream: TextIO | None = None,
    simulate: Path | None = None,
) -> int:
    """Run a sweep and return the exit code of the command.

    written: the spec as its author wrote it, kept beside the results.
    simulate: learning curves that stand in for training; everything else is as in a real sweep.
    Raises SpecError before anything starts where the spec does not fit its files or the machine.
    """
    if simulate is not None:
        from easyds_tune.sweep.simulated import check_simulation

        records = check_simulation(spec, simulate)
    else:
        records = preflight(spec)
    notes: list[str] = list(records.notes)
    from easyds_tune.decisions.warm_start import warm_points

    points = warm_points(spec, note=notes.append)
    folder = sweep_folder(spec)
    try:
        folder.mkdir(parents=True)
    except FileExistsError as error:
        raise SpecError([f"name: {folder} was made by another sweep just now"]) from error
    _write_spec(spec, written, records, folder)
    journal, first = JournalWriter.create(folder / "journal.jsonl", _sweep_event(spec, records))
    with journal:
        record = SweepRecord.begin(first)
        boards = Boards(folder, record, _warn)
        with LiveDisplay(record, stream or sys.stdout) as display:
            from easyds_tune.sweep.recorder import Recorder

            recorder = Recorder(journal, record, folder.resolve(), boards, display)
            for note in notes:
                recorder.append(NoteEvent(note))
            code = _search(spec, records, points, folder, recorder, simulate)
        boards.close()
    return code


def _search(
    spec: SweepSpec,
    records: CheckedRecords,
    points: list[dict[str, Any]],
    folder: Path,
    recorder: Recorder,
    simulate: Path | None,
) -> int:
    from easyds_tune.sweep.recorder import Interrupted

    record = recorder.record
    try:
        _tune(spec, records, points, folder, recorder, simulate)
    except (Interrupted, KeyboardInterrupt) as stop:
        recorder.interrupt()
        code = EXIT_INTERRUPTED[getattr(stop, "signum", signal.SIGINT)]
    else:
        best = find_best(record)
        code = EXIT_DONE if best else EXIT_NOTHING_FIT
        recorder.append(
            FinalEvent(
                winner=best.trial.id if best else None,
                step=best.report.step if best else None,
                exit_code=code,
            )
        )
    write_results(record, folder, _warn)
    return code


def _warn(text: str) -> None:
    """A word on something that does not end the sweep."""
    with contextlib.suppress(OSError):
        print(f"warning: {redact(text)}", file=sys.stderr, flush=True)


def _tune(
    spec: SweepSpec,
    records: CheckedRecords,
    points: list[dict[str, Any]],
    folder: Path,
    recorder: Recorder,
    simulate: Path | None,
) -> None:
    """Let Ray Tune run the trials, then judge the finalists; the recorder keeps it all."""
    from easyds_tune.sweep.cluster import DRIVER_ENVIRONMENT, local_ray

    os.environ.update(DRIVER_ENVIRONMENT)  # Tune reads some of it when it is imported
    from ray import tune

    from easyds_tune.decisions.finals import find_finalists
    from easyds_tune.decisions.make import make_decider
    from easyds_tune.sweep.adapters import DecidingScheduler, DecidingSearcher

    scratch = Path(tempfile.mkdtemp(prefix="easyds-ray-"))
    slots = slot_count(spec.resources)
    holds_finals = simulate is not None or records.hold_finals
    decider = make_decider(
        spec, recorder.record, slots, records.fitting, points, holds_finals=holds_finals
    )
    stage = _stage(spec, records, folder, scratch, simulate)
    try:
        # Ray sets handlers of its own when it starts; ours come after.
        with local_ray(spec.resources), _signals_told_to(recorder):
            tuner = tune.Tuner(
                tune.with_resources(
                    stage.trainable(),
                    {"cpu": spec.resources.cpus_per_trial, "gpu": gpus_of(spec.resources)},
                ),
                tune_config=tune.TuneConfig(
                    search_alg=DecidingSearcher(decider, recorder),
                    scheduler=DecidingScheduler(decider, recorder),
                    num_samples=-1,
                    # ZeRO-3's engines keep a copy of the base each, whatever one releases.
                    reuse_actors=zero_stage(deepspeed_config(spec.deepspeed)) != 3,
                ),
                run_config=tune.RunConfig(
                    name="tune",
                    storage_path=str(scratch),
                    callbacks=[recorder],
                    verbose=0,
                    failure_config=tune.FailureConfig(max_failures=0),
                    # Trials write checkpoints of their own, at every report.
                    checkpoint_config=tune.CheckpointConfig(
                        checkpoint_frequency=0, checkpoint_at_end=False
                    ),
                ),
            )
            tuner.fit()
            finalists = find_finalists(recorder.record, spec)
            if finalists and holds_finals:
                recorder.append(FinalsEvent(finalists))
                for event in stage.judge(recorder.record, finalists, recorder.tick):
                    recorder.append(event)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _stage(
    spec: SweepSpec,
    records: CheckedRecords,
    folder: Path,
    scratch: Path,
    simulate: Path | None,
) -> Stage:
    """Where trials run and finalists are judged: for real, or on curves."""
    if simulate is not None:
        from easyds_tune.sweep.simulated import SimulatedStage

        simulated: Stage = SimulatedStage(spec, simulate)
        return simulated
    from easyds_tune.sweep.actor import SweepSetting
    from easyds_tune.sweep.stage import TrainingStage

    return TrainingStage(
        SweepSetting(
            spec=spec,
            train_records=records.fitting,
            working_folder=str(Path.cwd()),
            folder=str(folder.resolve()),
            scratch=str(scratch),
            hashes=records.hashes,
            gpus=gpus_of(spec.resources),
            threads=spec.resources.cpus_per_trial,
        )
    )


@contextlib.contextmanager
def _signals_told_to(recorder: Recorder) -> Iterator[None]:
    """Within the block, a first SIGINT or SIGTERM ends the sweep at Tune's next step.

    Raising in the handler itself would break Ray in the middle of a call. A second signal does
    what it would do without us: it ends the process at once.
    """
    before = {number: signal.getsignal(number) for number in EXIT_INTERRUPTED}

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    def stop(signum: int, frame: FrameType | None) -> None:
        recorder.stop_signal = signum
        restore()

    for number in EXIT_INTERRUPTED:
        signal.signal(number, stop)
    try:
        yield
    finally:
        restore()


def _sweep_event(spec: SweepSpec, records: CheckedRecords) -> SweepEvent:
    return SweepEvent(
        name=spec.name,
        algorithm=spec.algorithm.type,
        objective=objectives_of(spec)[0],
        num_trials=spec.search.num_trials,
        max_steps=spec.budget(records.fitting).max_steps,
        created=round(time.time(), 3),
        space={path: param.model_dump() for path, param in spec.search_space.items()},
        bounds=bounds_of(spec),
        objectives=objectives_of(spec),
    )


def _write_spec(
    spec: SweepSpec, written: str | None, records: CheckedRecords, folder: Path
) -> None:
    """Keep the spec as written, and resolved with everything a repetition needs."""
    text = written
    if text is None:
        text = yaml.safe_dump(spec.model_dump(mode="json"), allow_unicode=True, sort_keys=False)
    (folder / "spec.yaml").write_text(redact(text), encoding="utf-8")  # a comment may hold a key
    resolved = {
        "schema": 1,
        "spec": spec.model_dump(mode="json"),
        "budget": spec.budget(records.fitting).model_dump(),
        "train_records": len(records.train),
        "held_out_records": len(records.held_out),
        "judge_prompts": len(records.prompts),
        "data_hashes": records.hashes,
        "notes": records.notes,
        "versions": {"easyds-tune": __version__, "python": sys.version.split()[0]}
        | {name: metadata.version(name) for name in VERSIONED},
        "git_revision": _git_revision(),
        "working_folder": str(Path.cwd()),
    }
    (folder / "spec.resolved.json").write_text(
        redact(json.dumps(resolved, ensure_ascii=False, indent=1)), encoding="utf-8"
    )


def _git_revision() -> str | None:
    """The commit of the working folder, with + where files are changed; None outside git."""
    try:
        found = subprocess.run(
            ["git", "describe", "--always", "--dirty=+", "--abbrev=40", "--exclude=*"],
            capture_output=True,
            text=True,
            timeout=5,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return found.stdout.strip()
