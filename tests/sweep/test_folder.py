"""A folder is free while no event of its sweep is on disk, and holds nothing that is not ours."""

from __future__ import annotations

from pathlib import Path

import pytest

from easyds_tune.sweep.folder import never_began


@pytest.mark.parametrize("journal", [None, b"", b'{"crc":"bc67'])
def test_what_a_driver_left_before_its_first_event_is_free(
    tmp_path: Path, journal: bytes | None
) -> None:
    for name in ("lock", "spec.yaml", ".spec.resolved.json.unfinished"):
        (tmp_path / name).touch()
    if journal is not None:
        (tmp_path / "journal.jsonl").write_bytes(journal)
    assert never_began(tmp_path)


def test_an_event_or_anything_else_makes_it_somebodys(tmp_path: Path) -> None:
    begun, used, linked = (tmp_path / name for name in ("begun", "used", "linked"))
    begun.mkdir()
    (begun / "journal.jsonl").write_bytes(b'{"crc":"bc672277","seq":0}\n')
    assert not never_began(begun)
    used.mkdir()
    (used / "trials").mkdir()
    assert not never_began(used)
    used.joinpath("trials").rmdir()
    assert never_began(used)
    linked.symlink_to(used)
    assert not never_began(linked)
    assert not never_began(tmp_path / "nowhere")
