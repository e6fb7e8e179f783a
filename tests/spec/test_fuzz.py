"""Whatever a person writes, the loader gives a spec or a list of problems, never a traceback."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from easyds_tune.errors import DataError, SpecError
from easyds_tune.spec.algorithm import PPOSpec
from easyds_tune.spec.base import written_fields
from easyds_tune.spec.load import load_sweep, parse_params, read_yaml
from easyds_tune.spec.rungs import rungs
from easyds_tune.spec.sweep import SweepSpec, trial_spec
from easyds_tune.sweep.plan import plan_text

ROOT = Path(__file__).parents[2]
EXAMPLES = int(os.environ.get("EASYDS_FUZZ_EXAMPLES", "200"))
FUZZ = settings(
    max_examples=EXAMPLES,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)

PLAIN = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 40),
    st.sampled_from([10**12, 10**400, -(10**400), 1e308, -1e308, 1e-320]),
    st.floats(),
    st.sampled_from(
        ["", "dpo", "rm", "zero2", "all-linear", "auto", "data", ".", "..", "a\0b", "~", "~nobody",
         "%s", "教学", "\ud800", "search_spaces", "data/easyds/sft.jsonl", "1e-5", "eval/loss",
         "x" * 300]
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
SWEEPS = st.sampled_from([ROOT / "sweeps" / f"{name}.yaml" for name in ("dpo", "ppo")])
FIELDS = st.sampled_from(
    [f"{section}.{name}" for section, field in SweepSpec.model_fields.items()
     for name in getattr(field.annotation, "model_fields", {"type": None, "loss_type": None})]
    + [f"algorithm.{name}" for name in PPOSpec.model_fields]
    + [f"search_space.algorithm.{name}" for name in PPOSpec.model_fields]
    + list(written_fields(SweepSpec))
    + ["bounds.eval/kl", "bounds.eval/kl.max", "bounds.train/grad_norm.patience"]
    + ["search_space.training.learning_rate", "search_space.algorithm.beta", "model", "a.b.c"]
)  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def _small_working_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The bundled models and spaces, and just enough records to plan with."""
    folder = tmp_path_factory.mktemp("fuzz")
    (folder / "data" / "easyds").mkdir(parents=True)
    (folder / "data" / "models").symlink_to(ROOT / "data" / "models")
    (folder / "search_spaces").symlink_to(ROOT / "search_spaces")
    for name in ("sft", "preferences", "prompts", "judge_prompts", "finals_prompts"):
        lines = (ROOT / "data" / "easyds" / f"{name}.jsonl").read_text("utf-8").split("\n")[:20]
        (folder / "data" / "easyds" / f"{name}.jsonl").write_text("\n".join(lines), "utf-8")
    before = Path.cwd()
    os.chdir(folder)
    yield
    os.chdir(before)


def _places(tree: Any, above: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every path into nested dicts and lists."""
    found = [above] if above else []
    entries = tree.items() if isinstance(tree, dict) else enumerate(tree)
    for key, value in entries:
        if isinstance(value, dict | list):
            found += _places(value, (*above, key))
        else:
            found.append((*above, key))
    return found


@st.composite
def mutated_specs(draw: st.DrawFn) -> Any:
    """A bundled sweep with one to three of its entries replaced, removed, renamed or added."""
    name = draw(st.sampled_from(["dpo", "sft", "rm", "ppo"]))
    sweep, space = ROOT / "sweeps" / f"{name}.yaml", ROOT / "search_spaces" / f"{name}.yaml"
    raw = read_yaml(sweep.read_text("utf-8"), sweep.name)
    raw["search_space"] = read_yaml(space.read_text("utf-8"), space.name)
    for _ in range(draw(st.integers(1, 3))):
        *above, last = draw(st.sampled_from(_places(raw)))
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


def _reads_files_only(spec: SweepSpec) -> bool:
    """Any other name is looked up on the hub, where there is one to reach."""
    prompts = [spec.judge.prompts] if spec.judge else []
    if spec.finals and spec.finals.prompts:
        prompts.append(spec.finals.prompts)
    sources = [*spec.data.train, *(spec.data.eval or []), *prompts]
    return all(os.path.isfile(source.path) for source in sources)


def _load(text: str, overrides: list[str]) -> None:
    """Load, and use what was loaded in every way that needs no training; or find problems."""
    path = Path("fuzzed.yaml")
    path.write_text(text, encoding="utf-8", errors="surrogatepass")
    problems = ["none"]
    try:
        spec = load_sweep(str(path), overrides)
        rungs(spec, 20)
        trial_spec(spec, "0", spec.default_params(), 20)
        if _reads_files_only(spec):
            plan_text(spec)
    except (SpecError, DataError) as error:
        problems = error.problems
    assert problems
    assert all(problem.strip() for problem in problems)


@FUZZ
@given(mutated_specs())
def test_a_mutated_sweep_loads_or_says_what_is_wrong(raw: Any) -> None:
    _load(yaml.safe_dump(raw, allow_unicode=True), [])


@FUZZ
@given(st.data())
def test_a_sweep_with_damaged_text_loads_or_says_what_is_wrong(data: st.DataObject) -> None:
    text = (ROOT / "sweeps" / "dpo.yaml").read_text("utf-8")
    for _ in range(data.draw(st.integers(1, 4))):
        start = data.draw(st.integers(0, len(text)))
        end = min(len(text), start + data.draw(st.integers(0, 12)))
        junk = data.draw(
            st.one_of(st.text(max_size=4), st.text("[]{}:,&*!|>'\"%@`#?- \n\t~", max_size=4))
        )
        text = text[:start] + junk + text[end:]
    _load(text, [])


@FUZZ
@given(st.one_of(st.text(), st.text("ab:- \n{}[]&*!?|>'\"#,\t1"), VALUES.map(yaml.safe_dump)))
def test_any_text_at_all_says_what_is_wrong(text: str) -> None:
    _load(text, [])


@FUZZ
@given(
    SWEEPS,
    st.lists(st.tuples(FIELDS, PLAIN.map(str) | st.text(max_size=8)), min_size=1, max_size=3),
)
def test_any_override_loads_or_says_what_is_wrong(
    sweep: Path, pairs: list[tuple[str, str]]
) -> None:
    overrides = [f"{path}={value}" for path, value in pairs]
    _load(sweep.read_text("utf-8"), overrides)


@FUZZ
@given(
    SWEEPS,
    st.lists(st.tuples(FIELDS | st.text(max_size=9), PLAIN.map(str)), min_size=1, max_size=3),
)
def test_any_trial_parameters_hold_or_say_what_is_wrong(
    sweep: Path, pairs: list[tuple[str, str]]
) -> None:
    spec = load_sweep(str(sweep))
    problems = ["none"]
    try:
        params = parse_params(spec, [f"{path}={value}" for path, value in pairs])
        trial_spec(spec, "0", params, 20)
    except SpecError as error:
        problems = error.problems
    assert problems
