"""Write how many records of ../shared/data each length limit leaves out or cuts, side by side.

    python tests/benchmarks/real_input/cut_replies.py --out results/evidence/cut-replies.md

Counts only: no text of the data sets is printed.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from easyds_tune.data.read import read
from easyds_tune.data.records import Kind
from easyds_tune.data.template import choose_template
from easyds_tune.data.tokenise import Encoder
from easyds_tune.data.training_sets import Fitted, dpo_dataset, fit_dpo, fit_sft, sft_dataset
from easyds_tune.models.load import load_tokenizer
from easyds_tune.spec.data import DataSource

ROOT = Path(__file__).parents[3]
LENGTHS = (128, 256, 512, 1024)
JADE = {"问题": "prompt", "安全有用回答": "chosen", "违规回答": "rejected"}
FILES: tuple[tuple[str, Kind, dict[str, str]], ...] = (
    ("belle/dev1K.json", "conversations", {}),
    ("belle/eval_set.json", "conversations", {"question": "prompt", "std_answer": "completion"}),
    ("coldataset/dev.csv", "conversations", {"TEXT": "text"}),
    ("gsm8k/test.jsonl", "conversations", {"question": "prompt", "answer": "completion"}),
    ("llamafactory-demos/alpaca_zh_demo.json", "conversations", {}),
    ("llamafactory-demos/glaive_toolcall_zh_demo.json", "conversations", {}),
    ("llamafactory-demos/identity.json", "conversations", {}),
    ("toyhom-med-qa/neike_5000-6000.csv", "conversations",
     {"ask": "prompt", "answer": "completion"}),
    ("hh-rlhf-harmless/test.jsonl.gz", "preferences", {}),
    ("jade-alignment-zh/jade_alignment_hard_zh.csv", "preferences", JADE),
    ("jade-alignment-zh/jade_alignment_medium_zh.csv", "preferences", JADE),
    ("llamafactory-demos/dpo_en_demo.json", "preferences", {}),
    ("llamafactory-demos/dpo_zh_demo.json", "preferences", {}),
    ("llamafactory-demos/v1_dpo_demo.jsonl", "preferences",
     {"chosen_messages": "chosen", "rejected_messages": "rejected"}),
    ("oasst-rm-zh/oaast_rm_zh.json", "preferences", {}),
)  # fmt: skip
CONVERSATIONS = (
    "file", "max_length", "records", "`drop`: left out", "`keep_start`: replies cut",
    "`keep_start`: left out", "`keep_end`: prompts cut", "`keep_end`: left out",
)  # fmt: skip
PAIRS = (
    "file", "max_length", "pairs", "`drop`: left out", "`keep_start`: chosen cut", "rejected cut",
    "only one side", "`keep_start`: left out", "`keep_end`: prompts cut", "`keep_end`: left out",
)  # fmt: skip


def main() -> None:
    """Read every file once and write both tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    tokenizer = load_tokenizer(str(ROOT / "data" / "models" / "tiny-tutor"))
    encoder = Encoder(tokenizer, choose_template(tokenizer, None))
    text = TEXT.format(
        conversations=table(CONVERSATIONS, rows(args.data, "conversations", encoder)),
        pairs=table(PAIRS, rows(args.data, "preferences", encoder)),
    )
    args.out.write_text(text, encoding="utf-8")


def rows(data: Path, kind: Kind, encoder: Encoder) -> Iterator[list[Any]]:
    """A row for each file of a kind and each length."""
    encode: Callable[..., Fitted] = sft_dataset if kind == "conversations" else dpo_dataset
    fit: Callable[..., Fitted] = fit_sft if kind == "conversations" else fit_dpo
    sides = ("reply",) if kind == "conversations" else ("chosen", "rejected", "only one side")
    for name, kind_of_file, columns in FILES:
        if kind_of_file != kind:
            continue
        report = read(DataSource(path=str(data / name), columns=columns), kind)
        dataset = encode(report.records, encoder).dataset
        for length in LENGTHS:
            drop, start, end = (fit(dataset, length, t) for t in ("drop", "keep_start", "keep_end"))
            cut = [start.cut[side] for side in sides]
            yield [name, length, len(dataset), drop.dropped.total(), *cut, start.dropped.total(),
                   end.cut["prompt"], end.dropped.total()]  # fmt: skip


def table(head: tuple[str, ...], body: Iterator[list[Any]]) -> str:
    """A Markdown table."""
    lines = [head, ["---"] * len(head), *body]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)


TEXT = """# What a length limit does to real data

Every file of `../shared/data` that SFT, a reward model or DPO can read, tokenised with the bundled
tutor's tokenizer and chat template (most Chinese characters outside of the demo are three tokens),
by

    python tests/benchmarks/real_input/cut_replies.py --out results/evidence/cut-replies.md

Counts only: no text of the data sets is in this repository. `algorithm.truncation` decides what
becomes of a record longer than `algorithm.max_length`: `drop`, the default, leaves it out;
`keep_start` cuts the end, so the reply has no end token; `keep_end` cuts the beginning of the
prompt and never the last reply, and leaves out what still does not fit. Until this field existed,
SFT and DPO did what `keep_start` does and counted only the records in its "left out" column.

## Conversations (SFT)

A file of plain text (coldataset) has no prompts; `keep_end` then cuts the beginning of the text.

{conversations}

## Pairs (DPO; a reward model has the columns of `drop` and `keep_end`)

{pairs}
"""

if __name__ == "__main__":
    main()
