from __future__ import annotations

import io
from typing import Any

from rich.console import Console

from easyds_tune.journal.events import FinalEvent, NoteEvent
from easyds_tune.results.status import status_view


def text(record: Any, now: float) -> str:
    stream = io.StringIO()
    Console(file=stream, width=120).print(status_view(record, now))
    return stream.getvalue()


def test_a_running_sweep_says_how_long_ago_it_was_heard_of(demo_sweep: Any) -> None:
    record = demo_sweep.record()
    shown = text(record, record.updated + 125).splitlines()
    assert shown[0].startswith("试验 · dpo · eval/reward max · 5/8 trials · 1 RUNNING")
    assert shown[1] == "Not finished: begun 2 min 38 s ago, last event 2 min 05 s ago."
    assert shown[2] == "trial 004 FAILED: ValueError: 学习率太高"
    assert shown[3].split()[:2] == ["#", "trial"]


def test_a_finished_sweep_gives_its_exit_code(demo_sweep: Any) -> None:
    demo_sweep.events += [NoteEvent("磁盘快满了"), FinalEvent("001", 20, 0)]
    record = demo_sweep.record()
    shown = text(record, record.updated + 8)
    assert "Finished 8 s ago with exit code 0, after 35 s." in shown
    assert "note: 磁盘快满了" in shown


def test_a_torn_journal_is_said_aloud(demo_sweep: Any) -> None:
    record = demo_sweep.record()
    record.torn_bytes = 10
    assert "last 10 bytes of the journal" in text(record, record.updated)
