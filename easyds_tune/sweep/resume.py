"""Continue a sweep from its journal: after a crash, an interrupt, or to add trials."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from easyds_tune.decisions.finals import next_round
from easyds_tune.decisions.stop import Limits
from easyds_tune.decisions.unfinished import unfinished_business
from easyds_tune.errors import SpecError
from easyds_tune.journal.events import CollectEvent, Event, NoteEvent, ResumeEvent, TrialState
from easyds_tune.journal.replay import SweepRecord, TrialRecord
from easyds_tune.journal.writer import JournalWriter
from easyds_tune.results.finals import find_best
from easyds_tune.results.load import JOURNAL_NAME, load_sweep_record
from easyds_tune.results.rebuild import rebuild
from easyds_tune.results.resolved import UNFINISHED_RESOLVED_NAME, Resolved, load_resolved
from easyds_tune.spec.load import validate
from easyds_tune.spec.resources import gpus_of
from easyds_tune.spec.sweep import SweepSpec, set_path, trial_spec
from easyds_tune.sweep.collector import (
    found_checkpoints,
    lost_checkpoints,
    restore_note,
    sweep_leftovers,
)
from easyds_tune.sweep.disk import warn
from easyds_tune.sweep.drive import Sweep, drive
from easyds_tune.sweep.ending import append_events, mending, torn_notes
from easyds_tune.sweep.fingerprints import (
    SIMULATE,
    fingerprints,
    is_same_file,
    refuse_other_files,
    space_file_notes,
)
from easyds_tune.sweep.lock import lock
from easyds_tune.sweep.run import check, keep_spec, versions

if TYPE_CHECKING:
    from easyds_tune.decisions.decider import Decider
    from easyds_tune.sweep.recorder import Recorder

MAY_CHANGE = (
    "search.num_trials",
    "resources.max_concurrent",
    "resources.hang_seconds",
    "resources.host_memory",
    "stop",
    "output.keep",
    "output.disk_limit",
)
"""Fields, or whole sections, that may change when a sweep is resumed."""
EXTENDS = {
    "trials": "search.num_trials",
    "slots": "resources.max_concurrent",
    "hours": "stop.hours",
    "gpu_hours": "stop.gpu_hours",
    "tokens": "stop.tokens",
}
"""What `--extend` calls the fields that it sets."""


def resume_sweep(
    folder: Path,
    spec: SweepSpec | None = None,
    extend: dict[str, Any] | None = None,
    stream: TextIO | None = None,
    simulate: Path | None = None,
) -> int:
    """Continue a sweep and return the exit code of the command.

    spec: differs from the sweep's only in what may change; None is the sweep's own. A value that
    it has as before is replaced by what the sweep was extended by since.
    extend: values by dotted path that replace the spec's, none less than before.
    simulate: must be the curves that the sweep began with; None takes these.
    One that is over has its derived files rewritten, and keeps its code.
    Raises SpecError where spec, data or machine do not fit what the sweep began with, or another
    driver has the sweep; nothing was written then.
    """
    folder = folder.resolve()
    resolved = load_resolved(folder)
    is_moved = not resolved.working_folder.is_dir()
    curves = _curves(resolved, simulate.resolve() if simulate else None, folder)
    # Relative paths of the spec stand where the sweep began.
    with contextlib.chdir(Path.cwd() if is_moved else resolved.working_folder):
        return _go_on(folder, resolved, spec, extend or {}, stream, curves, is_moved=is_moved)


def _go_on(
    folder: Path,
    resolved: Resolved,
    spec: SweepSpec | None,
    extend: dict[str, Any],
    stream: TextIO | None,
    simulate: Path | None,
    *,
    is_moved: bool,
) -> int:
    before, given = resolved.spec, spec or resolved.given
    spec = extended(before, extend) if spec is None else with_extensions(spec, resolved)
    changes = differences(before, spec)
    _refuse_other_changes(changes, folder)
    with lock(folder) as left_behind:
        (folder / UNFINISHED_RESOLVED_NAME).unlink(missing_ok=True)  # of a driver that was killed
        record = load_sweep_record(folder)
        mended, mends = record, list[Event]()
        if is_over(record, spec):
            mended, mends = mending(record, folder, warn)
        if is_over(mended, spec):
            append_events(folder, record, mends)
            rebuild(record, folder)
            assert record.final is not None
            return record.final.exit_code
        if simulate is None:
            _refuse_without_checkpoints(record, folder)
        records = check(spec, simulate, new_folder=False)
        _refuse_other_data(records.hashes, resolved.data_hashes)
        files = fingerprints(spec, simulate)
        refuse_other_files(spec, simulate, files, resolved.fingerprints)
        append_events(folder, record, mends)  # nothing is written before the checks
        journal, record = JournalWriter.open(folder / JOURNAL_NAME)
        sweep = Sweep(spec, records, resolved.points, folder, simulate)
        told = [*records.notes, *space_file_notes(spec, files, resolved.fingerprints)]
        notes = [note for note in told if note not in record.notes]
        notes += [left_behind] if left_behind else []
        if is_moved:
            notes.append(f"{resolved.working_folder} no longer exists; continues in {Path.cwd()}")
        notes += torn_notes(record)
        notes += _version_notes(resolved.versions)
        notes += _lost_waiting(record)

        def begin(recorder: Recorder, decider: Decider) -> None:
            said = [f"{path}: {was} became {now}" for path, (was, now) in changes.items()]
            if (spec, given) != (before, resolved.given):
                keep_spec(folder, spec, given)  # first: what is said must not be forgotten
            recorder.append(ResumeEvent(spec.search.num_trials, said))
            for note in notes:
                recorder.append(NoteEvent(note))
            if simulate is None:
                for lost in lost_checkpoints(record, folder):
                    what = "trainer state" if isinstance(lost, CollectEvent) else "checkpoint"
                    where = f"trial {lost.trial}: the {what} of step {lost.step}"
                    recorder.append(NoteEvent(f"{where} is no longer on the disk"))
                    recorder.append(lost)

            def is_last(trial: TrialRecord) -> bool:
                complete = trial_spec(spec, trial.id, trial.params, records.fitting)
                return trial.step >= complete.budget.max_steps

            for event in unfinished_business(record, decider.on_report, is_last):
                recorder.append(event)
            if simulate is None:
                for found in found_checkpoints(record, folder):
                    recorder.append(NoteEvent(restore_note(found)))
                    recorder.append(found)
                for text in sweep_leftovers(record, folder):
                    recorder.append(NoteEvent(text))

        with journal:
            return drive(sweep, journal, record, begin, stream)


def _curves(resolved: Resolved, given: Path | None, folder: Path) -> Path | None:
    """The curves that stand in for training; None where trials are trained.

    given: absolute. Raises SpecError where it is not what the sweep began with.
    """
    before = resolved.simulate
    if before is not None and not resolved.working_folder.is_dir():  # moved, and with it the curves
        with contextlib.suppress(ValueError):
            before = Path.cwd() / before.relative_to(resolved.working_folder)
    if given is None or given == before:
        return before
    if before is None:
        raise SpecError(
            [
                f"--simulate: {folder.name} trains its trials; leave "
                "it out, or start a new sweep with --set name=..."
            ]
        )
    if not is_same_file(given, (resolved.fingerprints or {}).get(SIMULATE)):
        raise SpecError(
            [
                f"--simulate: {folder.name} began with {before}, and {given} is another file; give "
                "that one, or start a new sweep with --set name=..."
            ]
        )
    return given


def differences(before: SweepSpec, after: SweepSpec) -> dict[str, tuple[Any, Any]]:
    """Dotted path -> (value before, value after) of every field that is not the same."""
    was, now = _flat(before.model_dump(mode="json")), _flat(after.model_dump(mode="json"))
    return {
        path: (was.get(path), now.get(path))
        for path in [*was, *(path for path in now if path not in was)]
        if was.get(path) != now.get(path)
    }


def is_over(record: SweepRecord, spec: SweepSpec) -> bool:
    """Whether nothing is left to do.

    The sweep has ended, its record still gives this end, no trials were added, no further round of
    finals is due, and a limit that stopped the search early is still met.
    """
    if record.final is None or spec.search.num_trials > record.num_trials:
        return False
    best = find_best(record)
    found = (best.trial.id, best.step) if best else (None, None)
    if found != (record.final.winner, record.final.step) or not _have_ended(record):
        return False  # a repair has lost what the end rested on
    if spec.finals is not None and next_round(record, spec.finals.top) is not None:
        return False  # finalists are lost since
    if record.stopped is None:
        return True
    limits = Limits(spec.stop, gpus_of(spec.resources), record)
    return limits.used_up(record.ran) is not None


def _have_ended(record: SweepRecord) -> bool:
    return all(trial.state.is_final for trial in record.trials.values())


def extended(spec: SweepSpec, extend: dict[str, Any]) -> SweepSpec:
    """The spec with more of something. Raises SpecError where it would be less."""
    raw = spec.model_dump(mode="json")
    had = _flat(raw)
    for path, value in extend.items():
        set_path(raw, path, value)
    more = validate(raw)
    has = _flat(more.model_dump(mode="json"))
    problems = [
        f"--extend: {path} is {had[path]} already, got {has[path]}; name more"
        for path in extend
        if path != EXTENDS["slots"] and has[path] is not None
        if had[path] is not None and has[path] < had[path]
    ]
    if problems:
        raise SpecError(problems)
    return more


def with_extensions(spec: SweepSpec, resolved: Resolved) -> SweepSpec:
    """A given spec, with the sweep's own values wherever the author has not changed them.

    A file that says three trials does not take away those that `--extend` has added since.
    """
    now = spec.model_dump(mode="json")
    given, kept = (_flat(s.model_dump(mode="json")) for s in (resolved.given, resolved.spec))
    for path, value in _flat(now).items():
        if _may_change(path) and path in kept and value == given.get(path):
            set_path(now, path, kept[path])
    return validate(now)


def _lost_waiting(record: SweepRecord) -> list[str]:
    """A note on trials that waited at a rung when the search ended: they have ended."""
    lost = [
        trial.id
        for trial in record.trials.values()
        if trial.state is TrialState.PRUNED
        and trial.decisions
        and trial.decisions[-1].action == "pause"
        and (trial.ended_seq or 0) > record.resumed_seq
    ]
    if record.final is None or not lost:
        return []
    return [f"{len(lost)} trials waited at a rung when the search ended, and are not resumed"]


def _may_change(path: str) -> bool:
    return any(path == allowed or path.startswith(f"{allowed}.") for allowed in MAY_CHANGE)


def _flat(value: Any, path: str = "") -> dict[str, Any]:
    if not isinstance(value, dict) or not value:
        return {path: value}
    return {
        name: leaf
        for key, inner in value.items()
        for name, leaf in _flat(inner, f"{path}.{key}" if path else str(key)).items()
    }


def _refuse_other_changes(changes: dict[str, tuple[Any, Any]], folder: Path) -> None:
    problems = [
        f"{path}: was {was} when {folder.name} began and is {now}; only "
        f"{', '.join(MAY_CHANGE)} may change when a sweep is resumed"
        for path, (was, now) in changes.items()
        if not _may_change(path)
    ]
    if problems:
        raise SpecError(problems)


def _refuse_without_checkpoints(record: SweepRecord, folder: Path) -> None:
    paths = [path for trial in record.trials.values() for path in trial.checkpoints.values()]
    if paths and not any((folder / path).is_dir() for path in paths):
        raise SpecError(
            [
                f"{folder}: none of the {len(paths)} checkpoints of its journal is there; "
                "restore trials/, or start a new sweep"
            ]
        )


def _refuse_other_data(now: dict[str, str], before: dict[str, str]) -> None:
    changed = sorted(
        name for name in now.keys() | before.keys() if now.get(name) != before.get(name)
    )
    if changed:
        raise SpecError(
            [
                f"data: {', '.join(changed)} changed since the sweep began; restore the files "
                "as they were, or start a new sweep"
            ]
        )


def _version_notes(before: dict[str, str]) -> list[str]:
    changed = [
        f"{name} {before.get(name)} became {version}"
        for name, version in versions().items()
        if before.get(name) != version
    ]
    if not changed:
        return []
    return [f"other releases than at the start, so not the same bits: {', '.join(changed)}"]
