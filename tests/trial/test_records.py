"""A sweep's records: held out where the algorithm asks, overlap removed, all problems at once."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from easyds_tune.data.records import PreferencePair, Prompt, user
from easyds_tune.errors import DataError
from easyds_tune.spec.data import DataSpec
from easyds_tune.spec.finals import FinalsSpec
from easyds_tune.spec.judge import JudgeSpec
from easyds_tune.trial.records import margin_notes, read_records


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


def pair(question: str, **more: Any) -> dict[str, Any]:
    return {"prompt": question, "chosen": "a", "rejected": "b", **more}


def test_data_eval_loses_what_training_asks_and_says_so(pairs: Path, tmp_path: Path) -> None:
    # Another reply, another spelling of the white space: the question is in the training data.
    rows = [pair("question 3"), pair(" question  4"), pair("new one"), pair("new two")]
    spec = data(pairs, eval=[{"path": str(written(tmp_path / "eval.jsonl", rows))}])
    records = read_records(spec, "rm", None)
    assert [r.prompt[0]["content"] for r in records.held_out] == ["new one", "new two"]  # type: ignore[union-attr]
    assert records.notes == ["data.eval: 2 removed, they are in the training data"]
    assert len(records.train) == 20


@pytest.mark.parametrize("kept", [0, 1])
def test_data_eval_with_almost_nothing_left_is_a_problem(
    pairs: Path, tmp_path: Path, kept: int
) -> None:
    rows = [pair(f"question {n}") for n in range(12)] + [pair("new")] * kept
    spec = data(pairs, eval=[{"path": str(written(tmp_path / "eval.jsonl", rows))}])
    with pytest.raises(DataError) as error:
        read_records(spec, "rm", None)
    assert error.value.problems == [
        "data.eval: 12 removed, they are in the training data; at least 2 must be left, got "
        f"{kept} of {12 + kept}; give others, or leave data.eval out to hold out eval_fraction of "
        "data.train"
    ]


def test_a_held_out_conversation_is_removed_where_training_answers_any_of_its_questions(
    tmp_path: Path,
) -> None:
    def chat(*turns: str) -> dict[str, Any]:
        roles = ("user", "assistant")
        return {"messages": [{"role": roles[n % 2], "content": t} for n, t in enumerate(turns)]}

    train = written(tmp_path / "train.jsonl", [chat("a", "b", "c", "d"), chat("t", "u")])
    rows = [
        chat("a", "other"),
        chat("a", "b", "c", "other"),
        chat("a", "x", "c", "d"),
        chat("e", "f"),
        chat("g", "h", "i", "j"),
    ]
    spec = data(train, eval=[{"path": str(written(tmp_path / "eval.jsonl", rows))}])
    records = read_records(spec, "sft", None)
    assert [r.messages[-2]["content"] for r in records.held_out] == ["e", "i"]  # type: ignore[union-attr]
    assert records.notes == [
        "warning: data.eval: 3 removed, they are in the training data, 2 are left"
    ]


def test_a_plain_text_of_the_training_data_is_not_held_out(tmp_path: Path) -> None:
    texts = [{"text": f"text {n}"} for n in range(6)]
    train = data(
        written(tmp_path / "train.jsonl", texts[:3]),
        eval=[{"path": str(written(tmp_path / "eval.jsonl", texts[2:]))}],
    )
    records = read_records(train, "sft", None)
    assert (len(records.train), len(records.held_out)) == (3, 3)
    assert records.notes == ["data.eval: 1 removed, they are in the training data"]


def test_the_finals_are_judged_on_no_training_record_either(tmp_path: Path) -> None:
    rows = [pair(f"question {n}") for n in range(100)]
    train = written(tmp_path / "train.jsonl", rows[:60])
    spec = data(train, eval=[{"path": str(written(tmp_path / "eval.jsonl", rows[20:]))}])
    records = read_records(spec, "rm", None, finals(tmp_path), "eval/accuracy")
    assert (len(records.held_out), len(records.finals_held_out)) == (20, 20)
    trained = {str(r.prompt) for r in records.train}  # type: ignore[union-attr]
    assert not trained & {str(r.prompt) for r in records.finals_held_out}  # type: ignore[union-attr]


def test_held_out_settings_that_change_nothing_are_named(pairs: Path, tmp_path: Path) -> None:
    other = written(tmp_path / "eval.jsonl", [pair(f"other {n}") for n in range(3)])
    both = data(pairs, eval=[{"path": str(other)}], eval_fraction=0.3)
    assert read_records(both, "rm", None).notes == [
        "data.eval_fraction: not used, data.eval is given"
    ]
    assert read_records(both, "dpo", None).notes == [
        "data.eval: not read, dpo is measured by the judge alone",
        "data.eval_fraction: not used, dpo holds nothing out",
    ]


def test_reading_that_leaves_little_is_a_warning_with_the_numbers(tmp_path: Path) -> None:
    rows = [pair(f"q{n}") for n in range(3)] + [
        {"prompt": f"p{n}", "chosen": "same", "rejected": "same"} for n in range(9)
    ]
    path = written(tmp_path / "pairs.jsonl", rows)
    records = read_records(data(path), "dpo", None)
    warning = "warning: data.train: 9 of 12 records (75%) are left out, 3 are left"
    assert warning in records.notes
    assert records.mostly_left_out == "9 of 12 records (75%)"
    limited = DataSpec(train=[{"path": str(path), "limit": 2}])
    assert read_records(limited, "dpo", None).mostly_left_out is None


def test_margins_that_no_loss_reads_are_named_with_their_count() -> None:
    def notes(algorithm: str, *margins: float | None) -> list[str]:
        question = (user("q"),)
        pairs = [PreferencePair(question, "a", "b", margin) for margin in margins]
        return margin_notes("data.train", pairs, algorithm)

    assert notes("rm", 1.0, 2.0) == notes("dpo", None, None) == []
    assert notes("dpo", 1.0, 2.0) == ["data.train: margin: 2 values not used by dpo"]
    assert notes("rm", None, 2.0, None) == [
        "data.train: margin: missing in 2 pairs, it counts as 0"
    ]


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
    assert records.notes == [
        "warning: judge.prompts: 10 of the 64 asked for, too few to tell trials apart"
    ]


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


def finals(tmp_path: Path, numbers: range | None = None, **settings: Any) -> FinalsSpec:
    if numbers is not None:
        rows = [{"prompt": f"question {n}"} for n in numbers]
        settings["prompts"] = {"path": str(written(tmp_path / "finals.jsonl", rows))}
    return FinalsSpec.model_validate(settings)


def asked(prompts: list[Prompt]) -> list[str]:
    return [prompt.messages[0]["content"] for prompt in prompts]


def test_the_finals_ask_what_follows_the_judges_own_prompts(pairs: Path, tmp_path: Path) -> None:
    of_judge = judge(tmp_path, range(20, 60), count=10)
    records = read_records(data(pairs), "dpo", of_judge, finals(tmp_path))
    assert asked(records.prompts) == [f"question {n}" for n in range(20, 30)]
    assert asked(records.finals_prompts) == [f"question {n}" for n in range(30, 50)]
    assert records.hold_finals
    assert {"finals_prompts", "prompts"} < records.hashes.keys()
    few = read_records(data(pairs), "dpo", of_judge, finals(tmp_path, num_prompts=4))
    assert asked(few.finals_prompts) == [f"question {n}" for n in range(30, 34)]
    assert records.notes == few.notes == []


def test_finals_prompts_of_their_own_leave_out_what_training_or_the_judge_asks(
    pairs: Path, tmp_path: Path
) -> None:
    of_judge = judge(tmp_path, range(20, 30), count=10)
    records = read_records(data(pairs), "dpo", of_judge, finals(tmp_path, range(15, 50)))
    assert asked(records.finals_prompts) == [f"question {n}" for n in range(30, 50)]
    assert records.notes == [
        "finals.prompts: 15 removed, they are in the training data or the judge's, or repeat an "
        "earlier one"
    ]
    wanted = finals(tmp_path, range(30, 50), num_prompts=64)
    records = read_records(data(pairs), "dpo", of_judge, wanted)
    assert records.notes == ["finals: 20 of the 64 prompts asked for"]


def test_too_few_prompts_for_finals_are_said_and_given_ones_are_a_problem(
    pairs: Path, tmp_path: Path
) -> None:
    of_judge = judge(tmp_path, range(20, 40), count=10)
    records = read_records(data(pairs), "dpo", of_judge, finals(tmp_path))
    assert not records.hold_finals
    assert records.notes == [
        "finals: no finals, 10 prompts are left beyond the judge's and 16 are needed; best then "
        "shows the search's own number, which is biased upward; give finals.prompts"
    ]
    with pytest.raises(DataError, match=r"at least 16 prompts must be left .* got 3"):
        read_records(data(pairs), "dpo", of_judge, finals(tmp_path, range(28, 33)))
    assert not read_records(data(pairs), "dpo", of_judge, None).notes


@pytest.mark.parametrize(
    ("algorithm", "objective"), [("rm", "eval/accuracy"), ("sft", "eval/loss")]
)
def test_half_of_the_held_out_records_is_kept_for_the_finals(
    algorithm: str, objective: str, tmp_path: Path
) -> None:
    key = {"rm": {"chosen": "yes", "rejected": "no"}, "sft": {"completion": "yes"}}[algorithm]
    path = written(
        tmp_path / "many.jsonl", [{"prompt": f"question {n}", **key} for n in range(160)]
    )
    half = data(path, eval_fraction=0.5)
    alone = read_records(half, algorithm, None, None, objective)
    split = read_records(half, algorithm, None, finals(tmp_path), objective)
    assert split.train == alone.train
    assert (len(split.held_out), len(split.finals_held_out)) == (40, 40)
    together = [*split.held_out, *split.finals_held_out]
    assert sorted(map(repr, together)) == sorted(map(repr, alone.held_out))
    assert read_records(half, algorithm, None, finals(tmp_path), objective) == split
    few = read_records(half, algorithm, None, finals(tmp_path, num_prompts=10), objective)
    assert (len(few.held_out), len(few.finals_held_out)) == (70, 10)


def test_few_held_out_records_all_serve_the_search(tmp_path: Path) -> None:
    rows = [{"prompt": f"question {n}", "chosen": "a", "rejected": "b"} for n in range(60)]
    few = data(written(tmp_path / "few.jsonl", rows), eval_fraction=0.5)
    records = read_records(few, "rm", None, finals(tmp_path), "eval/accuracy")
    assert (len(records.held_out), records.finals_held_out) == (30, [])
    assert not records.hold_finals
    [note] = records.notes
    assert note.startswith("finals: no finals, half of 30 held-out records is fewer than 16; best")
