"""Whatever records hold and whatever a template does, they become ids or a problem in words."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from easyds_tune.data.read import read
from easyds_tune.data.records import Conversation, PlainText, PreferencePair, prompt_of
from easyds_tune.data.template import NO_TEMPLATE, choose_template
from easyds_tune.data.tokenise import IGNORED, Encoder
from easyds_tune.data.training_sets import dpo_dataset, ppo_dataset, reward_dataset, sft_dataset
from easyds_tune.errors import DataError, SpecError
from easyds_tune.spec.data import DataSource
from tests.data.byte_tokenizer import CHATML
from tests.data.rows import MESSAGES, ROWS, TEXTS
from tests.fuzz import FUZZ, assert_clear, bounded

pytestmark = pytest.mark.fuzz

TEMPLATES = [
    NO_TEMPLATE,
    CHATML,
    "{% for m in messages %}[{{ m.role }}] {{ m.content | trim }}\n{% endfor %}",
    "{% for m in messages %}{{ m.content }}{% endfor %}",
    "{{ messages[-2].content if messages | length > 1 }}{{ messages[-1].content }}",
    "{% for m in messages %}{% if m.role == 'tool' %}{{ raise_exception('no tools') }}{% endif %}"
    "{{ m.content }}{{ 1 / (m.content | length - 1) }}{% endfor %}",
]
PAIRS = st.fixed_dictionaries(
    {"prompt": TEXTS | MESSAGES, "chosen": TEXTS | MESSAGES, "rejected": TEXTS | MESSAGES}
)
CHATS = st.fixed_dictionaries({"messages": MESSAGES}) | st.fixed_dictionaries({"text": TEXTS})


@FUZZ
@given(
    st.lists(PAIRS, min_size=1, max_size=3) | st.lists(CHATS, min_size=1, max_size=3) | ROWS,
    st.sampled_from(["conversations", "preferences", "prompts"]),
    st.sampled_from(TEMPLATES),
    st.none() | st.integers(1, 40),
)
def test_any_records_become_ids_or_say_why_not(
    tmp_path: Path, bytes_tokenizer: Any, rows: list[Any], kind: Any, text: str, limit: int | None
) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes("\n".join(map(json.dumps, rows)).encode())
    with bounded():
        try:
            records: list[Any] = read(DataSource(path=str(path)), kind).records
            encoder = Encoder(bytes_tokenizer, choose_template(bytes_tokenizer, text))
            if kind == "prompts":
                assert all(ppo_dataset(records, encoder, None).dataset["prompt_ids"])
                ppo_dataset(records, encoder, limit)
            elif kind == "preferences":
                _pairs_are_whole(records, encoder, limit)
            else:
                _labels_are_of_replies(records, encoder, limit)
        except (DataError, SpecError) as error:
            assert_clear(error.problems)


def _pairs_are_whole(records: list[PreferencePair], encoder: Encoder, limit: int | None) -> None:
    for pair, row in zip(records, encoder.pairs(records), strict=True):
        assert row["chosen_ids"]
        assert row["rejected_ids"]
        assert row["prompt_ids"] == encoder.prompt_ids(prompt_of(pair))
    dpo_dataset(records, encoder, limit)
    reward_dataset(records, encoder, limit)


def _labels_are_of_replies(
    records: list[Conversation | PlainText], encoder: Encoder, limit: int | None
) -> None:
    for row in encoder.conversations(records):
        assert len(row["labels"]) == len(row["input_ids"])
        assert any(label != IGNORED for label in row["labels"])
        pairs = zip(row["input_ids"], row["labels"], strict=True)
        assert all(label in (IGNORED, token) for token, label in pairs)
    sft_dataset(records, encoder, limit)


PIECES = st.sampled_from(
    ["{{ messages }}", "{% for m in messages %}", "{% endfor %}", "{{ m.content }}",
     "{{ 1 / 0 }}", "{{ messages[9].content }}", "{{ range(10 ** 9) | list }}",
     "{{ 'a' * 10 ** 13 }}", "{{ 2 ** 0.5 }}", "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
     "{{ x.y.z }}", "{% if", "{{", "{#", "}}",
     "{{ messages[0].content }}{{ messages[1].content }}", "{{ ''.__class__.__mro__ }}", "\0",
     "{{ messages | tojson }}", "{{ raise_exception('no') }}", "{% include 'x' %}",
     "{{ '%d' % 'a' }}", "{% for a in 'ab' %}" * 25 + "{% endfor %}" * 25,
     "{{ 'a'.encode('x') }}", "{{ messages.pop() }}", "{{ messages.append(1) }}",
     "{{ namespace().x }}", "{% set x = 1 %}", "{{ [1][3] }}", "{{ {}['a'] }}",
     "{{ '\\ud800' }}", "{{ (1, 2) | map('x') | list }}", "{{ 'x' | int(base=99) }}",
     "~no-such-user/a.jinja"]
)  # fmt: skip


@FUZZ
@given(st.lists(PIECES | TEXTS, max_size=5).map("".join))
def test_any_template_renders_or_says_why_not(bytes_tokenizer: Any, text: str) -> None:
    with bounded():
        try:
            template = choose_template(bytes_tokenizer, text)
            Encoder(bytes_tokenizer, template).prompt_ids([{"role": "user", "content": "q"}])
        except (DataError, SpecError) as error:
            assert_clear(error.problems)
