"""Writes the bundled demo data, `data/easyds/*.jsonl`, from the grammar in `dialogues.py`.

    python data/make_data.py [--to FOLDER]

The same files byte for byte on every run: standard library only, one fixed seed per file.
"""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any

from dialogues import (
    Point,
    Turn,
    broken_reply,
    giving_reply,
    guiding_reply,
    held_out_turn,
    leaking_reply,
    load_curriculum,
    off_topic_reply,
    training_turn,
    vague_reply,
)

HERE = Path(__file__).parent
SFT_ROWS, PAIRS, PROMPTS, JUDGE_PROMPTS, FINALS_PROMPTS = 3000, 2000, 600, 128, 256
# The share of pairs whose order is wrong, so that no reward model can be right about all of them.
LABEL_NOISE = 0.05
# The three grades of difficulty, and how often each is drawn.
GRADES = {"easy": 0.4, "medium": 0.3, "hard": 0.3}

Row = dict[str, Any]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--to", type=Path, default=HERE / "easyds", help="folder to write to")
    write_all(parser.parse_args().to)


def write_all(folder: Path) -> None:
    """Writes the five files; an existing one is replaced."""
    points = load_curriculum()
    folder.mkdir(parents=True, exist_ok=True)
    write_rows(folder / "sft.jsonl", sft_rows(points, SFT_ROWS, seed=11))
    write_rows(folder / "preferences.jsonl", preference_rows(points, PAIRS, seed=12))
    write_rows(folder / "prompts.jsonl", prompt_rows(points, PROMPTS, seed=13))
    judge = judge_rows(points, JUDGE_PROMPTS, seed=14)
    write_rows(folder / "judge_prompts.jsonl", judge)
    asked = {row["input"] for row in judge}
    finals = judge_rows(points, FINALS_PROMPTS, seed=15, without=asked)
    write_rows(folder / "finals_prompts.jsonl", finals)


def write_rows(path: Path, rows: Iterable[Row]) -> None:
    lines = (json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    path.write_text("".join(lines), encoding="utf-8", newline="\n")


def sft_rows(points: list[Point], count: int, seed: int) -> list[Row]:
    """EasyDS SFT rows: `input` a JSON string of messages, `output` one of the assistant's."""
    rng = random.Random(seed)
    rows = []
    for _ in range(count):
        turn = training_turn(rng, points)
        messages = [{"role": "user", "content": turn.text}]
        reply = {"role": "assistant", "content": guiding_reply(rng, turn)}
        rows.append({"input": to_json(messages), "output": to_json(reply)})
    return rows


def preference_rows(points: list[Point], count: int, seed: int) -> list[Row]:
    """EasyDS reward rows: each side is one text that opens with the prompt; and their `grade`."""
    rng = random.Random(seed)
    rows = []
    for _ in range(count):
        turn = training_turn(rng, points)
        (grade,) = rng.choices(list(GRADES), weights=list(GRADES.values()))
        chosen, rejected = guiding_reply(rng, turn), worse_reply(rng, turn, grade, points)
        if rng.random() < LABEL_NOISE:
            chosen, rejected = rejected, chosen
        prefix = f"用户: {turn.text}\n助手: "
        rows.append({"chosen": prefix + chosen, "rejected": prefix + rejected, "grade": grade})
    return rows


def worse_reply(rng: random.Random, turn: Turn, grade: str, points: list[Point]) -> str:
    """easy: the answer outright. medium: lets it slip, or breaks off. hard: vague or off-topic."""
    if grade == "easy":
        return giving_reply(rng, turn)
    if grade == "medium":
        leaks = rng.random() < 0.6
        return leaking_reply(rng, turn) if leaks else broken_reply(rng, turn, points)
    return vague_reply(rng, turn) if rng.random() < 0.5 else off_topic_reply(rng, turn, points)


def prompt_rows(points: list[Point], count: int, seed: int) -> list[Row]:
    """EasyDS PPO rows, no text twice."""
    rng = random.Random(seed)
    texts: dict[str, None] = {}
    while len(texts) < count:
        texts[training_turn(rng, points).text] = None
    return [{"input": text} for text in texts]


def judge_rows(
    points: list[Point], count: int, seed: int, without: Collection[str] = ()
) -> list[Row]:
    """Held-out prompts, every point about as often, and the `answer` keys for the rule check.

    without: texts that must not occur, since they are asked elsewhere.
    """
    rng = random.Random(seed)
    rows: dict[str, Row] = {}
    rounds, rest = divmod(count, len(points))
    order = [*points * rounds, *rng.sample(points, rest)]
    for point in order:
        text = held_out_turn(rng, point).text
        while text in rows or text in without:
            text = held_out_turn(rng, point).text
        rows[text] = {"input": text, "answer": list(point.answer_keys)}
    shuffled = list(rows.values())
    rng.shuffle(shuffled)
    return shuffled


def to_json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


if __name__ == "__main__":
    main()
