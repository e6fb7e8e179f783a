"""The bundled files are what the generator writes, and hold what the data card says."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
from dialogues import guides, held_out_combination, load_curriculum, training_turn
from make_data import FINALS_PROMPTS, JUDGE_PROMPTS, PAIRS, PROMPTS, SFT_ROWS, write_all

from easyds_tune.data.read import read
from easyds_tune.data.split import remove_overlap
from easyds_tune.spec.data import DataSource

BUNDLED = Path(__file__).parents[2] / "data" / "easyds"
FILES = ("sft", "preferences", "prompts", "judge_prompts", "finals_prompts")


def rows(name: str) -> list[dict[str, Any]]:
    text = (BUNDLED / f"{name}.jsonl").read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]


def records(name: str, kind: Any) -> list[Any]:
    report = read(DataSource(path=str(BUNDLED / f"{name}.jsonl")), kind)
    assert not report.dropped
    return report.records


def test_the_generator_writes_the_bundled_files_byte_for_byte(tmp_path: Path) -> None:
    write_all(tmp_path)
    for name in FILES:
        written, bundled = (folder / f"{name}.jsonl" for folder in (tmp_path, BUNDLED))
        assert written.read_bytes() == bundled.read_bytes(), name


@pytest.mark.parametrize(
    ("name", "kind", "count"),
    [
        ("sft", "conversations", SFT_ROWS),
        ("preferences", "preferences", PAIRS),
        ("prompts", "prompts", PROMPTS),
        ("judge_prompts", "prompts", JUDGE_PROMPTS),
        ("finals_prompts", "prompts", FINALS_PROMPTS),
    ],
)
def test_the_readers_recognise_every_file_and_drop_nothing(
    name: str, kind: Any, count: int
) -> None:
    assert len(records(name, kind)) == count


@pytest.mark.parametrize(
    ("name", "kind"),
    [("sft", "conversations"), ("preferences", "preferences"), ("prompts", "prompts")],
)
def test_no_judge_prompt_occurs_in_training_data(name: str, kind: Any) -> None:
    judge_prompts = records("judge_prompts", "prompts")
    kept, removed = remove_overlap(records(name, kind), judge_prompts)
    assert (len(kept), removed) == (JUDGE_PROMPTS, 0)


@pytest.mark.parametrize(
    ("name", "kind"),
    [("sft", "conversations"), ("preferences", "preferences"), ("prompts", "prompts"),
     ("judge_prompts", "prompts")],
)  # fmt: skip
def test_no_finals_prompt_occurs_anywhere_else(name: str, kind: Any) -> None:
    kept, removed = remove_overlap(records(name, kind), records("finals_prompts", "prompts"))
    assert (len(kept), removed) == (FINALS_PROMPTS, 0)


def test_training_never_draws_the_combination_that_the_judge_asks_in() -> None:
    points, rng = load_curriculum(), random.Random(0)
    for _ in range(5000):
        turn = training_turn(rng, points)
        assert (turn.level, turn.mood) != held_out_combination(turn.point)


@pytest.mark.parametrize("name", ["judge_prompts", "finals_prompts"])
def test_judge_and_finals_ask_about_every_knowledge_point(name: str) -> None:
    asked = {tuple(row["answer"]) for row in rows(name)}
    assert asked == {point.answer_keys for point in load_curriculum()}


def test_every_sft_reply_ends_with_a_question_and_is_short() -> None:
    replies = [json.loads(row["output"])["content"] for row in rows("sft")]
    assert all(reply.endswith("？") and 15 <= len(reply) <= 65 for reply in replies)


def test_about_five_percent_of_the_pairs_are_labelled_the_wrong_way_round() -> None:
    easy = [row for row in rows("preferences") if row["grade"] == "easy"]
    swapped = [row for row in easy if row["rejected"].endswith("？")]
    assert 0.03 < len(swapped) / len(easy) < 0.07


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        ("想想食堂里摞起来的盘子，最先被拿走的是哪一只？", True),
        ("栈是后进先出的。", False),
        ("栈是后进先出的，明白了吗？", False),
        ("想想食堂里摞起来的盘子。", False),
        ("Which one comes off first?\n", True),
    ],
)
def test_a_reply_guides_if_it_asks_and_keeps_the_answer_back(reply: str, expected: bool) -> None:
    assert guides(reply, ["后进先出"]) is expected


def test_a_hint_that_holds_the_answer_is_refused_with_its_line(tmp_path: Path) -> None:
    broken = tmp_path / "curriculum.txt"
    broken.write_text(
        "## 栈\n定义|问|后进先出|后进先出|想想后进先出|哪一个|先进\n", encoding="utf-8"
    )
    with pytest.raises(ValueError, match="line 2: the hint or question '想想后进先出'"):
        load_curriculum(broken)
