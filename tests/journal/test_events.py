from __future__ import annotations

import dataclasses
import json
import math
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from easyds_tune.errors import JournalError
from easyds_tune.journal.events import (
    Event,
    NoteEvent,
    ReportEvent,
    SuggestEvent,
    SweepEvent,
    TrialState,
    checksum_holds,
    decode_line,
    encode_line,
)


def test_a_line_is_json_with_the_crc_of_the_bytes_after_it() -> None:
    line = encode_line(3, 12.5, NoteEvent("好"))

    body = '"seq":3,"time":12.5,"event":"note","text":"好"}'.encode()
    assert line == b'{"crc":"%08x",%b\n' % (zlib.crc32(body), body)
    assert json.loads(line)["text"] == "好"


def test_every_event_reads_back_as_it_was_written(
    sweep_event: SweepEvent, later_events: list[Event]
) -> None:
    for event in [sweep_event, *later_events]:
        entry = decode_line(encode_line(7, 1.5, event))
        assert (entry.seq, entry.time) == (7, 1.5)
        assert repr(entry.event) == repr(event)  # repr, because NaN never equals itself


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_non_finite_metric_stays_valid_json_and_comes_back(value: float) -> None:
    line = encode_line(0, 1.0, ReportEvent("000", 1, {"train/loss": value, "eval/kl": 0.5}))

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is no JSON")

    assert json.loads(line, parse_constant=refuse)["metrics"]["train/loss"] == str(value)
    event = decode_line(line).event
    assert isinstance(event, ReportEvent)
    assert repr(event.metrics["train/loss"]) == repr(value)
    assert event.metrics["eval/kl"] == 0.5


def test_a_non_finite_parameter_is_refused() -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        encode_line(0, 1.0, SuggestEvent("000", 0, {"beta": math.nan}, "sampler"))


def test_any_changed_byte_breaks_the_checksum() -> None:
    line = encode_line(0, 1.0, NoteEvent("abc"))
    for place in range(len(line)):
        damaged = line[:place] + bytes([line[place] ^ 1]) + line[place + 1 :]
        assert not checksum_holds(damaged), place


def test_an_unknown_event_asks_whether_a_newer_release_wrote_it() -> None:
    body = b'"seq":0,"time":1.0,"event":"teleport"}'
    line = b'{"crc":"%08x",%b\n' % (zlib.crc32(body), body)
    assert checksum_holds(line)
    with pytest.raises(JournalError, match="newer release"):
        decode_line(line)


def test_running_paused_and_interrupted_trials_may_go_on() -> None:
    going_on = [state for state in TrialState if not state.is_final]
    assert going_on == ["RUNNING", "PAUSED", "INTERRUPTED"]


@given(st.floats(), st.floats(allow_nan=False, allow_infinity=False))
def test_numbers_read_back_bit_by_bit(metric: float, param: float) -> None:
    report = decode_line(encode_line(0, 1.0, ReportEvent("000", 1, {"a/b": metric}))).event
    assert isinstance(report, ReportEvent)
    assert repr(report.metrics["a/b"]) == repr(metric)
    suggest = decode_line(encode_line(0, param, SuggestEvent("000", 0, {"x": param}, "sampler")))
    assert isinstance(suggest.event, SuggestEvent)
    assert repr(suggest.event.params["x"]) == repr(param) == repr(suggest.time)


@pytest.mark.parametrize("value", [2**63, 2**64 + 1, -(2**70), 10**40])
def test_whole_numbers_of_any_size_stay_whole(value: int, sweep_event: SweepEvent) -> None:
    suggest = SuggestEvent("000", 0, {"training.seed": value, "list": [value]}, "sampler")
    space = {"training.seed": {"type": "choice", "choice": [value, None]}}
    for event in (suggest, dataclasses.replace(sweep_event, space=space)):
        assert decode_line(encode_line(0, 1.0, event)).event == event
