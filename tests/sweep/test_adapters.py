"""Ray Tune's side of the decider, where no whole sweep comes by; whole ones are in integration."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from ray.tune.search import Searcher

from easyds_tune.decisions.decider import Decider
from easyds_tune.errors import SpecError
from easyds_tune.journal.events import Objective, StopEvent, SweepEvent, TrialState
from easyds_tune.journal.replay import SweepRecord
from easyds_tune.journal.writer import JournalWriter
from easyds_tune.results.derived import Boards
from easyds_tune.sweep.adapters import DecidingSearcher
from easyds_tune.sweep.recorder import Recorder
from tests.decisions.racing import rules


class Unseen:
    """A display that nobody looks at."""

    def update(self, record: SweepRecord) -> None:
        pass


@pytest.fixture
def recorder(tmp_path: Path) -> Iterator[Recorder]:
    begin = SweepEvent("small", "dpo", Objective("eval/reward", "max"), 3, 30, 0.0, {})
    journal, first = JournalWriter.create(tmp_path / "journal.jsonl", begin)
    with journal:
        record = SweepRecord.begin(first)
        boards = Boards(tmp_path, record, print)
        yield Recorder(journal, record, tmp_path, boards, Unseen())
        boards.close()


def searcher(recorder: Recorder, slots: int, space_file: Any = None) -> DecidingSearcher:
    def suggest(number: int, record: SweepRecord) -> Mapping[str, Any] | None:
        return space_file() if space_file else {"x": float(number)}

    decider = Decider(rules(slots=slots, scheduler="none"), recorder.record, suggest, {"x": 0.0})
    return DecidingSearcher(decider, recorder)


def test_a_trial_is_proposed_only_while_a_slot_is_free(recorder: Recorder) -> None:
    """Tune asks ahead, and a proposal made too early knows too little."""
    search = searcher(recorder, slots=2)
    new = {"seed": None, "checkpoints": {}, "halvings": 0}
    assert search.suggest("a") == {"trial": "000", "params": {"x": 0.0}} | new
    assert search.suggest("b") == {"trial": "001", "params": {"x": 1.0}} | new
    assert search.suggest("c") is None


def test_a_space_file_that_raises_ends_the_search_and_not_the_sweep(recorder: Recorder) -> None:
    def broken() -> Mapping[str, Any]:
        raise SpecError(["space.py:3: division by zero"])

    search = searcher(recorder, slots=2, space_file=broken)
    search.suggest("a")
    assert search.suggest("b") is None
    assert recorder.record.stopped == (
        "no configuration could be proposed: space.py:3: division by zero"
    )
    recorder.finish("000", TrialState.COMPLETED)
    assert search.suggest("c") == Searcher.FINISHED


def test_a_full_disk_holds_back_what_would_begin_and_nothing_else(
    recorder: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []
    monkeypatch.setattr(recorder, "has_room", lambda: bool(asked.append(1)))
    search = searcher(recorder, slots=1)
    assert search.suggest("a") is None
    assert len(asked) == 1
    monkeypatch.undo()
    assert search.suggest("a")
    monkeypatch.setattr(recorder, "has_room", lambda: bool(asked.append(1)))
    assert search.suggest("b") is None  # Tune asks ahead; what would it need room for?
    recorder.finish("000", TrialState.COMPLETED)
    assert search.suggest("b") is None
    assert len(asked) == 2
    recorder.append(StopEvent("enough"))
    assert search.suggest("c") == Searcher.FINISHED  # the end of a search needs no room
