"""Whatever a file holds, reading it gives records or a DataError that says what is wrong."""

from __future__ import annotations

import csv
import gzip
import io
import json
import os
import zlib
from decimal import Decimal
from functools import lru_cache
from pathlib import Path
from typing import Any, get_args

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from easyds_tune.data.read import read
from easyds_tune.data.records import Kind
from easyds_tune.errors import DataError
from easyds_tune.spec.data import DataSource
from tests.data.rows import FIELDS, ROWS, VALUES
from tests.fuzz import FUZZ, HEAVY, assert_clear, bounded

pytestmark = pytest.mark.fuzz

KINDS = st.sampled_from(get_args(Kind))
ENDINGS = [".jsonl", ".json", ".csv", ".tsv", ".parquet"]
SUFFIXES = st.sampled_from([*ENDINGS, *(f"{ending}.gz" for ending in ENDINGS), ".GZ", ".txt", ""])
ENCODINGS = st.sampled_from(
    ["auto", "auto", "utf-8", "gb18030", "gbk", "utf-16", "utf-32-be", "utf-7", "latin-1", "cp437",
     "utf-8-sig", "hex", "rot13", "idna", "punycode", "undefined", "raw_unicode_escape", "big5"]
)  # fmt: skip
GOOD = [
    {"prompt": "栈是什么？", "completion": "后进先出。"},
    {"prompt": "q", "completion": "a"},
]
JUNK = st.one_of(
    st.binary(max_size=6),
    st.sampled_from(
        [b"\0", b"\xff\xfe", b"\xef\xbb\xbf", b"\r", b"\n", b'"', b"\xed\xa0\x80", b"{", b",",
         b"[" * 5000, b"9" * 5000, b"NaN", b"-Infinity", b"1e999", b'"\\ud800"', b'{"a":' * 990,
         b'{"messages":' + b"[" * 985 + b"]" * 985 + b"}", b"\x1f\x8b"]
    ),
)  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder whose files each case writes anew."""
    return tmp_path_factory.mktemp("fuzz")


def check(path: Path, kind: Kind, **settings: Any) -> None:
    """Read a file within the bounds of a case; records that are whole, or problems in words."""
    try:
        source = DataSource(path=str(path), **settings)
    except ValidationError:
        return  # the spec says so before any file is opened
    with bounded():
        try:
            report = read(source, kind)
        except DataError as error:
            assert_clear(error.problems)
            return
    assert report.records


def lines(rows: list[Any]) -> bytes:
    return "\n".join(json.dumps(row, ensure_ascii=False) for row in rows).encode(
        "utf-8", "surrogatepass"
    )


def table(rows: list[dict[str, Any]]) -> bytes:
    """The rows as CSV; fields that are no text are written as Python writes them."""
    stream = io.StringIO(newline="")
    names = list(dict.fromkeys(name for row in rows for name in row))
    writer = csv.DictWriter(stream, names)
    writer.writeheader()
    writer.writerows(rows)
    return stream.getvalue().encode("utf-8", "surrogatepass")


@st.composite
def damaged(draw: st.DrawFn, data: bytes) -> bytes:
    """Bytes cut short, or with some of them replaced."""
    for _ in range(draw(st.integers(0, 3))):
        start = draw(st.integers(0, len(data)))
        end = min(len(data), start + draw(st.integers(0, 8)))
        data = data[:start] + draw(JUNK) + data[end:]
    return data[: draw(st.integers(0, len(data)))] if draw(st.booleans()) else data


@FUZZ
@given(st.binary(max_size=200) | JUNK, SUFFIXES, KINDS, ENCODINGS)
def test_any_bytes(folder: Path, data: bytes, suffix: str, kind: Kind, encoding: str) -> None:
    path = folder / f"any{suffix or '.jsonl'}"
    path.write_bytes(data)
    check(path, kind, encoding=encoding)


@FUZZ
@given(st.data(), SUFFIXES, KINDS, ENCODINGS, st.booleans())
def test_a_damaged_text_file(
    folder: Path, data: st.DataObject, suffix: str, kind: Kind, encoding: str, pack: bool
) -> None:
    rows = data.draw(st.just(GOOD) | ROWS)
    text = data.draw(st.sampled_from([lines, table, lambda rows: json.dumps(rows).encode()]))(rows)
    written = data.draw(st.sampled_from(["utf-8", "utf-8", "gb18030", "utf-16", "utf-8-sig"]))
    text = text.decode("utf-8", "replace").encode(written, "replace")
    whole = gzip.compress(text) if pack else text
    path = folder / f"text{suffix or '.jsonl'}"
    path.write_bytes(data.draw(st.just(whole) | damaged(whole)))
    check(path, kind, encoding=encoding)


@FUZZ
@given(
    st.lists(VALUES, max_size=3),
    KINDS,
    st.dictionaries(FIELDS | st.text(max_size=3), FIELDS | st.text(max_size=3), max_size=2),
    st.sampled_from(["auto", "messages", "preference", "alpaca", "sharegpt", "hh", "cvalues"]),
)
def test_a_list_of_any_values(
    folder: Path, values: list[Any], kind: Kind, columns: dict[str, str], layout: str
) -> None:
    path = folder / "values.json"
    path.write_bytes(json.dumps(values).encode())
    check(path, kind, columns=columns, format=layout)


TYPES: dict[str, list[Any]] = {
    "string": ["q", None, "栈"],
    "large_string": ["q", "", "x" * 3000],
    "binary": [b"\xff", None, b"q"],
    "int64": [1, None, 2**62],
    "double": [float("nan"), float("inf"), None],
    "bool": [True, None, False],
    "date32": [0, 2**31 - 1, -(2**31)],
    "date64": [0, 10**18, -(10**18)],
    "timestamp[ns]": [0, 2**62, None],
    "timestamp[s]": [0, 2**62, -(2**62)],
    "duration[ns]": [1, 2**62, None],
    "time64[ns]": [0, 1, 10**15],
    "null": [None, None, None],
}
ZONES = st.sampled_from(["UTC", "Mars/Phobos", "+99:99", "", "\0", "Asia/Shanghai", "../x"])


@st.composite
def arrays(draw: st.DrawFn) -> pa.Array:
    """A column of three rows of some Arrow type, most of which no record can use."""
    kind = draw(st.sampled_from(["plain", "plain", "zoned", "nested", "decimal", "dictionary"]))
    name = draw(st.sampled_from(list(TYPES)))
    flat = pa.array(TYPES[name], pa.type_for_alias(name))
    if kind == "zoned":
        return pa.array([0, 2**61, None], pa.timestamp("us", tz=draw(ZONES)))
    if kind == "decimal":
        return pa.array([Decimal(1), None, Decimal(10) ** 30], pa.decimal256(76))
    if kind == "dictionary":
        return flat if name == "null" else flat.dictionary_encode()
    if kind == "nested":
        names = draw(st.sampled_from([["role", "content"], ["a", "a"], ["from", "value"]]))
        pairs = pa.StructArray.from_arrays([flat, pa.array(["user", "assistant", "x"])], names)
        return pa.ListArray.from_arrays([0, 1, 3, 3], pairs) if draw(st.booleans()) else pairs
    return flat


def encoded(table: pa.Table, **settings: Any) -> bytes:
    sink = io.BytesIO()
    pq.write_table(table, sink, **settings)
    return sink.getvalue()


@FUZZ
@given(st.data(), KINDS)
def test_a_parquet_file_of_any_types_and_damage(
    folder: Path, data: st.DataObject, kind: Kind
) -> None:
    names = data.draw(st.lists(FIELDS | st.text(max_size=2), max_size=3))
    columns = [data.draw(arrays()) for _ in names]
    squeeze = data.draw(st.sampled_from(["none", "snappy", "zstd", "gzip"]))
    try:
        whole = encoded(pa.table(columns, names=names), compression=squeeze)
    except (pa.ArrowException, ValueError):
        whole = encoded(pa.table({"prompt": ["q"]}))  # no Parquet holds such columns
    path = folder / "any.parquet"
    path.write_bytes(data.draw(st.just(whole) | damaged(whole)))
    check(path, kind)


@lru_cache
def _bomb(piece: bytes, size: int) -> bytes:
    squeeze = zlib.compressobj(9, wbits=31)
    block = piece * (10_000 // len(piece))
    parts = [squeeze.compress(block) for _ in range(size // len(block))]
    return b"".join([*parts, squeeze.flush()])


@HEAVY
@given(
    st.sampled_from([b"\n", b" ", b"[", b"{}\n", b"\0", b"x,", b'"', b'{"prompt": "q"}\n', b"9"]),
    st.sampled_from([10**4, 10**6, 10**8]),
    st.sampled_from([".jsonl.gz", ".json.gz", ".csv.gz", ".parquet.gz"]),
)
def test_a_bomb_is_refused_before_it_goes_off(
    folder: Path, piece: bytes, size: int, suffix: str
) -> None:
    path = folder / f"bomb{suffix}"
    path.write_bytes(_bomb(piece, size))
    check(path, "prompts")


@lru_cache
def _one_value(columns: int, rows: int, width: int) -> bytes:
    """Parquet of the same text in every row of every column, which takes it no room at all."""
    once = pa.DictionaryArray.from_arrays(pa.repeat(pa.scalar(0, pa.int32()), rows), ["q" * width])
    return encoded(pa.table({f"c{n}": once for n in range(columns)}))


@HEAVY
@given(
    st.integers(1, 3),
    st.sampled_from([10**3, 10**4, 10**7]),
    st.sampled_from([1, 10**4]),
    st.binary(max_size=2),
)
def test_a_few_bytes_of_parquet_are_no_million_rows(
    folder: Path, columns: int, rows: int, width: int, after: bytes
) -> None:
    path = folder / "many.parquet"
    path.write_bytes(_one_value(columns, rows, width) + after)
    check(path, "prompts", columns={"c0": "prompt"})


@HEAVY
@given(
    st.integers(1, 50_000), st.sampled_from([",", "a,", "a{},", "{}\t", "\n", '""\n', '"', "a{}"])
)
def test_a_wide_table_is_read_in_no_time(folder: Path, count: int, piece: str) -> None:
    text = "".join(piece.format(n) for n in range(count))
    for name in ("wide.csv", "wide.tsv"):
        (folder / name).write_text(f"{text}x\n1{text}\n", encoding="utf-8")
        check(folder / name, "prompts")


NAMES = st.sampled_from(
    ["a.jsonl", "a.JSONL.GZ", "a.parquet", "folder.jsonl", "folder.parquet", "loop.jsonl",
     "~.jsonl", "loop.csv", "gone.json", "pipe.csv", "a.jsonl/b.jsonl", "a.gz", ".gz", "a.",
     "a\nb.jsonl", "~no-such-user/a.jsonl", "\udcff.jsonl", "y/" * 3000 + "a.json",
     "x" * 300 + ".csv", "a\0.jsonl"]
)  # fmt: skip


@FUZZ
@given(NAMES | st.text(max_size=5).map(lambda name: f"{name}.jsonl"), KINDS, ENCODINGS)
def test_any_name_of_a_file(odd_folder: Path, name: str, kind: Kind, encoding: str) -> None:
    try:
        source = DataSource(path=name, encoding=encoding)
    except ValidationError:
        return
    with bounded(), pytest.raises(DataError) as caught:
        read(source, kind, odd_folder)
    assert_clear(caught.value.problems)


@pytest.fixture(scope="module")
def odd_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders, loops, a pipe and a dead link, under the names of data files, and no record."""
    folder = tmp_path_factory.mktemp("odd")
    for name in ("folder.jsonl", "folder.parquet"):
        (folder / name).mkdir()
    (folder / "loop.jsonl").symlink_to("loop.jsonl")
    (folder / "loop.csv").symlink_to("other.csv")
    (folder / "other.csv").symlink_to("loop.csv")
    (folder / "gone.json").symlink_to("nowhere.json")
    os.mkfifo(folder / "pipe.csv")
    for name in ("a.jsonl", "a.JSONL.GZ", "a.parquet", "a.gz", ".gz", "a."):
        (folder / name).write_bytes(b"")
    return folder
