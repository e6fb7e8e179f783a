"""From a file or a `datasets` name to rows of columns, each with where it stands.

Text is decoded strictly: a wrong character is worse than an error.
"""

from __future__ import annotations

import csv
import io
import json
import os
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from easyds_tune.data.columns import named
from easyds_tune.data.packed import first_line, parquet_rows, unpacked
from easyds_tune.errors import DataError
from easyds_tune.spec.data import DataSource

TEXT_SUFFIXES = (".jsonl", ".json", ".csv", ".tsv")
SUFFIXES = (*TEXT_SUFFIXES, ".parquet")


class Row(NamedTuple):
    """One raw record: where it stands (`train.jsonl:17`) and its columns."""

    where: str
    columns: dict[str, object]


def locate(path: str, folder: Path | None = None) -> Path:
    """`path` itself if absolute, else under `folder` (default: the working directory)."""
    return (folder or Path.cwd()) / os.path.expanduser(path)


def read_rows(source: DataSource, folder: Path | None = None) -> list[Row]:
    """All rows of one source, columns renamed.

    Raises DataError with every problem of the source: file, line or record, rule, remedy.
    """
    path = locate(source.path, folder)
    try:
        rows = _read_file(path, source) if path.is_file() else _read_datasets(source, path)
    except OSError as error:
        raise DataError([f"{source.path}: cannot be read: {error.strerror or error}"]) from error
    if not rows:
        raise DataError([f"{source.path}: holds no records; give a file with at least one"])
    return _rename(rows, source) if source.columns else rows


def decode(data: bytes, encoding: str, name: str) -> str:
    """Bytes as text: UTF-8 with or without BOM, else GB18030; or strictly the named encoding.

    Bytes that merely happen to decode are refused: UTF-8 with a few broken bytes, and GB18030
    whose characters are mostly outside of GB2312 (that is some other encoding).
    """
    if encoding != "auto":
        try:
            text = data.decode(encoding)
        except (UnicodeError, LookupError) as error:
            raise _undecodable(name, [encoding], error) from error
        return text.removeprefix("\ufeff")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        as_utf8 = data.decode("utf-8", errors="replace")
        broken = as_utf8.count("\ufffd")
        if sum(char > "\x7f" for char in as_utf8) > 2 * broken:
            raise _undecodable(name, ["utf-8"], error) from error
        utf8_error = error
    try:
        text = data.decode("gb18030")
    except UnicodeDecodeError as error:
        raise _undecodable(name, ["utf-8", "gb18030"], utf8_error) from error
    foreign = [char for char in text if char > "\x7f"]
    familiar = len("".join(foreign).encode("gb2312", errors="ignore")) // 2
    if familiar < 0.9 * len(foreign):
        raise _undecodable(name, ["utf-8", "gb18030"], utf8_error)
    return text


def _undecodable(name: str, tried: list[str], error: Exception) -> DataError:
    offset = f" at byte {error.start}" if isinstance(error, UnicodeDecodeError) else ""
    return DataError(
        [
            f"{name}: is not text in {' or '.join(tried)} (wrong bytes{offset}); "
            "repair it, or name its encoding with `encoding:`"
        ]
    )


def _read_file(path: Path, source: DataSource) -> list[Row]:
    problems = [
        f"{source.path}: `{key}` belongs to `datasets` names, and this is a file; remove it"
        for key, value in (("config", source.config), ("split", source.split))
        if value is not None
    ]
    packed = path.suffix.lower() == ".gz"
    suffix = Path(path.stem).suffix.lower() if packed else path.suffix.lower()
    if suffix not in SUFFIXES:
        problems.append(
            f"{source.path}: the name must end in one of {', '.join(SUFFIXES)} "
            f"(or that with .gz), got {suffix or 'no ending'!r}; rename it"
        )
    if problems:
        raise DataError(problems)
    data = path.read_bytes()
    if packed:
        data = unpacked(data, source.path)
    if suffix == ".parquet":
        items = parquet_rows(data, path.name)
        return [Row(f"{path.name} record {n}", item) for n, item in enumerate(items, start=1)]
    text = decode(data, source.encoding, source.path)
    if suffix in (".csv", ".tsv"):
        return _csv_rows(text, path.name, "\t" if suffix == ".tsv" else ",")
    return _json_rows(text, path.name)


