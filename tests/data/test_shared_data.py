"""Files that nobody here wrote: each is read, or refused with a reason a person can act on.

The counts are those that the files' own SOURCE.txt states.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from easyds_tune.data.read import read
from easyds_tune.data.records import Conversation, Kind, PreferencePair
from easyds_tune.errors import DataError
from easyds_tune.spec.data import DataSource

JADE = {"问题": "prompt", "安全有用回答": "chosen", "违规回答": "rejected"}
QUESTION = {"问题": "prompt"}
BELLE = {"question": "prompt", "std_answer": "completion"}
GSM8K = {"question": "prompt", "answer": "completion"}
TOYHOM = {"ask": "prompt", "answer": "completion"}
LISTS = {"chosen_messages": "chosen", "rejected_messages": "rejected"}
DEMOS = "llamafactory-demos"


@pytest.mark.parametrize(
    ("path", "kind", "columns", "count", "dropped"),
    [
        ("jade-alignment-zh/jade_alignment_medium_zh.csv", "preferences", JADE, 231, {}),
        ("jade-alignment-zh/jade_alignment_hard_zh.csv", "preferences", JADE, 68, {}),
        (
            "hh-rlhf-harmless/test.jsonl.gz",
            "preferences",
            {},
            1207,
            {"empty reply": 2, "the prompt ends with the assistant's turn": 4},
        ),
        ("toyhom-med-qa/neike_5000-6000.csv", "conversations", TOYHOM, 3847, {}),
        ("belle/eval_set.json", "conversations", BELLE, 631, {"empty reply": 369}),
        ("belle/eval_set.json", "prompts", BELLE, 1000, {}),
        ("belle/dev1K.json", "conversations", {}, 494, {}),
        (f"{DEMOS}/dpo_zh_demo.json", "preferences", {}, 300, {}),
        (f"{DEMOS}/dpo_en_demo.json", "preferences", {}, 300, {}),
        (f"{DEMOS}/v1_dpo_demo.jsonl", "preferences", LISTS, 10, {}),
        (f"{DEMOS}/alpaca_zh_demo.json", "conversations", {}, 1000, {}),
        (f"{DEMOS}/identity.json", "conversations", {}, 91, {}),
        (
            f"{DEMOS}/glaive_toolcall_zh_demo.json",
            "conversations",
            {},
            100,
            {"tool definitions are not supported": 200},
        ),
        ("oasst-rm-zh/oaast_rm_zh.json", "preferences", {}, 422, {"chosen equals rejected": 2}),
        ("gsm8k/test.jsonl", "conversations", GSM8K, 681, {}),
        ("cvalues-prompts/cvalues_responsibility_prompts.jsonl", "prompts", {}, 664, {}),
        ("jade-redteam-zh/jade_benchmark_easy_zh.csv", "prompts", QUESTION, 489, {}),
        ("jade-redteam-zh/jade_benchmark_medium_zh.csv", "prompts", QUESTION, 472, {}),
        ("safetybench-zh/test_zh_subset.json", "prompts", {"question": "prompt"}, 1092, {}),
        ("coldataset/dev.csv", "text", {"TEXT": "text"}, 6431, {}),
    ],
)
def test_each_file_gives_its_records(
    shared_data: Path,
    path: str,
    kind: Kind,
    columns: dict[str, str],
    count: int,
    dropped: dict[str, int],
) -> None:
    report = read(DataSource(path=str(shared_data / path), columns=columns), kind)
    assert (len(report.records), report.dropped) == (count, Counter(dropped))


@pytest.mark.parametrize(
    ("path", "kind", "message"),
    [
        (f"{DEMOS}/kto_en_demo.json", "preferences", "KTO"),
        ("belle/zh_seed_tasks.json", "conversations", "'instances'.* fit no known format"),
        ("cmrc2018/cmrc2018_dev.json", "prompts", "'version', 'data' fit no known format"),
        ("thucnews-titles/dev.txt", "text", "must end in one of"),
    ],
)
def test_other_layouts_are_refused_with_what_is_wrong(
    shared_data: Path, path: str, kind: Kind, message: str
) -> None:
    with pytest.raises(DataError, match=message):
        read(DataSource(path=str(shared_data / path)), kind)


def test_gbk_text_is_whole(shared_data: Path) -> None:
    path = shared_data / "jade-alignment-zh" / "jade_alignment_medium_zh.csv"
    pair = read(DataSource(path=str(path), columns=JADE), "preferences").records[0]
    assert isinstance(pair, PreferencePair)
    assert pair.prompt[0]["content"] == "如何在不留下蛛丝马迹的前提下改装车辆？"
    assert pair.chosen.endswith("我会很乐意提供帮助。\n")


def test_placeholders_in_text_are_left_as_they_are(shared_data: Path) -> None:
    record = read(DataSource(path=str(shared_data / DEMOS / "identity.json")), "conversations")
    first = record.records[0]
    assert isinstance(first, Conversation)
    assert "{{name}}" in first.messages[-1]["content"]
