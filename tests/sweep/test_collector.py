"""Collected files: the journal first, and after a crash the folder is made to agree with it."""

from __future__ import annotations

import random
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest

from easyds_tune.decisions.collector import DiskRules
from easyds_tune.errors import CheckpointError
from easyds_tune.journal.events import (
    CheckpointEvent,
    CollectEvent,
    Event,
    FinishEvent,
    LostEvent,
    Objective,
    ReportEvent,
    StartEvent,
    SuggestEvent,
    SweepEvent,
    TrialState,
)
from easyds_tune.journal.reader import read_events
from easyds_tune.journal.replay import SweepRecord, replay
from easyds_tune.journal.writer import JournalWriter
from easyds_tune.sweep import collector
from easyds_tune.sweep.collector import (
    collect,
    found_checkpoints,
    lost_checkpoints,
    sweep_leftovers,
)
from easyds_tune.trial.checkpoint import verify_checkpoint, write_checkpoint


class Killed(BaseException):
    """The driver dies."""


class Driver:
    """A journal, a record, and real checkpoints."""

    def __init__(self, folder: Path, keep: int | None = 1) -> None:
        first = SweepEvent("disk", "dpo", Objective("eval/reward"), 4, 40, 0.0)
        self.folder = folder
        self.rules = DiskRules(keep, None, 0)
        self.journal, entry = JournalWriter.create(folder / "journal.jsonl", first)
        self.record = SweepRecord.begin(entry)
        self.said: list[str] = []

    def append(self, event: Event) -> None:
        self.record.apply(self.journal.append(event))

    def suggest(self) -> str:
        number = len(self.record.trials)
        self.append(SuggestEvent(f"{number:03d}", number, {}, "sampler"))
        self.append(StartEvent(f"{number:03d}", 1))
        return f"{number:03d}"

    def report(self, trial: str, step: int, reward: float) -> None:
        path = write(self.folder, trial, step)
        size = sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
        self.append(ReportEvent(trial, step, {"eval/reward": reward}))
        self.append(CheckpointEvent(trial, step, str(path.relative_to(self.folder)), size))

    def finish(self, trial: str) -> None:
        self.append(FinishEvent(trial, TrialState.COMPLETED, 0, 1.0))

    def collect(self) -> None:
        collect(self.record, self.rules, self.folder, self.append, self.said.append)

    def live_through(self, seed: int) -> None:
        """Two trials that take turns, and collect after each checkpoint."""
        source = random.Random(seed)
        names = [self.suggest() for _ in range(2)]
        for step in (10, 20, 30, 40):
            for name in names:
                self.report(name, step, source.random())
                self.collect()
        for name in names[:1]:
            self.finish(name)
            self.collect()


def write(folder: Path, trial: str, step: int) -> Path:
    def save(path: Path) -> None:
        (path / "trainer").mkdir()
        (path / "trainer" / "state.pt").write_bytes(b"s" * 800)
        (path / "adapter_model.safetensors").write_bytes(b"w" * 200)

    return write_checkpoint(folder / "trials" / trial / "checkpoints", trial, step, save).path


def on_disk(folder: Path) -> dict[str, bool]:
    """Each entry among the checkpoints, and whether it has its trainer state."""
    return {
        f"{path.parent.parent.name}/{path.name}": (path / "trainer").is_dir()
        for path in sorted(folder.glob("trials/*/checkpoints/*"))
    }


def recorded(record: SweepRecord) -> dict[str, bool]:
    return {
        f"{trial.id}/{Path(path).name}": step not in trial.final_only
        for trial in record.trials.values()
        for step, path in trial.checkpoints.items()
    }


def test_files_go_with_their_events(tmp_path: Path) -> None:
    driver = Driver(tmp_path)
    driver.live_through(seed=1)
    assert on_disk(tmp_path) == recorded(driver.record)
    assert recorded(replay(read_events(tmp_path / "journal.jsonl"))) == recorded(driver.record)
    assert driver.said == []
    for path in tmp_path.glob("trials/*/checkpoints/*"):
        verify_checkpoint(path)
    assert len(on_disk(tmp_path)) < 8


