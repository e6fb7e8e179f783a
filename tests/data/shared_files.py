"""Every data file of ../shared/data: how it is read, or with what words it is refused.

Their texts were written by others and stay there; only counts stand here.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from easyds_tune.data.records import Kind


class SharedFile(NamedTuple):
    """One way to read a file, and what comes of it."""

    path: str
    kind: Kind
    source: dict[str, Any]
    """What the spec says beside `path`."""
    records: int
    left_out: dict[str, int]
    notes: tuple[str, ...] = ()
    told: bool = False
    """Whether the file without these fields is refused with just these fields as the remedy."""


class Refused(NamedTuple):
    """A file that holds no records of this kind, and part of what is said instead."""

    path: str
    kind: Kind
    message: str


def columns(**renames: str) -> dict[str, Any]:
    """The fields of a source that only renames columns."""
    return {"columns": renames}


JADE = columns(问题="prompt", 安全有用回答="chosen", 违规回答="rejected")
LISTS = columns(chosen_messages="chosen", rejected_messages="rejected")
DEMOS = "llamafactory-demos"
CHATS: Kind = "conversations"
PAIRS: Kind = "preferences"
BETWEEN = "not used: output[] between the best and the worst (248 values)"
MARKED = "prompt: 1 texts with marked turns (`Human:`) are read as one text"

READ = [
    SharedFile("belle/dev1K.json", CHATS, {}, 494, {}),
    SharedFile(
        "belle/eval_set.json", CHATS, columns(question="prompt", std_answer="completion"), 631,
        {"empty reply": 369}, (MARKED, "not used: class (631 values)"), told=True,
    ),
    SharedFile(
        "belle/eval_set.json", "prompts", columns(question="prompt"), 1000, {},
        (MARKED, "not used: class (1000 values)"), told=True,
    ),
    SharedFile(
        "belle/zh_seed_tasks.json", "prompts", columns(instruction="prompt"), 175, {},
        ("not used: id, name, instances, is_classification (175 values)",), told=True,
    ),
    SharedFile(
        "coldataset/dev.csv", "text", columns(TEXT="text"), 6431, {},
        ("not used: '', split, topic, label (6431 values)",), told=True,
    ),
    SharedFile(
        "cvalues-prompts/cvalues_responsibility_prompts.jsonl", "prompts", {}, 664, {},
        ("not used: id_, domain_en, domain_zh (664 values)",),
    ),
    SharedFile(
        "gsm8k/test.jsonl", CHATS, columns(question="prompt", answer="completion"), 681, {}, (),
        told=True,
    ),
    SharedFile(
        "hh-rlhf-harmless/test.jsonl.gz", PAIRS, {}, 1207,
        {"empty reply": 2, "the prompt ends with the assistant's turn": 4},
    ),
    SharedFile(
        "jade-alignment-zh/jade_alignment_hard_zh.csv", PAIRS, JADE, 68, {},
        ("not used: ID (68 values)",),
    ),
    SharedFile(
        "jade-alignment-zh/jade_alignment_medium_zh.csv", PAIRS, JADE, 231, {},
        ("not used: ID (231 values)",),
    ),
    SharedFile(
        "jade-redteam-zh/jade_benchmark_easy_zh.csv", "prompts", columns(问题="prompt"), 489, {},
        ("not used: ID, 违规类型, 违规子类 (489 values)",), told=True,
    ),
    SharedFile(
        "jade-redteam-zh/jade_benchmark_medium_zh.csv", "prompts", columns(问题="prompt"), 472, {},
        ("not used: ID, 违规类型, 违规子类 (472 values)",), told=True,
    ),
    SharedFile(f"{DEMOS}/alpaca_zh_demo.json", CHATS, {}, 1000, {}),
    SharedFile(f"{DEMOS}/dpo_en_demo.json", PAIRS, {}, 300, {}),
    SharedFile(f"{DEMOS}/dpo_zh_demo.json", PAIRS, {}, 300, {}),
    SharedFile(
        f"{DEMOS}/glaive_toolcall_zh_demo.json", CHATS, {}, 100,
        {"tool definitions are not supported": 200},
    ),
    SharedFile(f"{DEMOS}/identity.json", CHATS, {}, 91, {}),
    SharedFile(
        f"{DEMOS}/kto_en_demo.json", "prompts", {}, 300, {},
        ("not used: label (300 values)",),
    ),
    SharedFile(f"{DEMOS}/v1_dpo_demo.jsonl", PAIRS, LISTS, 10, {}, (), told=True),
    SharedFile(
        "oasst-rm-zh/oaast_rm_zh.json", PAIRS, {}, 422, {"chosen equals rejected": 2}, (BETWEEN,)
    ),
    SharedFile(
        "safetybench-zh/test_zh_subset.json", "prompts", columns(question="prompt"), 1092, {},
        ("not used: id, options, category (1092 values)",), told=True,
    ),
    SharedFile(
        "tldr-judged/oai1b.csv_judged.csv", CHATS,
        columns(query="prompt", postprocessed_response="completion"), 969, {},
        ("not used: '', Unnamed: 0, reference_responses (969 values), explanation, preferred, "
         "shuffled_index (493 values)",),
        told=True,
    ),
    SharedFile(
        "toyhom-med-qa/neike_5000-6000.csv", CHATS, columns(ask="prompt", answer="completion"),
        3847, {}, ("not used: department, title (3847 values)",), told=True,
    ),
]  # fmt: skip
REFUSED = [
    Refused(f"{DEMOS}/kto_en_demo.json", CHATS, "KTO"),
    Refused(f"{DEMOS}/dataset_info.json", CHATS, "one object of objects"),
    Refused("belle/zh_seed_tasks.json", CHATS, "'instances'.* fit no known format"),
    Refused("cmrc2018/cmrc2018_dev.json", "prompts", r"json.load\(old\)\['data'\]"),
    Refused("cmrc2018/cmrc2018_trial.json", "prompts", r"json.load\(old\)\['data'\]"),
    Refused("cvalues-prompts/augmentation_prompts.json", "prompts", "fit no known format"),
    Refused("oasst-rm-zh/oaast_rm_zh.json", CHATS, "write the best one alone, as text"),
    Refused("safetybench-zh/test_answers_zh_subset.json", CHATS, "one object of objects"),
    Refused("thucnews-titles/class.txt", "text", "must end in one of"),
    Refused("thucnews-titles/dev.txt", "text", "must end in one of"),
]


def data_files(folder: Path) -> Iterator[str]:
    """The files of the folder that hold data: no notices, no tokenizers."""
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder)
        about = path.name in ("SOURCE.txt", "MANIFEST.json", "README.md")
        if path.is_file() and not about and name.parts[0] != "tokenizers":
            yield name.as_posix()
