"""What a length limit leaves out, cuts or leaves too little of is told before a sweep starts."""

from __future__ import annotations

from typing import Any

import pytest

from easyds_tune.data.records import Conversation, PreferencePair, Record, assistant, user
from easyds_tune.data.template import Template
from easyds_tune.data.tokenise import Encoder
from easyds_tune.spec.load import validate
from easyds_tune.spec.sweep import SweepSpec
from easyds_tune.sweep.check_lengths import LengthCheck, check_lengths, encode_parts
from easyds_tune.trial.records import SweepRecords
from tests.data.byte_tokenizer import byte_tokenizer
from tests.trial.small import sweep_spec

ENCODER = Encoder(byte_tokenizer(eos_token="<|im_end|>"), Template(None, "none"))


def spec(kind: Any, **algorithm: Any) -> SweepSpec:
    """Steps of four records; texts of up to 16 tokens."""
    return sweep_spec(kind, algorithm={"type": kind, "max_length": 16, **algorithm})


def pairs(short: int, long: int, *, reply: str = "a") -> list[Record]:
    """Pairs within 16 tokens, and pairs whose prompt alone has more."""
    lengths = [4] * short + [40] * long
    return [PreferencePair((user("x" * n),), reply, "b") for n in lengths]


def checked(sweep: SweepSpec, train: list[Record], **parts: list[Record]) -> LengthCheck:
    records = SweepRecords(train, parts.get("held_out", []), [], **{
        name: part for name, part in parts.items() if name != "held_out"})  # fmt: skip
    encoded = encode_parts(sweep, records, ENCODER)
    return check_lengths(sweep, records, encoded, ENCODER, None)


def test_what_is_left_out_is_a_note_and_the_rest_is_counted() -> None:
    found = checked(spec("dpo"), pairs(6, 2))
    assert found == ([], ["training records: 2 left out: longer than max_length 16"], 6)


def test_more_than_half_left_out_is_a_warning_with_the_numbers_and_the_remedy() -> None:
    found = checked(spec("rm"), pairs(21, 250), held_out=pairs(4, 1))
    assert found.notes == [
        "warning: training records: 250 of 271 (92%) left out: longer than max_length 16; 21 are "
        "left; raise algorithm.max_length, or set algorithm.truncation: keep_end",
        "held-out records: 1 left out: longer than max_length 16",
    ]
    assert (found.problems, found.fitting) == ([], 21)


def test_fewer_records_than_a_step_takes_are_refused() -> None:
    found = checked(spec("dpo"), pairs(3, 10))
    assert found.problems == [
        "algorithm.max_length: 16 tokens must leave at least 4 training records, one optimizer "
        "step's batch, got 3 of 13; raise algorithm.max_length, or set algorithm.truncation: "
        "keep_end"
    ]
    # Few records of which none is too long are the user's choice, and named.
    assert checked(spec("dpo"), pairs(4, 0)) == ([], [], 4)
    few = "warning: training records: 3, fewer than one optimizer step's batch of 4: each step sees"
    assert checked(spec("dpo"), pairs(3, 0)) == ([], [f"{few} all of them"], 3)


def test_reading_that_leaves_too_few_records_is_refused() -> None:
    few = SweepRecords(pairs(3, 0), [], [], mostly_left_out="297 of 300 records (99%)")
    encoded = encode_parts(spec("dpo"), few, ENCODER)
    [problem] = check_lengths(spec("dpo"), few, encoded, ENCODER, None).problems
    assert problem == (
        "data.train: 297 of 300 records (99%) are left out; at least 4, one optimizer step's "
        "batch, must be left to train on, got 3; repair the data"
    )


@pytest.mark.parametrize("part", ["held_out", "finals_held_out"])
def test_one_pair_left_to_measure_a_reward_model_on_is_refused(part: str) -> None:
    found = checked(spec("rm"), pairs(8, 0), **{part: pairs(1, 5)})
    [problem] = found.problems
    assert "16 tokens must leave at least 2 " in problem
    assert "got 1 of 6" in problem
    assert checked(spec("rm"), pairs(8, 0), **{part: pairs(2, 1)}).problems == []


def test_the_remedy_for_too_few_records_works() -> None:
    found = checked(spec("dpo", truncation="keep_end"), pairs(3, 10))
    assert found == (
        [],
        [
            "training records: prompt cut in 10 of 13; the beginning is lost "
            "(algorithm.truncation: keep_end)"
        ],
        13,
    )


def test_cut_replies_are_counted_for_each_side() -> None:
    records: list[Record] = [
        PreferencePair((user("xxxx"),), "y" * chosen, "z" * rejected)
        for chosen, rejected in ((1, 2), (20, 1), (1, 20), (20, 30), (2, 1), (1, 40))
    ]
    found = checked(spec("dpo", truncation="keep_start"), records)
    assert found.notes == [
        "training records: chosen cut in 2, rejected in 3, only one side in 3 of 6; a cut reply "
        "has no end token (algorithm.truncation: keep_start)"
    ]
    chats: list[Record] = [
        Conversation((user("xxxx"), assistant("y" * length))) for length in (1, 2, 3, 20)
    ]
    found = checked(spec("sft", truncation="keep_start"), chats)
    assert found.notes == [
        "training records: reply cut in 1 of 4; a cut reply has no end token "
        "(algorithm.truncation: keep_start)"
    ]


def test_replies_that_mostly_lose_their_end_are_a_warning() -> None:
    chats: list[Record] = [
        Conversation((user("xxxx"), assistant("y" * length))) for length in (1, 20, 30)
    ]
    note, _ = checked(spec("sft", truncation="keep_start"), chats).notes
    assert note.startswith("warning: training records: reply cut in 2 of 3; a cut reply has no end")


def test_limits_that_a_search_may_set_are_tried_too() -> None:
    searched = spec("dpo").model_dump(mode="json") | {
        "search_space": {
            "algorithm.max_length": {"choice": [10, 50]},
            "algorithm.truncation": {"choice": ["drop", "keep_end"]},
        }
    }
    records = [*pairs(4, 0), *(PreferencePair((user("x" * 9),), "a", "b") for _ in range(5))]
    found = checked(validate(searched), records)
    assert found.problems == []
    assert found.notes == [
        "warning: training records: 5 of 9 (56%) left out: longer than max_length 10; 4 are left; "
        "raise algorithm.max_length, or set algorithm.truncation: keep_end"
    ]
    assert found.fitting == 9
