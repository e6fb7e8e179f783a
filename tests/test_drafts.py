"""Drafts of dead processes are deleted, those of living ones are not."""

from __future__ import annotations

import os
import signal
from pathlib import Path

from easyds_tune.drafts import draft_folder, draft_of, remove_dead_drafts
from tests.sweep.children import child, line_of

CODE = """
import sys, time
from pathlib import Path
from easyds_tune.drafts import draft_folder, draft_of
path = Path(sys.argv[1])
(draft_folder(path) / "weights").write_bytes(b"half")
draft_of(path.with_name("best.json")).write_text("{")
print("written", flush=True)
time.sleep(600)
"""


def test_a_killed_process_leaves_drafts_that_the_next_one_deletes(tmp_path: Path) -> None:
    paths = [tmp_path / "model", tmp_path / "best.json"]
    other = tmp_path / ".model.backup.tmp"
    other.write_text("somebody's own", encoding="utf-8")
    with child(CODE, paths[0]) as process:
        assert line_of(process) == "written"
        left = {path for path in tmp_path.iterdir() if path != other}
        assert len(left) == 2
        for path in paths:
            remove_dead_drafts(path)
        assert all(path.exists() for path in left)  # it lives
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        for path in paths:
            remove_dead_drafts(path)
    assert list(tmp_path.iterdir()) == [other]


def test_a_process_number_used_again_is_another_process(tmp_path: Path) -> None:
    path = tmp_path / "best.json"
    own = draft_of(path)
    own.touch()
    head, _, _ = own.name.rpartition("-")
    earlier = tmp_path / f"{head}-1.tmp"
    earlier.touch()
    remove_dead_drafts(path)
    assert list(tmp_path.iterdir()) == [own]


def test_a_name_of_any_length_has_a_draft(tmp_path: Path) -> None:
    folder = draft_folder(tmp_path / ("模" * 80))
    assert folder.is_dir()
    folder.rmdir()
