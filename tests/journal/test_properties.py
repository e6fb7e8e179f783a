"""Any journal, any prefix of it, any damage to it. JOURNAL_EXAMPLES=5000 tries more of each."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from easyds_tune.errors import JournalError
from easyds_tune.journal.events import NoteEvent, decode_line
from easyds_tune.journal.reader import JournalReader, read_events
from easyds_tune.journal.repair import repair
from easyds_tune.journal.replay import SweepRecord, read_record, replay
from easyds_tune.journal.writer import JournalWriter
from tests.journal.sweeps import Driver, check_valid, journals, shown

EXAMPLES = int(os.environ.get("JOURNAL_EXAMPLES", "80"))

examples = settings(
    max_examples=EXAMPLES,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)

Damage = Callable[[bytes], bytes]


@examples
@given(journals())
def test_any_prefix_replays_to_a_valid_state_which_is_the_live_one(driver: Driver) -> None:
    entries = [decode_line(line) for line in driver.lines]
    live = SweepRecord.begin(entries[0])
    for count, entry in enumerate(entries[1:], start=2):
        live.apply(entry)
        check_valid(live)
        assert repr(replay(entries[:count])) == repr(live)
    assert repr(live) == repr(driver.record)


@examples
@given(journals(), st.data())
def test_a_cut_at_any_byte_leaves_the_longest_whole_prefix(
    tmp_path: Path, driver: Driver, data: st.DataObject
) -> None:
    whole = b"".join(driver.lines)
    cut = data.draw(st.integers(0, len(whole)))
    path = tmp_path / "journal.jsonl"
    path.write_bytes(whole[:cut])
    kept = whole[: whole.rfind(b"\n", 0, cut) + 1]
    count = kept.count(b"\n")

    reader = JournalReader(path)
    assert shown(list(reader)) == shown([decode_line(line) for line in driver.lines[:count]])
    assert reader.torn_bytes == cut - len(kept)
    if count == 0:
        return
    writer, record = JournalWriter.open(path)
    with writer:
        assert path.read_bytes() == kept
        assert record.torn_bytes == cut - len(kept)
        check_valid(record)
        record.apply(writer.append(NoteEvent("goes on")))
    reread = read_record(JournalReader(path))
    reread.torn_bytes = record.torn_bytes
    assert repr(reread) == repr(record)


def test_a_journal_may_be_cut_at_each_single_byte(tmp_path: Path) -> None:
    driver = Driver()
    for choice in (6, 23, 7 + 16 * 9, 13, 6 + 16 * 5, 3, 15 + 16 * 11):
        driver.act(choice)
    whole = b"".join(driver.lines)
    path = tmp_path / "journal.jsonl"
    for cut in range(len(driver.lines[0]), len(whole)):
        path.write_bytes(whole[:cut])
        assert read_record(JournalReader(path)).torn_bytes == cut - whole.rfind(b"\n", 0, cut) - 1


def anywhere(data: bytes) -> st.SearchStrategy[int]:
    return st.integers(0, max(0, len(data) - 1))


@st.composite
def damaged(draw: st.DrawFn, whole: bytes) -> bytes:
    """A journal after one to three accidents to its bytes or its lines."""
    found = whole
    for _ in range(draw(st.integers(1, 3))):
        at, lines = draw(anywhere(found)), found.splitlines(keepends=True) or [b""]
        one, two = (draw(st.integers(0, len(lines) - 1)) for _ in range(2))
        match draw(st.integers(0, 7)):
            case 0:  # a byte flips
                changed = found[at : at + 1] or b"\0"
                flipped = bytes([changed[0] ^ draw(st.integers(1, 255))])
                found = found[:at] + flipped + found[at + 1 :]
            case 1:  # a stretch is lost
                found = found[:at] + found[at + draw(st.integers(1, 400)) :]
            case 2:  # something gets in between
                found = found[:at] + draw(st.binary(min_size=1, max_size=40)) + found[at:]
            case 3:  # the end is lost
                found = found[:at]
            case 4:
                del lines[one]
                found = b"".join(lines)
            case 5:
                lines.insert(two, lines[one])
                found = b"".join(lines)
            case 6:
                lines[one], lines[two] = lines[two], lines[one]
                found = b"".join(lines)
            case 7:  # a block that the disk never wrote
                found = found[:at] + b"\0" * 100 + found[at + 100 :]
    return found


@examples
@given(journals(), st.data())
def test_any_damage_is_repaired_or_refused_and_never_read_as_something_else(
    tmp_path: Path, driver: Driver, data: st.DataObject
) -> None:
    original = shown([decode_line(line) for line in driver.lines])
    text = data.draw(damaged(b"".join(driver.lines)))
    path = tmp_path / "journal.jsonl"
    for stale in tmp_path.iterdir():
        stale.unlink()
    path.write_bytes(text)
    try:
        entries = list(read_events(path))
        check_valid(read_record(JournalReader(path)))
        middle_is_whole = True
        assert shown(entries) == original[: len(entries)]
    except JournalError:
        middle_is_whole = False

    try:
        done = repair(path)
    except JournalError:
        assert driver.lines[0] not in text  # refused for no other reason
        assert path.read_bytes() == text
        assert list(tmp_path.iterdir()) == [path]
        return
    check_valid(done.record)
    repaired = list(read_events(path))
    assert repr(read_record(JournalReader(path))) == repr(done.record) or done.torn_bytes
    if middle_is_whole:
        assert done.damaged is None
        assert path.read_bytes() == text[: len(text) - done.torn_bytes]
        return
    assert done.damaged is not None
    assert done.damaged.read_bytes() == text
    *kept, note = repaired
    assert isinstance(note.event, NoteEvent)
    remaining = iter(original)
    assert all(one in remaining for one in shown(kept)), "the kept events, in their order"
    whole = {line for line in driver.lines if line in text}
    lost_lines = sum(last - first + 1 for first, last in done.lost)
    assert len(kept) <= len(whole)
    assert len(kept) + lost_lines == 1 + max(decode_line(line).seq for line in whole)


@examples
@given(journals(), st.data())
def test_lines_in_any_order_and_number_are_put_right_without_loss(
    tmp_path: Path, driver: Driver, data: st.DataObject
) -> None:
    shuffled = data.draw(st.permutations(driver.lines))
    twice = data.draw(st.lists(st.sampled_from(driver.lines), max_size=3))
    path = tmp_path / "journal.jsonl"
    path.write_bytes(b"".join([*shuffled, *twice]))
    assert repair(path).lost == []
    assert path.read_bytes().startswith(b"".join(driver.lines))
