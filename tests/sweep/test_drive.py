"""What a driver does once the search is over: judge rounds of finals, and write the end."""

from __future__ import annotations

import math
import os
import shutil
import signal
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from easyds_tune.journal.events import FinalEvent, FinalistEvent
from easyds_tune.journal.replay import SweepRecord
from easyds_tune.results import verified
from easyds_tune.results.derived import Boards
from easyds_tune.results.finals import find_best
from easyds_tune.results.load import load_sweep_record
from easyds_tune.spec.load import load_sweep
from easyds_tune.sweep.drive import Sweep, judge_finalists, write_end
from easyds_tune.sweep.preflight import CheckedRecords
from easyds_tune.sweep.recorder import Recorder
from easyds_tune.sweep.signals import Interrupted, Signals
from easyds_tune.trial.checkpoint import verify_checkpoint
from tests.integration.sweeps import spec_file
from tests.results.finished import FinishedSweep
from tests.sweep.test_recorder import Shown


class CuttingStage:
    """Judges by what the search reported; the first finalists' checkpoints go missing after that.

    lost: how many rounds lose theirs.
    """

    def __init__(self, folder: Path, lost: int) -> None:
        self.folder = folder
        self.lost = lost
        self.rounds: list[Sequence[tuple[str, int]]] = []

    def trainable(self) -> Any:
        raise NotImplementedError

    def judge(
        self,
        record: SweepRecord,
        finalists: Sequence[tuple[str, int]],
        tick: Callable[[], object],
    ) -> Iterator[FinalistEvent]:
        self.rounds.append(finalists)
        for trial, step in finalists:
            report = record.trials[trial].report_at(step)
            assert report is not None
            values = [report.metrics["eval/reward"] + 0.01 * math.sin(n) for n in range(32)]
            path = record.trials[trial].checkpoints[step]
            yield FinalistEvent(trial, step, path, {"eval/reward": values})
        for trial, step in finalists if len(self.rounds) <= self.lost else []:
            shutil.rmtree(self.folder / record.trials[trial].checkpoints[step])


def recorder_of(finished: FinishedSweep) -> Recorder:
    boards = Boards(finished.folder, finished.record, print)
    return Recorder(finished.journal, finished.record, finished.folder, boards, Shown())


def test_finalists_that_are_lost_while_judged_are_replaced_before_ray_ends(tmp_path: Path) -> None:
    folder = tmp_path / "small"
    folder.mkdir()
    finished = FinishedSweep(folder, [0.1, 0.2, 0.3, 0.4], finals=False)
    spec = load_sweep(str(spec_file(tmp_path, "small", finals={"top": 1})))
    records = CheckedRecords([], [], [], fitting=24, finals_held_out=[object()])  # type: ignore[list-item]
    stage = CuttingStage(folder, lost=1)
    with finished.journal:
        is_training = judge_finalists(
            Sweep(spec, records, [], folder), recorder_of(finished), stage
        )
    assert not is_training
    assert stage.rounds == [[("003", 40), ("000", 40)], [("002", 40)]]
    record = load_sweep_record(folder)
    assert [trial.id for trial in record.trials.values() if trial.lost] == ["000", "003"]
    best = find_best(record)
    assert best is not None
    assert (best.trial.id, best.finalist is not None) == ("002", True)


@pytest.mark.parametrize("signals_sent", [1, 2])
def test_a_signal_while_checkpoints_are_hashed_at_the_end_leaves_the_end_open(
    tmp_path: Path, signals_sent: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    finished = FinishedSweep(tmp_path, [0.1, 0.2, 0.3], finals=True)
    hashed = []

    def hash_under_signals(path: Path, **options: Any) -> object:
        hashed.append(path)
        for _ in range(signals_sent if len(hashed) == 1 else 0):
            os.kill(os.getpid(), signal.SIGTERM)
        return verify_checkpoint(path, **options)

    monkeypatch.setattr(verified, "verify_checkpoint", hash_under_signals)
    signals = Signals()
    with finished.journal, signals.heard():
        before = (tmp_path / "journal.jsonl").read_bytes()
        with pytest.raises(Interrupted) as caught:
            write_end(recorder_of(finished), tmp_path, signals)
        assert caught.value.signum == signal.SIGTERM
        assert len(hashed) == (3 if signals_sent == 1 else 1)
        assert (tmp_path / "journal.jsonl").read_bytes() == before


def test_the_end_names_who_takes_the_place_of_a_lost_winner(tmp_path: Path) -> None:
    finished = FinishedSweep(tmp_path, [0.1, 0.2, 0.3], finals=True)
    shutil.rmtree(tmp_path / "trials" / "002")
    with finished.journal:
        assert write_end(recorder_of(finished), tmp_path, Signals()) == 0
    assert finished.record.final == FinalEvent("001", 40, 0)
    assert finished.record.trials["002"].lost[40].problem == "missing"
