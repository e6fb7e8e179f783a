"""CSV text to rows, each with the line it begins on."""

from __future__ import annotations

import csv
import io
import json
from collections import Counter
from collections.abc import Iterator

from easyds_tune.data.columns import Row
from easyds_tune.errors import DataError

DELIMITERS = (",", ";", "\t", "|")


def csv_rows(text: str, name: str, usual: str, delimiter: str | None = None) -> list[Row]:
    """The records below the header.

    Args:
        usual: The delimiter that the file's ending stands for.
        delimiter: The one that the spec names.
    Raises:
        DataError: Every row of another width, broken quotes, or a header in one piece.
    """
    rows: list[Row] = []
    problems: list[str] = []
    header: list[str] | None = None
    for line, fields in _csv_records(text, delimiter or usual, name, problems):
        if not fields:
            continue
        if header is None:
            header = fields
            if delimiter is None:
                _check_delimiter(header, f"{name}:{line}")
            twice, times = Counter(header).most_common(1)[0]
            if times > 1:
                raise DataError(
                    [f"{name}:{line}: the header names {twice!r:.80} twice; rename one"]
                )
        elif len(fields) != len(header):
            problems.append(
                f"{name}:{line}: has {len(fields)} fields where the header has {len(header)}; "
                "quote fields that hold commas or line breaks"
            )
        else:
            rows.append(Row(f"{name}:{line}", dict(zip(header, fields, strict=True))))
    if problems:
        raise DataError(problems)
    return rows


def _check_delimiter(header: list[str], where: str) -> None:
    """Refuse a header of one name that holds another delimiter."""
    found = [mark for mark in DELIMITERS if mark in header[0]]
    if len(header) == 1 and found:
        mark = max(found, key=header[0].count)
        raise DataError(
            [
                f"{where}: the header is one column, {header[0]!r:.80}; write "
                f"`delimiter: {json.dumps(mark)}` beside `path`"
            ]
        )


def _csv_records(
    text: str, delimiter: str, name: str, problems: list[str]
) -> Iterator[tuple[int, list[str]]]:
    """Records with the line they start on; a quoted field may span several lines."""
    # The default limit of 128 KiB a field is less than a long document.
    csv.field_size_limit(2**31 - 1)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    while True:
        line = reader.line_num + 1
        try:
            fields = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            problems.append(f"{name}:{line}: broken CSV: {error}; check the quotes")
            return
        yield line, fields