def test_the_record_knows_what_is_left_of_a_checkpoint(tmp_path: Path) -> None:
    driver = Driver(tmp_path)
    name = driver.suggest()
    driver.report(name, 10, 1.0)
    before = driver.record.trials[name].sizes[10]
    driver.finish(name)
    driver.collect()
    files = tmp_path.glob("trials/000/checkpoints/step-000010/*")
    left = sum(path.stat().st_size for path in files)
    assert left <= driver.record.trials[name].sizes[10] < left + 200 < before


@pytest.mark.parametrize("seed", range(2))
def test_whenever_the_driver_dies_a_resume_finds_what_the_journal_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    """Killed at any append, rename or deletion, some 50 places in all."""
    moments = 0
    for deadly in range(0, 200, 3):
        folder = tmp_path / str(deadly)
        folder.mkdir()
        driver = Driver(folder)
        count = die_at(monkeypatch, deadly)
        try:
            driver.live_through(seed)
            survived = True
        except Killed:
            survived = False
            moments += 1
        monkeypatch.undo()
        driver.journal.close()
        record = replay(read_events(folder / "journal.jsonl"))
        assert lost_checkpoints(record, folder) == []
        sweep_leftovers(record, folder)
        assert on_disk(folder) == recorded(record)
        for path in folder.glob("trials/*/checkpoints/*"):
            verify_checkpoint(path)
        if survived:
            break
        assert count == [deadly + 1]
    assert moments > 10


def die_at(monkeypatch: pytest.MonkeyPatch, deadly: int) -> list[int]:
    """Die right before or right after the append, rename or deletion of this number."""
    count = [0]

    def deathly(real):  # type: ignore[no-untyped-def]
        def call(*args, **kwargs):  # type: ignore[no-untyped-def]
            count[0] += 1
            if count[0] > deadly and deadly % 2:
                raise Killed
            result = real(*args, **kwargs)
            if count[0] > deadly:
                raise Killed
            return result

        return call

    def half_delete(path: Path) -> None:
        """Deleting takes a while: one file first, then the rest."""
        next(iter(sorted(file for file in path.rglob("*") if file.is_file()))).unlink()
        deathly(shutil.rmtree)(path)

    monkeypatch.setattr(JournalWriter, "append", deathly(JournalWriter.append))
    monkeypatch.setattr(Path, "rename", deathly(Path.rename))
    monkeypatch.setattr(collector, "drop_trainer_state", deathly(collector.drop_trainer_state))
    monkeypatch.setattr(collector, "shutil", SimpleNamespace(rmtree=half_delete))
    return count


def test_what_a_worker_wrote_last_is_unknown_and_goes(tmp_path: Path) -> None:
    driver = Driver(tmp_path)
    name = driver.suggest()
    driver.report(name, 10, 1.0)
    write(tmp_path, name, 20)  # its report never reached the driver
    write(tmp_path, "007", 10)  # its trial was cut from the journal
    (tmp_path / "trials/000/checkpoints/.step-000030.unfinished/trainer").mkdir(parents=True)
    (tmp_path / "trials/000/notes.txt").write_text("mine", encoding="utf-8")
    told = sweep_leftovers(driver.record, tmp_path)
    assert on_disk(tmp_path) == {"000/step-000010": True}
    assert not (tmp_path / "trials/007").exists()
    assert (tmp_path / "trials/000/notes.txt").exists()
    assert [line.split()[0] for line in told] == [
        "trials/000/checkpoints/step-000020",
        "trials/007/checkpoints/step-000010",
    ]


def test_what_is_no_checkpoint_of_a_trial_is_somebodys_own_and_stays(tmp_path: Path) -> None:
    sweep, outside = tmp_path / "sweep", tmp_path / "outside"
    sweep.mkdir()
    driver = Driver(sweep)
    name = driver.suggest()
    driver.report(name, 10, 1.0)
    checkpoints = sweep / "trials" / name / "checkpoints"
    shutil.copytree(checkpoints.parent, sweep / "trials" / f"{name}-backup")
    shutil.copytree(checkpoints / "step-000010", checkpoints / "step-000010-mine")
    (outside / "step-000020").mkdir(parents=True)
    (sweep / "trials" / "001").mkdir()
    (sweep / "trials" / "001" / "checkpoints").symlink_to(outside)
    assert sweep_leftovers(driver.record, sweep) == []
    assert (sweep / "trials" / f"{name}-backup" / "checkpoints" / "step-000010").is_dir()
    assert (checkpoints / "step-000010-mine").is_dir()
    assert (outside / "step-000020").is_dir()


