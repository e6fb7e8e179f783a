from __future__ import annotations

import gzip
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from easyds_tune.data.files import decode, locate, read_rows
from easyds_tune.data.packed import SMALL_BYTES, SMALL_ROWS
from easyds_tune.errors import DataError
from easyds_tune.spec.data import DataSource

CHINESE = "栈是后进先出的线性表，队列是先进先出的线性表。请先想一想它们的区别。"


def rows_of(path: Path, **source: object) -> list[dict[str, object]]:
    return [row.columns for row in read_rows(DataSource(path=str(path), **source))]


def problems_of(path: Path, **source: object) -> list[str]:
    with pytest.raises(DataError) as caught:
        rows_of(path, **source)
    return caught.value.problems


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "gb18030", "gbk"])
def test_chinese_text_is_read_in_the_encodings_that_chinese_files_have(encoding: str) -> None:
    assert decode(CHINESE.encode(encoding), "auto", "x") == CHINESE


def test_utf8_with_one_broken_byte_is_refused_and_never_read_as_gb18030() -> None:
    data = bytearray(CHINESE.encode() * 3)
    data[60] = 0xFF
    with pytest.raises(DataError, match=r"not text in utf-8 .*at byte 60"):
        decode(bytes(data), "auto", "x")


@pytest.mark.parametrize("encoding", ["latin-1", "utf-16", "shift_jis"])
def test_other_encodings_are_refused_unless_they_are_named(encoding: str) -> None:
    text = "déjà vu, là où l'été " * 5 if encoding == "latin-1" else "データ構造とアルゴリズム" * 5
    data = text.encode(encoding)
    with pytest.raises(DataError, match="name its encoding"):
        decode(data, "auto", "x")
    assert decode(data, encoding, "x") == text


