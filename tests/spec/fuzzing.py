"""What a person may write, at random: the values and the loading that the fuzz tests share."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from easyds_tune.errors import DataError, SpecError
from easyds_tune.spec.load import load_sweep
from easyds_tune.spec.rungs import rungs
from easyds_tune.spec.sweep import SweepSpec, trial_spec
from easyds_tune.sweep.plan import plan_text
from tests.fuzz import assert_clear, bounded

ROOT = Path(__file__).parents[2]

PLAIN = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 40),
    st.sampled_from([10**12, 10**90, 10**400, -(10**400), 1e308, -1e308, 1e-320]),
    st.floats(),
    st.sampled_from(
        ["", "dpo", "rm", "zero2", "all-linear", "auto", "data", ".", "..", "a\0b", "~", "%s",
         "{0}", "~no-such-user", "教学", "\ud800", "search_spaces", "data/easyds/sft.jsonl", "1e-5",
         "eval/loss", "x" * 300, "y/" * 3000, "(" * 3000, "a{99999999999}", "[", "::", "[[a]",
         "data/models/tiny-tutor", "fuzzed.yaml", "\x1b[31m", "\u202e", "a\nb"]
    ),
    st.text(max_size=6),
)  # fmt: skip
KEYS = st.one_of(
    st.sampled_from(["type", "low", "high", "log", "step", "choice", "path", "name", "stage"]),
    st.text(max_size=4),
    st.integers(0, 2),
    st.none(),
    st.booleans(),
)
VALUES = st.recursive(
    PLAIN,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=5,
)


def load(text: str | bytes, overrides: list[str]) -> None:
    """Load, and use what was loaded in every way that needs no training; or find problems."""
    path = Path("fuzzed.yaml")
    path.write_bytes(text.encode("utf-8", "surrogatepass") if isinstance(text, str) else text)
    with bounded():
        problems = ["none"]
        try:
            use(load_sweep(str(path), overrides))
        except (SpecError, DataError) as error:
            problems = error.problems
    assert_clear(problems)


def use(spec: SweepSpec) -> None:
    """Everything that plan and a sweep's beginning compute from a sound spec."""
    rungs(spec, 20)
    trial_spec(spec, "0", spec.default_params(), 20)
    if reads_files_only(spec):
        plan_text(spec).encode("utf-8")  # as it is printed


def reads_files_only(spec: SweepSpec) -> bool:
    """Any other name is looked up on the hub, where there is one to reach."""
    prompts = [spec.judge.prompts] if spec.judge else []
    if spec.finals and spec.finals.prompts:
        prompts.append(spec.finals.prompts)
    sources = [*spec.data.train, *(spec.data.eval or []), *prompts]
    return all(os.path.isfile(source.path) for source in sources)


def places(tree: Any, above: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every path into nested dicts and lists."""
    found = [above] if above else []
    entries = tree.items() if isinstance(tree, dict) else enumerate(tree)
    for key, value in entries:
        if isinstance(value, dict | list):
            found += places(value, (*above, key))
        else:
            found.append((*above, key))
    return found
