"""One sweep through the commonest faults: a killed worker, a second run, a killed driver, a torn
journal. All 22 of them: `make faults`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from easyds_tune.journal.events import ReportEvent, TrialState
from easyds_tune.journal.replay import SweepRecord
from tests.benchmarks.faults import our_side as our
from tests.benchmarks.faults.place import Place, Running, place_in
from tests.benchmarks.faults.replays import replay_problem

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

TORN_BYTES = 40


@dataclass
class Survivor:
    """A sweep that got through, and what its commands said."""

    place: Place
    refused: Running
    before: SweepRecord
    resumed: Running

    @property
    def record(self) -> SweepRecord:
        return our.record(self.place)


@pytest.fixture(scope="module")
def survivor(tmp_path_factory: pytest.TempPathFactory) -> Survivor:
    with place_in(tmp_path_factory.mktemp("faults") / "place") as place:
        spec = our.write_spec(place, search__num_trials=4)
        first = our.sweep(place, spec, faults=[{"kind": "sigkill", "step": 3, "times": 1}])
        first.wait_for(lambda: our.count(place, "report") >= 1, our.SECONDS, "a report")
        refused = our.resume(place)
        refused.wait(our.SECONDS)
        first.wait_for(lambda: our.count(place, "report") >= 4, our.SECONDS, "reports")
        first.kill()
        before = our.record(place)
        with our.journal_of(place).open("ab") as journal:
            journal.write(b'{"crc":"00000000","seq":99,"time":1.0,"event":"report"'[:TORN_BYTES])
        resumed = our.resume(place)
        our.finish(resumed)
        assert not resumed.others()
        return Survivor(place, refused, before, resumed)


def test_a_second_run_is_refused(survivor: Survivor) -> None:
    assert survivor.refused.process.returncode == 2, survivor.refused.text


def test_a_killed_worker_is_replaced_and_its_trial_goes_on(survivor: Survivor) -> None:
    failed = [trial for trial in survivor.record.trials.values() if trial.failures]
    assert [len(trial.failures) for trial in failed] == [1]
    assert failed[0].failures[0].error.type == "WorkerDied"
    assert failed[0].state is TrialState.COMPLETED
    assert failed[0].step == 6


def test_a_torn_line_is_cut_and_said(survivor: Survivor) -> None:
    said = [note for note in survivor.record.notes if "torn" in note]
    assert len(said) == 1
    assert str(TORN_BYTES) in said[0]


def test_nothing_is_lost_and_nothing_told_twice(survivor: Survivor) -> None:
    found = our.entries(survivor.place)
    assert our.repeated(found) == []
    reports = [entry.event for entry in found if isinstance(entry.event, ReportEvent)]
    for name, trial in survivor.before.trials.items():
        for report in trial.reports:
            assert ReportEvent(name, report.step, report.metrics) in reports
    assert all(trial.state.is_final for trial in survivor.record.trials.values())


def test_every_decision_replays(survivor: Survivor) -> None:
    assert replay_problem(survivor.place, our.NAME) == ""


def test_no_folder_is_left_over(survivor: Survivor) -> None:
    assert our.orphans(survivor.place) == []


def test_a_place_ends_what_it_started(tmp_path: Path) -> None:
    with place_in(tmp_path / "place") as place:
        sleeper = place.start("-c", "import subprocess; subprocess.run(['sleep', '600'])")
        sleeper.wait_for(lambda: sleeper.others("sleep"), 20, "the child")
    assert not sleeper.others()
    assert sleeper.process.poll() is not None
