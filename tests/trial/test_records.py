"""A sweep's records: held out where the algorithm asks, overlap removed, all problems at once."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from easyds_tune.data.records import Prompt
from easyds_tune.errors import DataError
from easyds_tune.spec.data import DataSpec
from easyds_tune.spec.judge import JudgeSpec
from easyds_tune.trial.records import read_records


def written(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    rows = [{"prompt": f"question {n}", "chosen": "yes", "rejected": "no"} for n in range(20)]
    return written(tmp_path / "pairs.jsonl", rows)


def judge(tmp_path: Path, numbers: range, count: int = 64) -> JudgeSpec:
    path = written(tmp_path / "prompts.jsonl", [{"prompt": f"question {n}"} for n in numbers])
    return JudgeSpec(
        prompts={"path": str(path)},
        num_prompts=count,
        reward={"model_name_or_path": "never-loaded"},
    )


def data(path: Path, **changes: Any) -> DataSpec:
    return DataSpec(train=[{"path": str(path)}], **changes)


def test_dpo_trains_on_every_record(pairs: Path, tmp_path: Path) -> None:
    records = read_records(data(pairs), "dpo", judge(tmp_path, range(30, 40), count=10))
    assert (len(records.train), len(records.held_out), len(records.prompts)) == (20, 0, 10)
    assert records.hashes.keys() == {"train", "prompts"}
    assert records.notes == []


def test_a_reward_model_holds_a_share_of_the_prompts_out(pairs: Path) -> None:
    records = read_records(data(pairs, eval_fraction=0.25), "rm", None)
    assert (len(records.train), len(records.held_out)) == (15, 5)
    assert not {str(r.prompt) for r in records.train} & {str(r.prompt) for r in records.held_out}
    again = read_records(data(pairs, eval_fraction=0.25), "rm", None)
    assert again == records


def test_held_out_records_of_their_own_leave_the_training_whole(
    pairs: Path, tmp_path: Path
) -> None:
    rows = [{"prompt": f"other {n}", "chosen": "a", "rejected": "b"} for n in range(3)]
    held_out = written(tmp_path / "eval.jsonl", rows)
    records = read_records(data(pairs, eval=[{"path": str(held_out)}]), "rm", None)
    assert (len(records.train), len(records.held_out)) == (20, 3)


def test_judge_prompts_seen_in_training_are_removed_and_counted(
    pairs: Path, tmp_path: Path
) -> None:
    records = read_records(data(pairs), "dpo", judge(tmp_path, range(15, 30), count=10))
    assert [prompt.messages[0]["content"] for prompt in records.prompts] == [
        f"question {n}" for n in range(20, 30)
    ]
    assert records.notes == ["judge.prompts: 5 removed, they are in the training data"]


def test_the_judge_takes_its_first_prompts(pairs: Path, tmp_path: Path) -> None:
    records = read_records(data(pairs), "dpo", judge(tmp_path, range(18, 40), count=4))
    assert [prompt.messages[0]["content"] for prompt in records.prompts] == [
        f"question {n}" for n in range(20, 24)
    ]


def test_fewer_judge_prompts_than_asked_for_are_said(pairs: Path, tmp_path: Path) -> None:
    records = read_records(data(pairs), "dpo", judge(tmp_path, range(30, 40), count=64))
    assert records.notes == ["judge.prompts: 10 of the 64 asked for"]


def test_ppo_asks_the_prompts_of_any_records_and_holds_none_out(
    pairs: Path, tmp_path: Path
) -> None:
    records = read_records(data(pairs, eval_fraction=0.5), "ppo", judge(tmp_path, range(18, 24)))
    assert (len(records.train), records.held_out) == (20, [])
    assert {type(record) for record in records.train} == {Prompt}
    # What the policy trains on, the judge does not ask.
    assert [prompt.messages[0]["content"] for prompt in records.prompts] == [
        f"question {n}" for n in range(20, 24)
    ]


def test_a_judge_prompt_is_asked_once(pairs: Path, tmp_path: Path) -> None:
    questions = ["a b", "c", "a  b", "d", "c"]  # the third differs from the first by a space
    path = written(tmp_path / "twice.jsonl", [{"prompt": text} for text in questions])
    asked = judge(tmp_path, range(3), count=3).model_dump() | {"prompts": str(path)}
    records = read_records(data(pairs), "dpo", JudgeSpec.model_validate(asked))
    assert [prompt.messages[0]["content"] for prompt in records.prompts] == ["a b", "c", "d"]
    assert records.notes == ["judge.prompts: 2 removed, they repeat an earlier one"]


def test_a_judge_left_without_prompts_is_a_problem(pairs: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="at least 2 prompts must not be in the training data"):
        read_records(data(pairs), "dpo", judge(tmp_path, range(10, 21)))


def test_a_reward_model_needs_two_held_out_pairs(tmp_path: Path) -> None:
    one = written(tmp_path / "one.jsonl", [{"prompt": "p", "chosen": "a", "rejected": "b"}])
    with pytest.raises(DataError, match="at least 2 held-out pairs, got 0"):
        read_records(data(one), "rm", None)


def test_the_problems_of_all_sources_come_together(tmp_path: Path) -> None:
    asked = judge(tmp_path, range(3)).model_dump()
    missing = JudgeSpec.model_validate(asked | {"prompts": "no-prompts.jsonl"})
    with pytest.raises(DataError) as error:
        read_records(data(tmp_path / "none.jsonl"), "dpo", missing)
    assert [problem.partition(":")[0] for problem in error.value.problems] == [
        "data.train",
        "judge.prompts",
    ]