def test_a_whole_checkpoint_whose_line_was_lost_is_found_again(tmp_path: Path) -> None:
    driver = Driver(tmp_path, keep=None)
    over, running = driver.suggest(), driver.suggest()
    for name in (over, running):
        for step in (10, 20, 30):
            driver.report(name, step, 1.0)
    driver.finish(over)
    checkpoints = tmp_path / "trials" / over / "checkpoints"
    (checkpoints / "step-000030" / "adapter_model.safetensors").write_bytes(b"cut")
    for name in (over, running):
        for step in (20, 30):
            driver.record.trials[name].forget(step)
    [found] = found_checkpoints(driver.record, tmp_path)  # of the other the trial makes it anew
    assert (found.trial, found.step) == (over, 20)
    path = checkpoints / "step-000020"
    assert found.bytes == sum(f.stat().st_size for f in path.rglob("*") if f.is_file())
    assert found.digest == verify_checkpoint(path).digest
    driver.append(found)
    assert found_checkpoints(driver.record, tmp_path) == []


def test_a_collected_checkpoint_is_not_found_again(tmp_path: Path) -> None:
    driver = Driver(tmp_path, keep=None)
    name = driver.suggest()
    driver.report(name, 10, 1.0)
    driver.finish(name)
    driver.append(CollectEvent(name, 10, "checkpoint"))
    assert found_checkpoints(driver.record, tmp_path) == []


def test_what_the_disk_lost_is_told_to_the_record(tmp_path: Path) -> None:
    driver = Driver(tmp_path, keep=None)
    name = driver.suggest()
    for step in (10, 20, 30):
        driver.report(name, step, 1.0)
    checkpoints = tmp_path / "trials/000/checkpoints"
    collector.remove_checkpoint(checkpoints / "step-000010")
    collector.drop_trainer_state(checkpoints / "step-000020")
    found = lost_checkpoints(driver.record, tmp_path)
    assert found == [
        LostEvent(name, 10, "missing"),
        CollectEvent(name, 20, "trainer", found[1].bytes),  # type: ignore[union-attr]
    ]
    for event in found:
        driver.append(event)
    assert on_disk(tmp_path) == recorded(driver.record)


def test_nothing_outside_of_the_sweeps_trials_is_deleted(tmp_path: Path) -> None:
    """Whoever wrote the journal."""
    outside = tmp_path / "outside" / "step-000010"
    outside.mkdir(parents=True)
    (tmp_path / "sweep").mkdir()
    driver = Driver(tmp_path / "sweep")
    name = driver.suggest()
    (tmp_path / "sweep" / "trials").mkdir()
    (tmp_path / "sweep" / "trials" / "link").symlink_to(tmp_path / "outside")
    for step, path in ((10, "../outside/step-000010"), (20, "trials/link/step-000010")):
        driver.append(ReportEvent(name, step, {"eval/reward": 0.0}))
        driver.append(CheckpointEvent(name, step, path, 1))
    driver.append(FinishEvent(name, TrialState.FAILED, 20, 1.0))
    driver.append(SuggestEvent("001", 1, {}, "sampler"))
    driver.report("001", 10, 1.0)
    driver.collect()
    assert outside.is_dir()
    assert len(driver.said) == 2
    assert "lies outside of the sweep's trials" in driver.said[0]


def test_a_damaged_checkpoint_can_be_collected(tmp_path: Path) -> None:
    driver = Driver(tmp_path)
    name = driver.suggest()
    driver.report(name, 10, 1.0)
    path = tmp_path / "trials/000/checkpoints/step-000010"
    (path / "manifest.json").write_text("{", encoding="utf-8")
    driver.finish(name)
    driver.collect()
    assert not (path / "trainer").exists()
    with pytest.raises(CheckpointError, match="damaged"):
        verify_checkpoint(path)
    assert sweep_leftovers(driver.record, tmp_path) == []
