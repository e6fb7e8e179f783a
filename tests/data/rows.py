"""Rows as files might hold them: fields of known names with values of any shape."""

from __future__ import annotations

import json

from hypothesis import strategies as st

FIELDS = st.sampled_from(
    ["prompt", "completion", "chosen", "rejected", "pos_resp", "neg_resp", "label", "messages",
     "conversations", "input", "output", "instruction", "history", "text", "system", "tools"]
)  # fmt: skip
TEXTS = st.one_of(
    st.sampled_from(
        ["", " ", "q", "a", "栈", "\ud800", "\0", "\u2028", "\n\nHuman: q\n\nAssistant: a",
         "\n\nHuman:", "\n\nAssistant: a", "用户: q\n助手: a", "助手：", '[{"role": "user"',
         '{"role": "user", "content": "q"}', '[{"from": "human", "value": "q"}]', "[]", "{}",
         '{"role": ' * 400, '[{"role": 1}]', "<|im_end|>", "<|im_start|>assistant\n", "{{ q }}",
         "\ufdfa" * 9, "e\u0301" * 9]
    ),
    st.text(max_size=8),
)  # fmt: skip
ROLES = st.sampled_from(["user", "assistant", "system", "tool", "human", "gpt", "", "x", "Human"])
MESSAGES = st.lists(
    st.one_of(
        st.builds(lambda role, content: {"role": role, "content": content}, ROLES, TEXTS),
        st.builds(lambda role, content: {"from": role, "value": content}, ROLES, TEXTS),
    ),
    max_size=4,
)


def _nested(depth: int) -> object:
    value: object = "x"
    for _ in range(depth):
        value = [value]
    return value


PLAIN = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.sampled_from([10**4000, -(10**4000), float("nan"), float("inf"), 1e-320]),
    st.floats(),
    TEXTS,
    st.sampled_from([5, 100, 600]).map(_nested),
)
VALUES = st.recursive(
    PLAIN | MESSAGES | MESSAGES.map(json.dumps),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["role", "content", "from", "value", "type", "text", "tool_calls"]),
            inner,
            max_size=3,
        )
    ),
    max_leaves=6,
)
ROWS = st.lists(st.dictionaries(FIELDS, VALUES, max_size=4), min_size=1, max_size=3)