def test_a_json_file_may_be_a_list_lines_or_one_object(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text('[{"text": "a"}, {"text": "b"}]', encoding="utf-8")
    assert rows_of(path) == [{"text": "a"}, {"text": "b"}]
    path.write_text('{"text": "a"}\n\n{"text": "b"}', encoding="utf-8")
    assert rows_of(path) == [{"text": "a"}, {"text": "b"}]
    path.write_text('{\n  "text": "a"\n}\n', encoding="utf-8")
    assert rows_of(path) == [{"text": "a"}]


def test_every_broken_json_line_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": "a"}\n{"text": \n{"text": "c"}\n[1]\n', encoding="utf-8")
    problems = problems_of(path)
    assert [problem.partition(": ")[0] for problem in problems] == ["a.jsonl:2", "a.jsonl:4"]
    assert "must be a JSON object, got list" in problems[1]


def test_a_line_separator_inside_json_text_ends_no_line(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps({"text": "a\u2028b"}, ensure_ascii=False), encoding="utf-8")
    assert rows_of(path) == [{"text": "a\u2028b"}]


def test_csv_fields_may_hold_line_breaks_and_a_bom_leaves_the_first_name_clean(
    tmp_path: Path,
) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes('\ufeff,问题\r\n1,"一\n二"\r\n2,三\r\n'.encode())
    rows = read_rows(DataSource(path=str(path)))
    assert [row.columns for row in rows] == [{"": "1", "问题": "一\n二"}, {"": "2", "问题": "三"}]
    assert [row.where for row in rows] == ["a.csv:2", "a.csv:4"]


def test_csv_rows_of_another_width_and_open_quotes_are_errors(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text('a,b\n1\n1,2\n1,"2\n', encoding="utf-8")
    problems = problems_of(path)
    assert problems[0].startswith("a.csv:2: has 1 fields where the header has 2")
    assert problems[1].startswith("a.csv:4: broken CSV")


def test_parquet_and_gzip_are_read(tmp_path: Path) -> None:
    parquet = tmp_path / "a.parquet"
    pyarrow.parquet.write_table(pa.table({"text": ["a", "b"]}), parquet)
    assert rows_of(parquet) == [{"text": "a"}, {"text": "b"}]
    packed = tmp_path / "a.jsonl.gz"
    packed.write_bytes(gzip.compress(b'{"text": "a"}'))
    assert rows_of(packed) == [{"text": "a"}]


@pytest.mark.parametrize("name", ["a.jsonl.gz", "a.parquet", "a.txt", "a.json", "a.csv"])
def test_a_broken_unknown_or_empty_file_is_a_clear_error(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(b"")
    assert name in problems_of(path)[0]


def test_a_missing_file_is_not_mistaken_for_a_hub_name(tmp_path: Path) -> None:
    assert "no such file" in problems_of(tmp_path / "absent.jsonl")[0]


def test_a_folder_is_loaded_by_datasets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    folder = tmp_path / "set"
    folder.mkdir()
    (folder / "train.jsonl").write_text('{"text": "a"}\n', encoding="utf-8")
    (folder / "test.jsonl").write_text('{"text": "b"}\n', encoding="utf-8")
    assert rows_of(folder) == [{"text": "a"}]
    assert rows_of(folder, split="test") == [{"text": "b"}]
    assert "split 'dev'" in problems_of(folder, split="dev")[0]


def test_a_folder_is_read_without_progress_bars_and_its_fault_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    folder = tmp_path / "set"
    folder.mkdir()
    (folder / "train.jsonl").write_text('{"text": "a"}\n', encoding="utf-8")
    rows_of(folder)
    assert capfd.readouterr().err == ""
    (folder / "train.jsonl").write_text('{"text": "a"}\n{"text" "b"}\n', encoding="utf-8")
    (problem,) = problems_of(folder)
    assert "JSON parse error" in problem


def test_a_file_has_no_split(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": "a"}', encoding="utf-8")
    problems = problems_of(path, split="test", config="x")
    assert len(problems) == 2
    assert "`config`" in problems[0]


def test_columns_are_renamed_and_a_wrong_name_lists_what_is_there(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("ask,answer\nq,a\n", encoding="utf-8")
    renamed = rows_of(path, columns={"ask": "prompt", "answer": "completion"})
    assert renamed == [{"prompt": "q", "completion": "a"}]
    assert "columns are 'ask', 'answer'" in problems_of(path, columns={"question": "prompt"})[0]
    assert "already has" in problems_of(path, columns={"ask": "answer"})[0]


def test_relative_paths_stand_under_the_folder_that_is_given(tmp_path: Path) -> None:
    assert locate("a.jsonl", tmp_path) == tmp_path / "a.jsonl"
    assert locate("a.jsonl") == Path.cwd() / "a.jsonl"
    assert locate(str(tmp_path / "b"), Path("/elsewhere")) == tmp_path / "b"


def test_a_home_of_nobody_is_no_file() -> None:
    assert "no such file" in problems_of(Path("~no-such-user/a.jsonl"))[0]


def test_a_folder_or_a_loop_with_a_files_name_is_no_file(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").mkdir()
    (tmp_path / "b.jsonl").symlink_to("b.jsonl")
    assert "a.jsonl: is no file (looked for" in problems_of(tmp_path / "a.jsonl")[0]
    assert "b.jsonl: is no file (looked for" in problems_of(tmp_path / "b.jsonl")[0]


def test_a_gzip_bomb_is_refused_before_it_fills_the_memory(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl.gz"
    path.write_bytes(gzip.compress(b"\n" * (SMALL_BYTES + 1)))
    assert f"must unpack to at most {SMALL_BYTES} bytes" in problems_of(path)[0]
    path.write_bytes(gzip.compress(b'{"text": "a"}' + b"\n" * (SMALL_BYTES - 13)))
    assert rows_of(path) == [{"text": "a"}]


@pytest.mark.parametrize(("rows", "text"), [(SMALL_ROWS + 1, "a"), (10_000, "a" * 10_000)])
def test_a_parquet_bomb_is_refused_before_it_fills_the_memory(
    tmp_path: Path, rows: int, text: str
) -> None:
    path = tmp_path / "a.parquet"
    same = pa.DictionaryArray.from_arrays(pa.repeat(pa.scalar(0, pa.int32()), rows), [text])
    pyarrow.parquet.write_table(pa.table({"text": same}), path)
    assert path.stat().st_size < 100_000
    assert "unpacks to far more than its size" in problems_of(path)[0]


@pytest.mark.parametrize(
    "column",
    [pa.array([2**31 - 1], pa.date32()), pa.array([1], pa.timestamp("us", tz="Mars/Phobos"))],
    ids=["a date after the year 9999", "a time zone of nowhere"],
)
def test_parquet_values_that_python_does_not_have_are_an_error(
    tmp_path: Path, column: pa.Array
) -> None:
    path = tmp_path / "a.parquet"
    pyarrow.parquet.write_table(pa.table({"text": column}), path)
    assert "a.parquet: is not a Parquet file that can be read: " in problems_of(path)[0]


def test_a_csv_header_of_many_names_is_read_at_once(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    names = [f"c{n}" for n in range(100_000)]
    path.write_text(",".join(names) + "\n" + ",".join(names) + "\n", encoding="utf-8")
    assert len(rows_of(path)[0]) == 100_000
    assert len(problems_of(path, columns={"x": "y"})[0]) < 1000


@settings(
    deadline=None, max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    data=st.binary(max_size=200) | st.text(max_size=100).map(str.encode),
    name=st.sampled_from(["a.json", "a.jsonl", "a.csv", "a.tsv", "a.parquet", "a.jsonl.gz"]),
)
def test_any_bytes_give_rows_or_a_data_error(tmp_path: Path, data: bytes, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(data)
    try:
        rows = rows_of(path)
    except DataError:
        return
    assert all(isinstance(row, dict) for row in rows)
