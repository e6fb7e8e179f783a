"""Start `easyds-tune` in a place as a person does, and read the journal it left."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from easyds_tune.errors import JournalError
from easyds_tune.journal.events import (
    CheckpointEvent,
    Entry,
    FinishEvent,
    ReportEvent,
    SuggestEvent,
    TrialState,
)
from easyds_tune.journal.reader import JournalReader
from easyds_tune.journal.replay import SweepRecord, TrialRecord
from easyds_tune.results.load import load_sweep_record
from tests.benchmarks.faults.place import REPOSITORY, Outcome, Place, Running, Unseen, place_in

NAME = "sweep"
SECONDS = 300
"""That a command may take on a busy machine."""
DATA = REPOSITORY / "data"
CURVES = REPOSITORY / "tests" / "benchmarks" / "decisions" / "landscapes" / "hacking.yaml"
UNCOMPARED = ("time/", "memory/")
"""Metrics that no two runs share."""

Fault = dict[str, Any]


def write_spec(place: Place, name: str = NAME, **changes: Any) -> str:
    """A DPO sweep of tiny trials on the bundled models, one slot; `training__max_steps=2`."""
    raw: dict[str, Any] = {
        "seed": 0,
        "algorithm": {"type": "dpo", "max_length": 96},
        "model": {
            "model_name_or_path": str(DATA / "models" / "tiny-tutor"), "dtype": "float32",
            "lora_r": 4, "lora_alpha": 8,
        },
        "data": {"train": {"path": str(DATA / "easyds" / "preferences.jsonl"), "limit": 64}},
        "judge": {
            "prompts": str(DATA / "easyds" / "judge_prompts.jsonl"), "num_prompts": 2,
            "max_new_tokens": 4,
            "reward": {"model_name_or_path": str(DATA / "models" / "tiny-reward")},
        },
        "training": {
            "max_steps": 6, "eval_steps": 2, "learning_rate": 1e-3,
            "per_device_train_batch_size": 4, "lr_scheduler_type": "linear",
        },
        "search_space": {"training.learning_rate": {"low": 1e-4, "high": 1e-2, "log": True}},
        # It differs from trial to trial; the reward after so few steps hardly does.
        "objective": {"metric": "eval/kl", "mode": "min"},
        "search": {"num_trials": 5, "startup_trials": 2},
        "scheduler": {"type": "asha"},
        "finals": None,
        "resources": {"gpus_per_trial": 0, "max_concurrent": 1},
    }  # fmt: skip
    return _write(place, name, raw, changes)


def write_simulated_spec(place: Place, name: str = NAME, **changes: Any) -> str:
    """An `asha` sweep for the learning curves of `CURVES`, one slot."""
    raw: dict[str, Any] = {
        "seed": 0,
        "algorithm": {"type": "dpo", "max_length": 96},
        "model": {
            "model_name_or_path": str(DATA / "models" / "tiny-tutor"), "dtype": "float32",
            "lora_r": 8, "lora_alpha": 16,
        },
        "data": {"train": str(DATA / "easyds" / "preferences.jsonl")},
        "judge": {
            "prompts": str(DATA / "easyds" / "judge_prompts.jsonl"), "num_prompts": 128,
            "reward": {"model_name_or_path": str(DATA / "models" / "tiny-reward")},
        },
        "training": {
            "max_steps": 54, "eval_steps": 6, "learning_rate": 1e-3,
            "per_device_train_batch_size": 4,
        },
        "search_space": {
            "training.learning_rate": {"low": 1e-4, "high": 1e-2, "log": True},
            "algorithm.beta": {"low": 0.03, "high": 0.5, "log": True},
        },
        "bounds": {"eval/kl": {"max": 0.2}},
        "search": {"num_trials": 24},
        "scheduler": {"type": "asha"},
        "finals": {"top": 3},
        "resources": {"gpus_per_trial": 0, "max_concurrent": 1},
    }  # fmt: skip
    return _write(place, name, raw, changes)


def _write(place: Place, name: str, raw: dict[str, Any], changes: dict[str, Any]) -> str:
    for path, value in changes.items():
        section = raw
        *sections, last = path.split("__")
        for part in sections:
            section = section.setdefault(part, {})
        section[last] = value
    (place.folder / f"{name}.yaml").write_text(yaml.safe_dump(raw), encoding="utf-8")
    return f"{name}.yaml"


def easyds(place: Place, *arguments: str, faults: list[Fault] | None = None, **env: str) -> Running:
    """Run a command of ours; its processes misbehave as `inject/sitecustomize.py` has it."""
    markers = place.folder / "faults"
    markers.mkdir(exist_ok=True)
    if faults:
        env |= {"FAULTS": json.dumps(faults), "FAULTS_FOLDER": str(markers)}
    return place.start("-m", "easyds_tune.cli.main", *arguments, **env)


def sweep(
    place: Place, spec: str, *arguments: str, faults: list[Fault] | None = None, **env: str
) -> Running:
    """Start a sweep."""
    return easyds(place, "sweep", spec, *arguments, faults=faults, **env)


def simulate(
    place: Place, spec: str, *arguments: str, faults: list[Fault] | None = None
) -> Running:
    """Start a sweep on the learning curves."""
    return sweep(place, spec, "--simulate", str(CURVES), *arguments, faults=faults)


def resume(place: Place, name: str = NAME, *arguments: str, **env: str) -> Running:
    """Go on with a sweep."""
    return easyds(place, "resume", name, *arguments, **env)


def finish(running: Running, code: int = 0) -> None:
    """Wait for a command's end; raises Unseen where it ends with another code."""
    found = running.wait(SECONDS)
    if found != code:
        raise Unseen(f"exit code {found} instead of {code}: {running.text[-400:]}")


