"""Whatever a person writes, the loader gives a spec or a list of problems, never a traceback."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from easyds_tune.errors import SpecError
from easyds_tune.spec.algorithm import PPOSpec
from easyds_tune.spec.base import written_fields
from easyds_tune.spec.load import load_sweep, parse_params, read_yaml
from easyds_tune.spec.sweep import SweepSpec, trial_spec
from tests.fuzz import FUZZ, assert_clear, bounded
from tests.spec.fuzzing import KEYS, PLAIN, ROOT, VALUES, load, places

pytestmark = [pytest.mark.usefixtures("fuzz_folder"), pytest.mark.fuzz]

SWEEPS = st.sampled_from([ROOT / "sweeps" / f"{name}.yaml" for name in ("dpo", "ppo")])
FIELDS = st.sampled_from(
    [f"{section}.{name}" for section, field in SweepSpec.model_fields.items()
     for name in getattr(field.annotation, "model_fields", {"type": None, "loss_type": None})]
    + [f"algorithm.{name}" for name in PPOSpec.model_fields]
    + [f"search_space.algorithm.{name}" for name in PPOSpec.model_fields]
    + list(written_fields(SweepSpec))
    + ["bounds.eval/kl", "bounds.eval/kl.max", "bounds.train/grad_norm.patience"]
    + ["search_space.training.learning_rate", "search_space.algorithm.beta", "model", "a.b.c"]
    + ["search.points.0", "finals.prompts.path", "training.training_arguments.adam_epsilon"]
    + ["deepspeed.a.b", "deepspeed.zero_optimization.stage", "data.train.columns.a"]
)  # fmt: skip
ODD_PATHS = st.one_of(
    st.text(max_size=9),
    st.text("a.=-[]\0 \n", max_size=9),
    st.sampled_from(
        [".".join("a" * 900), "deepspeed" + ".a" * 300, "\udcff", "name.", "search_space.",
         "a" * 3000,
         "search_space.\udcff", "search_space..", "deepspeed.\udcff", "deepspeed.a\0"]
    ),
)  # fmt: skip
TEXTS = st.one_of(
    PLAIN.map(str),
    VALUES.map(lambda value: yaml.safe_dump(value, default_flow_style=True)),
    st.text(max_size=8),
)


@st.composite
def mutated_specs(draw: st.DrawFn) -> Any:
    """A bundled sweep with one to three of its entries replaced, removed, renamed or added."""
    name = draw(st.sampled_from(["dpo", "sft", "rm", "ppo"]))
    sweep, space = ROOT / "sweeps" / f"{name}.yaml", ROOT / "search_spaces" / f"{name}.yaml"
    raw = read_yaml(sweep.read_text("utf-8"), sweep.name)
    raw["search_space"] = read_yaml(space.read_text("utf-8"), space.name)
    for _ in range(draw(st.integers(1, 3))):
        *above, last = draw(st.sampled_from(places(raw)))
        parent = raw
        for key in above:
            parent = parent[key]
        change = draw(st.sampled_from(["replace", "replace", "remove", "rename", "add"]))
        if change == "replace":
            parent[last] = draw(VALUES)
        elif change == "add" and isinstance(parent, dict):
            parent[draw(KEYS)] = draw(VALUES)
        elif change == "rename" and isinstance(parent, dict):
            parent[draw(KEYS)] = parent.pop(last)
        else:
            del parent[last]
        if not raw:
            break
    return raw


@FUZZ
@given(mutated_specs())
def test_a_mutated_sweep_loads_or_says_what_is_wrong(raw: Any) -> None:
    load(yaml.safe_dump(raw, allow_unicode=True), [])


@FUZZ
@given(SWEEPS, st.lists(st.tuples(FIELDS | ODD_PATHS, TEXTS), min_size=1, max_size=3))
def test_any_override_loads_or_says_what_is_wrong(
    sweep: Path, pairs: list[tuple[str, str]]
) -> None:
    overrides = [f"{path}={value}" for path, value in pairs]
    load(sweep.read_text("utf-8"), overrides)


@FUZZ
@given(SWEEPS, st.lists(st.text(max_size=12) | ODD_PATHS, min_size=1, max_size=2))
def test_what_is_no_override_says_so(sweep: Path, overrides: list[str]) -> None:
    load(sweep.read_text("utf-8"), overrides)


@FUZZ
@given(SWEEPS, st.lists(st.tuples(FIELDS | ODD_PATHS, TEXTS), min_size=1, max_size=3))
def test_any_trial_parameters_hold_or_say_what_is_wrong(
    sweep: Path, pairs: list[tuple[str, str]]
) -> None:
    spec = load_sweep(str(sweep))
    problems = ["none"]
    with bounded():
        try:
            params = parse_params(spec, [f"{path}={value}" for path, value in pairs])
            trial_spec(spec, "0", params, 20)
        except SpecError as error:
            problems = error.problems
    assert_clear(problems)


@FUZZ
@given(st.one_of(st.text(), PLAIN.map(str), st.text("./~ab", max_size=9), ODD_PATHS))
def test_any_name_of_a_spec_is_found_or_missed(name: str) -> None:
    with bounded():
        try:
            load_sweep(name)
        except SpecError as error:
            assert_clear(error.problems)
