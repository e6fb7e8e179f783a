"""What the records do not hold is named in notes, first what training may miss."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from easyds_tune.data.read import ReadReport

Reader = Callable[..., ReadReport]
CHAT = {"prompt": "q", "completion": "a"}


@pytest.mark.parametrize("name", ["reasoning", "thinking", "Complex_CoT", "cot", "rationale"])
def test_a_thought_beside_the_reply_is_a_warning(read_jsonl: Reader, name: str) -> None:
    [note] = read_jsonl([{**CHAT, name: "t"}], "conversations").notes
    assert note.startswith(f"warning: the thoughts of {name} (1 values) are not trained")
    assert read_jsonl([{**CHAT, name: "t"}], "prompts").notes == [f"not used: {name} (1 values)"]


@pytest.mark.parametrize(
    "name", ["user_prompt", "sys_prompt", "System", "label", "sample_weight", "image_path", "query"]
)
def test_what_training_may_miss_is_a_warning_of_its_own(read_jsonl: Reader, name: str) -> None:
    row = {"id": 1, **CHAT, "source": "s", name: "x", "lang": "en"}
    assert read_jsonl([row], "conversations").notes == [
        f"warning: not used: {name} (1 values)",
        "not used: id, source, lang (1 values)",
    ]


@pytest.mark.parametrize(
    "name", ["id", "prompt_id", "index", "lang", "url", "date", "meta", "question_type", "label_id"]
)
def test_harmless_columns_are_in_the_ordinary_note(read_jsonl: Reader, name: str) -> None:
    note = read_jsonl([{**CHAT, name: "x"}], "conversations").notes
    assert note == [f"not used: {name} (1 values)"]
