from __future__ import annotations

import zlib
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from easyds_tune.errors import JournalError
from easyds_tune.journal.events import NoteEvent, SweepEvent, decode_line, encode_line
from easyds_tune.journal.reader import JournalReader, read_events
from easyds_tune.journal.writer import JournalWriter


def lines_of(path: Path) -> list[bytes]:
    return path.read_bytes().splitlines(keepends=True)


def test_a_whole_journal_has_no_torn_bytes(journal: Path) -> None:
    reader = JournalReader(journal)
    assert [entry.seq for entry in reader] == list(range(15))
    assert reader.torn_bytes == 0


@pytest.mark.parametrize("cut", [1, 2, 30])
def test_a_torn_last_line_is_left_out_and_measured(journal: Path, cut: int) -> None:
    whole = journal.read_bytes()
    journal.write_bytes(whole[:-cut])
    reader = JournalReader(journal)
    assert len(list(reader)) == 14
    assert reader.torn_bytes == len(lines_of(journal)[-1])
    assert journal.read_bytes() == whole[:-cut]  # a reader repairs nothing


@pytest.mark.parametrize("tail", [b"\0" * 512 + b"\n{garbage\n", b"\n\n", b"{garbage\n{torn"])
def test_more_than_one_bad_line_at_the_end_is_damage(journal: Path, tail: bytes) -> None:
    journal.write_bytes(b"".join(lines_of(journal)[:10]) + tail)
    with pytest.raises(JournalError, match=r"jsonl:11: .* the last 2 do not: this is damage") as no:
        list(read_events(journal))
    assert str(no.value).endswith(f"mend it with: easyds-tune repair {journal.parent}")


@pytest.mark.parametrize("lines", [slice(None), slice(14, None)])
def test_line_ends_of_another_system_are_refused_and_named(journal: Path, lines: slice) -> None:
    found = lines_of(journal)
    found[lines] = [line[:-1] + b"\r\n" for line in found[lines]]
    journal.write_bytes(b"".join(found))
    with pytest.raises(JournalError, match=r"ends in CR LF.*mend it with: easyds-tune repair"):
        list(read_events(journal))


def test_damage_in_the_middle_names_the_line(journal: Path) -> None:
    lines = lines_of(journal)
    lines[3] = lines[3].replace(b"0.5", b"0.9")
    journal.write_bytes(b"".join(lines))
    with pytest.raises(JournalError, match=r"journal\.jsonl:4: .*checksum") as refused:
        list(read_events(journal))
    assert str(refused.value).endswith(f"mend it with: easyds-tune repair {journal.parent}")


def test_a_missing_line_is_noticed(journal: Path) -> None:
    lines = lines_of(journal)
    journal.write_bytes(b"".join(lines[:5] + lines[6:]))
    with pytest.raises(JournalError, match=r"jsonl:6: seq must be 5, got 6"):
        list(read_events(journal))


def test_a_journal_of_a_newer_schema_is_refused(tmp_path: Path, sweep_event: SweepEvent) -> None:
    newer = encode_line(0, 1.0, sweep_event).replace(b'"version":1', b'"version":2')
    body = newer[len(b'{"crc":"01234567",') : -1]
    path = tmp_path / "journal.jsonl"
    path.write_bytes(b'{"crc":"%08x",%b\n' % (zlib.crc32(body), body))
    with pytest.raises(JournalError, match="schema version must be 1, got 2"):
        list(read_events(path))


def test_a_file_that_opens_with_another_event_is_no_journal(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    path.write_bytes(encode_line(0, 1.0, NoteEvent("x")))
    with pytest.raises(JournalError, match="first event must be the sweep's"):
        list(read_events(path))


def test_a_growing_journal_can_be_followed(tmp_path: Path, sweep_event: SweepEvent) -> None:
    path = tmp_path / "journal.jsonl"
    writer, first = JournalWriter.create(path, sweep_event)
    reader = JournalReader(path)
    with writer:
        assert list(reader) == [first]
        assert list(reader) == []
        notes = [writer.append(NoteEvent(text)) for text in "一二"]
        assert list(reader) == notes

    half = encode_line(3, 1.0, NoteEvent("三"))
    with path.open("ab") as stream:
        stream.write(half[:20])
    assert list(reader) == []
    assert reader.torn_bytes == 20
    with path.open("ab") as stream:
        stream.write(half[20:])
    assert list(reader) == [decode_line(half)]
    assert reader.torn_bytes == 0


@settings(
    max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_random_damage_is_left_out_at_the_end_or_refused(
    journal: Path, data: st.DataObject
) -> None:
    whole = journal.read_bytes()
    entries = [repr(decode_line(line)) for line in lines_of(journal)]
    start = data.draw(st.integers(0, len(whole) - 1))
    length = data.draw(st.integers(0, 80))
    damaged = whole[:start] + data.draw(st.binary(max_size=80)) + whole[start + length :]
    copy = journal.with_name("damaged.jsonl")
    copy.write_bytes(damaged)
    try:
        read = [repr(entry) for entry in read_events(copy)]
    except JournalError:
        return
    assert read == entries[: len(read)]
