"""What a dead worker wrote to standard error says why it died."""

from __future__ import annotations

from pathlib import Path

from easyds_tune.sweep.last_words import last_words_in, words_of

CRASH = """:job_id:01000000
:actor_name:TrialActor
libthing.so: undefined symbol: thing_open
*** SIGABRT received at time=1 on cpu 0 ***
Fatal Python error: Aborted

Stack (most recent call first):
  File "<frozen importlib._bootstrap>", line 241 in _call_with_frames_removed
  File "worker.py", line 3 in setup
Extension modules: a, b, c (total: 3)
"""


def test_a_crash_is_told_by_its_signal_and_the_line_before_it() -> None:
    words = words_of(CRASH)
    assert words is not None
    assert words.reason == "libthing.so: undefined symbol: thing_open; Fatal Python error: Aborted"
    assert words.text.splitlines()[-1] == '  File "worker.py", line 3 in setup'
    assert "importlib" not in words.text


def test_without_a_crash_the_last_line_says_why() -> None:
    words = words_of(":job_id:1\nTraceback:\n  line\nRuntimeError: no such device\n")
    assert words is not None
    assert words.reason == "RuntimeError: no such device"
    assert words_of(":job_id:1\n:actor_name:x\n") is None


def test_the_log_of_the_worker_is_found_by_its_process_number(tmp_path: Path) -> None:
    for pid in (7, 17):
        (tmp_path / f"worker-a1-ffff-{pid}.err").write_text(f"of {pid}\n", encoding="utf-8")
    words = last_words_in(tmp_path, 7)
    assert words is not None
    assert words.reason == "of 7"
    assert last_words_in(tmp_path, 1) is None
    assert last_words_in(tmp_path / "missing", 7) is None