def _json_rows(text: str, name: str) -> list[Row]:
    """A JSON list of objects, or JSON Lines: many a .json file is really the latter."""
    if text.lstrip().startswith("["):
        return _json_list(text, name)
    rows: list[Row] = []
    problems: list[str] = []
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            rows.append(Row(f"{name}:{number}", _object(json.loads(line))))
        except (ValueError, RecursionError) as error:
            if not rows and not problems and (whole := _single_object(text)) is not None:
                return [Row(f"{name} record 1", whole)]
            problems.append(f"{name}:{number}: broken JSON line: {_json_error(error)}")
    if problems:
        raise DataError(problems)
    return rows


def _json_list(text: str, name: str) -> list[Row]:
    try:
        items = json.loads(text)
    except (ValueError, RecursionError) as error:
        line = f":{error.lineno}" if isinstance(error, json.JSONDecodeError) else ""
        raise DataError([f"{name}{line}: broken JSON: {_json_error(error)}"]) from error
    rows: list[Row] = []
    problems: list[str] = []
    for number, item in enumerate(items, start=1):
        where = f"{name} record {number}"
        try:
            rows.append(Row(where, _object(item)))
        except ValueError as error:
            problems.append(f"{where}: {error}")
    if problems:
        raise DataError(problems)
    return rows


def _single_object(text: str) -> dict[str, object] | None:
    """The one object that a pretty-printed file may be, spread over many lines."""
    try:
        return _object(json.loads(text))
    except (ValueError, RecursionError):
        return None


def _object(value: object) -> dict[str, object]:
    if not isinstance(value, dict):
        raise ValueError(f"a record must be a JSON object, got {type(value).__name__}")
    return value


def _json_error(error: Exception) -> str:
    if isinstance(error, json.JSONDecodeError):
        return f"{error.msg} at column {error.colno}"
    return str(error)


def _csv_rows(text: str, name: str, delimiter: str) -> list[Row]:
    rows: list[Row] = []
    problems: list[str] = []
    header: list[str] | None = None
    for line, fields in _csv_records(text, delimiter, name, problems):
        if not fields:
            continue
        if header is None:
            header = fields
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


def _read_datasets(source: DataSource, path: Path) -> list[Row]:
    if path.name.lower().endswith((*SUFFIXES, ".gz")):
        what = "is no file" if os.path.lexists(path) else "no such file"
        raise DataError(
            [f"{source.path}: {what} (looked for {path}); correct `path`, or create it"]
        )
    import datasets

    split = source.split or "train"
    name = str(path) if path.is_dir() else source.path
    try:
        with _no_progress_bars():
            items = datasets.load_dataset(name, source.config, split=split).to_list()
    # Hub, network, builder and Arrow all raise classes of their own here.
    except Exception as error:
        # "An error occurred while generating the dataset" says nothing; its cause does.
        reasons = [error] if error.__cause__ is None else [error, error.__cause__]
        reason = ", because of ".join(f"{type(one).__name__}: {first_line(one)}" for one in reasons)
        raise DataError(
            [
                f"{source.path}: neither a file here ({path}) nor a set that `datasets` can load "
                f"with config {source.config!r} and split {split!r}: {reason}"
            ]
        ) from error
    return [Row(f"{source.path}[{split}] record {n}", item) for n, item in enumerate(items, 1)]


@contextmanager
def _no_progress_bars() -> Iterator[None]:
    from datasets.utils import (
        are_progress_bars_disabled,
        disable_progress_bars,
        enable_progress_bars,
    )

    were_off = are_progress_bars_disabled()
    disable_progress_bars()
    try:
        yield
    finally:
        if not were_off:
            enable_progress_bars()


def _rename(rows: list[Row], source: DataSource) -> list[Row]:
    present = list(dict.fromkeys(key for row in rows for key in row.columns))
    problems = [
        f"{source.path}: `columns` renames {old!r}, and the columns are {named(present)}; "
        "correct the name"
        for old in source.columns
        if old not in present
    ]
    problems += [
        f"{source.path}: `columns` renames {old!r} to {new!r}, a column the file already has; "
        "rename that one too"
        for old, new in source.columns.items()
        if new != old and new in present and new not in source.columns
    ]
    if problems:
        raise DataError(problems)
    return [
        Row(where, {source.columns.get(key, key): value for key, value in columns.items()})
        for where, columns in rows
    ]
