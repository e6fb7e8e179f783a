"""Write the table of ../shared/data: how each file is read, or why it is refused. No texts of it.

python -m tests.benchmarks.shared_data ../shared/data > results/evidence/shared-data.md
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from easyds_tune.data.read import read
from easyds_tune.errors import DataError
from easyds_tune.spec.data import DataSource
from tests.data.shared_files import READ, REFUSED, Refused, SharedFile

HEAD = """# How the files of ../shared/data are read

Written by `python -m tests.benchmarks.shared_data ../shared/data`; `tests/data/test_shared_data.py`
holds these counts. `columns` marked with * are those that the refusal of the file tells to write.

| file | as | with | records | left out | notes |
|---|---|---|---|---|---|"""
REFUSED_HEAD = """
## Refused

| file | as | what is said |
|---|---|---|"""


def row_of_read(file: SharedFile, folder: Path) -> str:
    """One line of the table of files that are read."""
    report = read(DataSource(path=str(folder / file.path), **file.source), file.kind)
    left_out = "; ".join(f"{count} × {reason}" for reason, count in report.dropped.items())
    written = json.dumps(file.source.get("columns"), ensure_ascii=False) if file.source else ""
    cells = (
        file.path,
        file.kind,
        f"`columns: {written}`{' *' * file.told}" if written else "as it is",
        str(len(report.records)),
        left_out or "–",
        "; ".join(report.notes) or "–",
    )
    return f"| {' | '.join(cells)} |"


def row_of_refused(file: Refused, folder: Path) -> str:
    """One line of the table of files that are refused."""
    try:
        read(DataSource(path=str(folder / file.path)), file.kind)
    except DataError as error:
        said = error.problems[0].removeprefix(f"{folder / file.path}: ")
        return f"| {file.path} | {file.kind} | {said} |"
    raise SystemExit(f"{file.path} is read")


def main() -> None:
    """Print the table for the folder that the command line names."""
    folder = Path(sys.argv[1]).resolve()
    print(HEAD)
    for file in READ:
        print(row_of_read(file, folder))
    print(REFUSED_HEAD)
    for refused in REFUSED:
        print(row_of_refused(refused, folder))


if __name__ == "__main__":
    main()