def folder_of(place: Place, name: str = NAME) -> Path:
    """A sweep's folder."""
    return place.folder / "results" / name


def journal_of(place: Place, name: str = NAME) -> Path:
    """A sweep's journal."""
    return folder_of(place, name) / "journal.jsonl"


def lines(place: Place, name: str = NAME) -> list[dict[str, Any]]:
    """The whole lines of the journal so far, parsed and unchecked."""
    path = journal_of(place, name)
    if not path.is_file():
        return []
    return [json.loads(line) for line in path.read_bytes().split(b"\n")[:-1]]


def count(place: Place, event: str, name: str = NAME) -> int:
    """Events of a kind so far."""
    path = journal_of(place, name)
    wanted = f'"event":"{event}"'.encode()
    return path.read_bytes().count(wanted) if path.is_file() else 0


def entries(place: Place, name: str = NAME) -> list[Entry]:
    """All events of the journal; raises Unseen where it is damaged."""
    reader = JournalReader(journal_of(place, name))
    try:
        found = list(reader)
    except JournalError as error:
        raise Unseen(f"the journal cannot be read: {error}") from error
    if reader.torn_bytes:
        raise Unseen(f"the journal ends in {reader.torn_bytes} torn bytes")
    return found


def record(place: Place, name: str = NAME) -> SweepRecord:
    """What the journal tells."""
    return load_sweep_record(folder_of(place, name))


def fault_times(place: Place, number: int = 0) -> list[float]:
    """When a fault of the given number fired, in unix seconds."""
    markers = sorted((place.folder / "faults").glob(f"{number}-*"))
    return [float(marker.read_text(encoding="utf-8")) for marker in markers]


def seconds_to_report(place: Place, since: float, trial: str | None = None) -> float | None:
    """From a moment to the next report, of a trial or of any."""
    for entry in entries(place):
        event = entry.event
        if isinstance(event, ReportEvent) and trial in (None, event.trial) and entry.time > since:
            return entry.time - since
    return None


def is_kept(metric: str) -> bool:
    """Whether two equal runs have the same value of a metric."""
    return not metric.startswith(UNCOMPARED)


