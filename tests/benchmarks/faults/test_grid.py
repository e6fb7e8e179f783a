"""The grid says what ran, what passed, and what failed of ours."""

from __future__ import annotations

from tests.benchmarks.faults.grid import console, markdown
from tests.benchmarks.faults.rows import ROWS
from tests.benchmarks.faults.run import Seen

SEEN = [
    Seen(1, "ours", 0, True, "the same decisions", 4.25, 60.0),
    Seen(1, "ours", 1, False, "trial 003\nis lost", 5.0, 60.0),
    Seen(1, "ray", 0, False, "rungs [0, 0, 1]", None, 30.0),
    Seen(7, "ours", 0, True, "exit 130", None, 20.0),
]


def test_all_faults_are_there_once() -> None:
    assert [row.number for row in ROWS] == list(range(1, 23))
    assert {row.number for row in ROWS if row.seeds >= 3} == {1, 2, 3, 9, 10, 17, 18}


def test_the_console_counts_passes_and_names_failures() -> None:
    _, first, second, *failed = console(SEEN).splitlines()
    assert first.split()[-8:] == ["1", "of", "2", "4.2,", "5.0", "0", "of", "1"]
    assert second.split()[-5:] == ["1", "of", "1", "-", "-"]
    assert failed == ["FAIL row 1 seed 1: trial 003 is lost"]


def test_the_page_has_one_line_a_fault() -> None:
    lines = markdown(SEEN).splitlines()
    assert len(lines) == 4
    assert "the same decisions<br>trial 003 is lost" in lines[2]
    assert lines[3].endswith("| - | - |")
