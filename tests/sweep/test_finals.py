"""Finals on a real Ray: one event a finalist, a note for one that cannot be judged."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from easyds_tune.journal.events import FinalistEvent, NoteEvent
from easyds_tune.journal.replay import SweepRecord
from easyds_tune.sweep.actor import SweepSetting
from easyds_tune.sweep.cluster import local_ray
from easyds_tune.sweep.finals import run_finals
from easyds_tune.trial.records import records_of
from easyds_tune.trial.rejudge import rejudge
from easyds_tune.trial.run import run_trial
from tests.results.judged import JudgedSweep
from tests.trial.small import Lab, sweep_spec

pytestmark = pytest.mark.timeout(180)


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory) -> tuple[Lab, SweepSetting, SweepRecord]:
    """Three trained trials of a sweep; of 001 the newest checkpoint is damaged, of 002 it fits no
    base."""
    folder = tmp_path_factory.mktemp("sweep")
    spec = sweep_spec(
        "dpo",
        finals={"num_prompts": 6},
        training={"max_steps": 2, "eval_steps": 1},
        resources={"gpus_per_trial": 0, "max_concurrent": 2},
    )
    lab = Lab(spec, folder)
    lab.records = records_of(spec)
    lab.bench = lab.fresh_bench()
    sweep = JudgedSweep()
    for number in range(3):
        reports = list(run_trial(lab.trial(), lab.bench, folder / "trials" / f"{number:03d}"))
        sweep.trial({report.step: report.metrics for report in reports}, params={})
    damaged = folder / "trials" / "001" / "checkpoints" / "step-000002"
    (damaged / "adapter_model.safetensors").write_bytes(b"")
    _rewrite(folder / "trials" / "002" / "checkpoints" / "step-000001", '"r": 4', '"r": 5')
    setting = SweepSetting(
        spec=spec, train_records=40, working_folder=str(folder), folder=str(folder),
        scratch=str(tmp_path_factory.mktemp("scratch")), hashes=lab.records.hashes, gpus=0.0,
        threads=1,
    )  # fmt: skip
    return lab, setting, sweep.record


@pytest.fixture(scope="module")
def slots(swept: tuple[Lab, SweepSetting, SweepRecord]) -> Iterator[None]:
    with local_ray(swept[1].spec.resources):
        yield


def test_every_finalist_is_judged_alike_and_a_broken_one_is_a_note(
    swept: tuple[Lab, SweepSetting, SweepRecord], slots: None
) -> None:
    lab, setting, record = swept
    finalists = [("001", 2), ("000", 1), ("002", 1), ("000", 2), ("000", 1), ("001", 1)]
    events = list(run_finals(setting, record, finalists))
    notes = [event.text for event in events if isinstance(event, NoteEvent)]
    assert len(notes) == 2
    assert any(
        note.startswith("finals: trial 001 at step 2 could not be judged: ")
        and "is not as it was written" in note
        for note in notes
    )
    assert any("002 at step 1" in note and "does not fit its base" in note for note in notes)

    judged = {(e.trial, e.step): e for e in events if isinstance(e, FinalistEvent)}
    assert judged.keys() == {("000", 1), ("000", 2), ("001", 1)}
    found = judged["000", 2]
    assert found.checkpoint == "trials/000/checkpoints/step-000002"
    here = rejudge(lab.bench, lab.trial(), Path(setting.folder) / found.checkpoint)
    assert (found.values, found.weights) == (here.values, here.weights)
    # The trials were alike, so their finals are.
    assert judged["001", 1].values == judged["000", 1].values != found.values


def test_what_is_in_the_journal_is_not_judged_again(
    swept: tuple[Lab, SweepSetting, SweepRecord], slots: None
) -> None:
    _, setting, record = swept
    record.finalists.append(FinalistEvent("000", 1, "", {"eval/reward": [1.0] * 6}))
    try:
        assert list(run_finals(setting, record, [("000", 1)])) == []
    finally:
        record.finalists.clear()


def test_finals_end_when_they_are_told_to(
    swept: tuple[Lab, SweepSetting, SweepRecord], slots: None
) -> None:
    def stop() -> None:
        raise KeyboardInterrupt

    _, setting, record = swept
    with pytest.raises(KeyboardInterrupt):
        list(run_finals(setting, record, [("000", 1), ("000", 2)], stop))


def test_without_records_of_their_own_there_are_no_finals(
    swept: tuple[Lab, SweepSetting, SweepRecord],
) -> None:
    _, setting, record = swept
    hashes = {"train": setting.hashes["train"]}
    without = SweepSetting(**{**vars(setting), "hashes": hashes})
    assert list(run_finals(without, record, [("000", 1)])) == []


def _rewrite(checkpoint: Path, old: str, new: str) -> None:
    """Change an adapter's configuration, and let the manifest say that it was always so."""
    config, manifest = checkpoint / "adapter_config.json", checkpoint / "manifest.json"
    config.write_text(config.read_text().replace(old, new))
    content = json.loads(manifest.read_text())
    digest = hashlib.sha256(config.read_bytes()).hexdigest()
    content["files"][config.name] = {"sha256": digest, "bytes": config.stat().st_size}
    manifest.write_text(json.dumps(content))
