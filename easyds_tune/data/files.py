"""From a file or a `datasets` name to rows of columns, each with where it stands.

Text is decoded strictly: a wrong character is worse than an error.
"""

from __future__ import annotations

import difflib
import json
import os
from collections import Counter
from pathlib import Path
from typing import Any

from easyds_tune.data.columns import Row, named
from easyds_tune.data.packed import parquet_rows, unpacked
from easyds_tune.data.sets import read_set
from easyds_tune.data.tables import csv_rows
from easyds_tune.errors import DataError
from easyds_tune.spec.data import DataSource

TEXT_SUFFIXES = (".jsonl", ".json", ".csv", ".tsv")
SUFFIXES = (*TEXT_SUFFIXES, ".parquet")


def locate(path: str, folder: Path | None = None) -> Path:
    """`path` itself if absolute, else under `folder` (default: the working directory)."""
    return (folder or Path.cwd()) / os.path.expanduser(path)


def read_rows(source: DataSource, folder: Path | None = None) -> list[Row]:
    """All rows of one source, columns renamed.

    Raises DataError with every problem of the source: file, line or record, rule, remedy.
    """
    path = locate(source.path, folder)
    try:
        rows = _read_file(path, source) if path.is_file() else _read_other(path, source)
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
            f"(or that with .gz), got {suffix or 'no ending'!r}; rename it "
            'if it is one of them, or write each record on a line of a .jsonl, {"text": "…"}'
        )
    if source.delimiter is not None and suffix not in (".csv", ".tsv"):
        problems.append(f"{source.path}: `delimiter` belongs to .csv and .tsv files; remove it")
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
        return csv_rows(text, path.name, "\t" if suffix == ".tsv" else ",", source.delimiter)
    return _json_rows(text, path.name)


def _read_other(path: Path, source: DataSource) -> list[Row]:
    """The rows of what is no file here: a folder, or a name for `datasets`."""
    problems = [
        f"{source.path}: `{key}` belongs to files, and this is a set of `datasets`; remove it"
        for key, unused in (
            ("delimiter", source.delimiter is None),
            ("encoding", source.encoding == "auto"),
        )
        if not unused
    ]
    if path.name.lower().endswith((*SUFFIXES, ".gz")):
        what = "is no file" if os.path.lexists(path) else "no such file"
        problems = [
            f"{source.path}: {what} (looked for {path}){_similar(path)}; correct `path`, or "
            "create it"
        ]
    if problems:
        raise DataError(problems)
    return read_set(source, path, _similar(path))


def _similar(path: Path) -> str:
    """The names in the same folder that a mistyped one may mean."""
    try:
        names = os.listdir(path.parent)
    except (OSError, ValueError):
        return ""
    close = difflib.get_close_matches(path.name, names, n=1)
    return f"; did you mean {close[0]}?" if close else ""


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
            rows.append(Row(f"{name}:{number}", _object(_parsed(line))))
        except (ValueError, RecursionError) as error:
            if not rows and not problems and (whole := _single_object(text)) is not None:
                return [Row(f"{name} record 1", whole)]
            problems.append(f"{name}:{number}: broken JSON line: {_json_error(error)}")
    if problems:
        raise DataError(problems)
    return rows


def _json_list(text: str, name: str) -> list[Row]:
    try:
        items = _parsed(text)
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
        return _object(_parsed(text))
    except (ValueError, RecursionError):
        return None


def _parsed(text: str) -> Any:
    return json.loads(text, object_pairs_hook=_without_repeats)


def _without_repeats(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """An object whose keys are all different; json itself keeps the last of each in silence."""
    found = dict(pairs)
    if len(found) < len(pairs):
        twice = Counter(key for key, _ in pairs).most_common(1)[0][0]
        raise ValueError(f"an object names {twice!r:.80} twice; rename one")
    return found


def _object(value: object) -> dict[str, object]:
    if not isinstance(value, dict):
        raise ValueError(f"a record must be a JSON object, got {type(value).__name__}")
    return value


def _json_error(error: Exception) -> str:
    if isinstance(error, json.JSONDecodeError):
        return f"{error.msg} at column {error.colno}"
    return str(error)


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