def shape(trial: TrialRecord) -> dict[str, Any]:
    """All of a trial but its times and attempts."""
    reports = [
        (report.step, {k: v for k, v in report.metrics.items() if is_kept(k)})
        for report in trial.reports
    ]
    decisions = [
        (d.step, d.by, d.action, d.reason) for d in trial.decisions if d.action != "resume"
    ]
    return {
        "params": trial.params,
        "source": trial.source,
        "seed": trial.seed,
        "state": trial.state.value,
        "reports": reports,
        "decisions": decisions,
    }


def difference(ours: SweepRecord, reference: SweepRecord) -> str:
    """How two sweeps differ besides their times; empty where they do not."""
    if ours.trials.keys() != reference.trials.keys():
        return f"trials {sorted(ours.trials)} instead of {sorted(reference.trials)}"
    for name, trial in reference.trials.items():
        left, right = shape(ours.trials[name]), shape(trial)
        for key, value in right.items():
            if left[key] != value:
                return f"{key} of trial {name}: {left[key]} instead of {value}"[:400]
    ours_final = (ours.final and ours.final.winner, ours.final and ours.final.step)
    wanted = (reference.final and reference.final.winner, reference.final and reference.final.step)
    return "" if ours_final == wanted else f"winner {ours_final} instead of {wanted}"


def repeated(found: list[Entry]) -> list[str]:
    """Reports that were told twice and trials that were suggested or ended for good twice.

    A report whose checkpoint was not written down is not told yet: the trial has to make it again.
    """
    seen: set[str] = set()
    twice = []
    for entry in found:
        match entry.event:
            case CheckpointEvent() as event:
                key = f"report {event.trial} step {event.step}"
            case SuggestEvent() as event:
                key = f"suggestion {event.trial}"
            case FinishEvent(state=state) as event if state.is_final:
                key = f"end of {event.trial}"
            case _:
                continue
        if key in seen:
            twice.append(key)
        seen.add(key)
    return twice


def orphans(place: Place, name: str = NAME) -> list[str]:
    """Folders and unfinished writes that belong to no trial and no checkpoint of the journal."""
    known, folder = record(place, name), folder_of(place, name)
    wrong = [path for path in folder.glob("trials/*") if path.name not in known.trials]
    boards = [path for path in folder.glob("tensorboard/*") if path.is_dir()]
    wrong += [path for path in boards if path.name not in known.trials]
    wrong += list(folder.glob("trials/*/checkpoints/.*"))
    kept = {folder / path for trial in known.trials.values() for path in trial.checkpoints.values()}
    wrong += [path for path in folder.glob("trials/*/checkpoints/*") if path not in kept]
    return sorted({path.relative_to(folder).as_posix() for path in wrong})


def all_completed(found: SweepRecord, number: int) -> bool:
    """Whether a sweep has so many trials, each at its end."""
    states = [trial.state for trial in found.trials.values()]
    return states == [TrialState.COMPLETED] * number


def reference(
    place: Place, kind: str, write: Callable[..., str], run: Callable[..., Running], **changes: Any
) -> SweepRecord:
    """The same sweep without a fault; run once for all rows that compare with it."""
    key = "-".join([kind, *(f"{k}={v}" for k, v in sorted(changes.items()))]).replace("/", "_")
    folder = place.folder.parent / "references" / key
    if not folder.exists():
        with place_in(folder) as fresh:
            finish(run(fresh, write(fresh, **changes)))
    return record(Place(folder))


def trained_reference(place: Place, **changes: Any) -> SweepRecord:
    """The uninterrupted sweep of `write_spec`."""
    return reference(place, "trained", write_spec, sweep, **changes)


def simulated_reference(place: Place, **changes: Any) -> SweepRecord:
    """The uninterrupted sweep of `write_simulated_spec`."""
    return reference(place, "simulated", write_simulated_spec, simulate, **changes)


def verdict(problems: list[str], good: str, seconds: float | None = None) -> Outcome:
    """Passed with what was good, or failed with the problems."""
    wrong = [problem for problem in problems if problem]
    return Outcome(not wrong, "; ".join(wrong) or good, seconds)
