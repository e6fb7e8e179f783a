"""What is searched, and how: any space, condition, point, bound and limit loads or is refused."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from easyds_tune.spec.algorithm import DPOSpec, PPOSpec
from easyds_tune.spec.load import read_yaml
from easyds_tune.spec.metrics import COSTS, METRICS, OF_THE_CRITIC, OF_THE_JUDGE
from easyds_tune.spec.model import ModelSpec
from easyds_tune.spec.training import TrainingSpec
from tests.fuzz import FUZZ, HEAVY
from tests.spec.fuzzing import PLAIN, ROOT, VALUES, load

pytestmark = [pytest.mark.usefixtures("fuzz_folder"), pytest.mark.fuzz]

RAW = {
    name: read_yaml((ROOT / "sweeps" / f"{name}.yaml").read_text("utf-8"), name)
    for name in ("dpo", "ppo")
}
SECTIONS = {"dpo": DPOSpec, "ppo": PPOSpec}
NUMBERS = st.one_of(
    st.sampled_from([0, 1, 2, 4, 8, 16, 32, 64, 0.05, 0.1, 0.5, 1.0, 1e-5, 1e-3]),
    st.sampled_from([-1, 1e308, -1e308, 5e-324, 2**31, 10**90, -(10**90), float("nan"),
                     float("inf"), True, "8", "1e-3", None, [], 10**400, 1e-300, 0.3]),
    st.integers(-2, 70),
    st.floats(0, 100),
)  # fmt: skip
METRIC = st.one_of(
    st.sampled_from(METRICS["dpo"] + METRICS["rm"] + OF_THE_JUDGE + OF_THE_CRITIC + COSTS),
    st.sampled_from(["train/loss", "train/kl", "memory/gpu_peak_mib", "eval/rewrad", "eval"]),
    PLAIN,
)
NAMES = st.sampled_from(
    ["~", "~no-such-user", "~no-such-user/x", "x" * 300, "y/" * 3000, "a\0b", "", ".", "..", "/",
     "/dev/null", "results", "*", "[", "**", "\udcff", "a\nb", "fuzzed.yaml", "data",
     "search_spaces/dpo.yaml"]
)  # fmt: skip


def _fields(algorithm: str) -> list[str]:
    own = [f"algorithm.{name}" for name in SECTIONS[algorithm].model_fields]
    shared = [f"training.{name}" for name in TrainingSpec.model_fields]
    return [*own, *shared, *(f"model.{name}" for name in ModelSpec.model_fields)]


@st.composite
def params(draw: st.DrawFn, fields: list[str]) -> Any:
    """What to search of one field: mostly a range or a list, with a condition on another field."""
    keys = ["low", "high", "log", "step", "choice", "type"]
    match draw(st.sampled_from(["range", "range", "list", "list", "odd", "any"])):
        case "range":
            low, high = draw(NUMBERS), draw(NUMBERS)
            if type(low) in (int, float) and type(high) in (int, float) and high < low:
                low, high = high, low
            found: Any = {"low": low, "high": high}
            found |= draw(st.fixed_dictionaries({}, optional={"step": NUMBERS}))
            found |= draw(st.fixed_dictionaries({}, optional={"log": st.booleans()}))
        case "list":
            found = {"choice": draw(st.lists(NUMBERS | PLAIN, min_size=1, max_size=3))}
        case "odd":
            found = draw(st.dictionaries(st.sampled_from(keys), VALUES, max_size=4))
        case _:
            return draw(VALUES)
    if fields and draw(st.booleans()):
        wanted = NUMBERS | st.lists(NUMBERS, max_size=2) | VALUES
        found["when"] = draw(st.dictionaries(st.sampled_from(fields), wanted, max_size=2) | VALUES)
    return found


@st.composite
def spaces(draw: st.DrawFn, algorithm: str) -> dict[str, Any]:
    fields = draw(st.lists(st.sampled_from(_fields(algorithm)), max_size=4, unique=True))
    fields += draw(st.lists(st.sampled_from(["", ".", "algorithm", "a.b", "x" * 99]), max_size=1))
    return {field: draw(params(fields)) for field in fields}


@st.composite
def points(draw: st.DrawFn, space: dict[str, Any]) -> list[Any]:
    """Configurations to try, mostly of the space's fields and its values."""
    found = []
    for _ in range(draw(st.integers(0, 3))):
        point: dict[str, Any] = {}
        for field, param in space.items():
            inside = [param] if not isinstance(param, dict) else list(param.values())
            near = [x for value in inside for x in (value if isinstance(value, list) else [value])]
            value = st.sampled_from(near) | NUMBERS if near else NUMBERS
            if draw(st.booleans()):
                point[field] = draw(value)
        found.append(draw(st.just(point) | VALUES) if draw(st.booleans()) else point)
    return found


BOUND = st.fixed_dictionaries(
    {}, optional={"min": NUMBERS, "max": NUMBERS, "from_step": NUMBERS, "patience": NUMBERS,
                  "hard": PLAIN}
)  # fmt: skip
OBJECTIVE = st.fixed_dictionaries(
    {"metric": METRIC}, optional={"mode": st.sampled_from(["min", "max", 1, None])}
)
SEARCH = st.fixed_dictionaries(
    {},
    optional={
        "num_trials": NUMBERS | st.just(1_000_000),
        "sampler": st.sampled_from(
            ["tpe", "gp", "cmaes", "qmc", "random", "grid", "grid", "nsga2", "x"]
        ),
        "startup_trials": NUMBERS,
        "points_from": NAMES | PLAIN,
        "num_points_from": NUMBERS,
    },
)
SCHEDULER = st.fixed_dictionaries(
    {},
    optional={
        "type": st.sampled_from(["auto", "asha", "asha_stop", "halving", "median", "none", "x"]),
        "grace_period": NUMBERS,
        "reduction_factor": NUMBERS,
    },
)
STOP = st.dictionaries(st.sampled_from(["tokens", "gpu_hours", "hours", "no_improvement"]), NUMBERS)
FINALS = st.fixed_dictionaries(
    {},
    optional={
        "top": NUMBERS,
        "prompts": NAMES | VALUES | st.just("data/easyds/finals_prompts.jsonl"),
        "num_prompts": NUMBERS,
        "seeds": NUMBERS,
    },
)
RESOURCES = st.dictionaries(
    st.sampled_from(["gpus_per_trial", "cpus_per_trial", "max_concurrent"]), NUMBERS
)
SOURCE = st.fixed_dictionaries(
    {"path": NAMES | st.just("data/easyds/preferences.jsonl")},
    optional={
        "encoding": PLAIN
        | st.sampled_from(["utf-8", "hex", "rot13", "idna", "undefined", "punycode", "__init__"]),
        "columns": st.dictionaries(st.text(max_size=3), st.text(max_size=3), max_size=3) | VALUES,
        "format": st.sampled_from(["auto", "hh", "text", "x", None]),
        "limit": NUMBERS,
        "split": PLAIN,
    },
)
OTHERS = {
    "bounds": st.dictionaries(
        METRIC, BOUND | st.lists(BOUND | VALUES, max_size=3) | VALUES, max_size=2
    ),
    "objective": OBJECTIVE | st.lists(OBJECTIVE, max_size=3) | VALUES,
    "search": SEARCH,
    "scheduler": SCHEDULER,
    "stop": STOP | VALUES,
    "finals": FINALS | VALUES,
    "resources": RESOURCES | VALUES,
    "output": st.fixed_dictionaries({"folder": NAMES | PLAIN}) | VALUES,
    "data": st.fixed_dictionaries(
        {"train": SOURCE | st.lists(SOURCE, max_size=2)},
        optional={"eval": SOURCE, "eval_fraction": NUMBERS, "chat_template": NAMES | PLAIN},
    ),
    "deepspeed": NAMES | VALUES,
    "name": NAMES | PLAIN,
}


@FUZZ
@given(st.data())
def test_any_search_space_loads_or_says_what_is_wrong(data: st.DataObject) -> None:
    algorithm = data.draw(st.sampled_from(sorted(RAW)))
    raw = RAW[algorithm] | {"search_space": data.draw(spaces(algorithm))}
    raw["search"] = data.draw(SEARCH)
    raw["search"]["points"] = data.draw(points(raw["search_space"]))
    load(yaml.safe_dump(raw), [])


@FUZZ
@given(st.sampled_from(sorted(RAW)), st.fixed_dictionaries({}, optional=OTHERS), st.booleans())
def test_any_decisions_and_limits_load_or_say_what_is_wrong(
    algorithm: str, sections: dict[str, Any], in_epochs: bool
) -> None:
    raw = RAW[algorithm] | sections
    if in_epochs:
        raw = raw | {"training": {"num_train_epochs": 3}}
    load(yaml.safe_dump(raw), [])


SUGGESTED = st.sampled_from(
    ["trial.suggest_float('training.learning_rate', 1e-5, 1e-3, log=True)",
     "trial.suggest_int('model.lora_r', 4, 8)", "trial.suggest_float('algorithm.beta', 1, 0)",
     "trial.suggest_categorical('model.lora_r', [4, 8])",
     "trial.suggest_int('model.lora_r', 'a', 8)", "trial.suggest_int('model.lora_r', 1, 10**400)",
     "trial.suggest_float('x', 0, 1, step=1e-320)",
     "trial.suggest_float('x', -1e308, 1.7e308)", "trial.suggest_float('x', 0, float('inf'))",
     "trial.suggest_float('x', float('nan'), 1)", "trial.suggest_int('x', 0.5, 3)",
     "trial.suggest_float('x', 0, 1e308, step=1e-300)", "trial.suggest_categorical('x', 3)",
     "trial.suggest_categorical('x', [object()])", "trial.suggest_categorical('x', 'ab')",
     "trial.suggest_float(1, 0, 1)", "trial.suggest_float([], 0, 1)", "trial.suggest_unknown('x')",
     "trial.number", "trial.params", "trial"]
)  # fmt: skip
RETURNED = st.sampled_from(
    ["8", "1e-4", "None", "10**400", "10**5000", "object()", "[1]", "{'a': {1: 2}}", "lambda: 1",
     "(i for i in [1])", "float('nan')", "b'x'", "'\\ud800'", "__import__('numpy').ones(2)",
     "__import__('numpy').float64(1e-4)", "__import__('numpy').int64(8)", "{1, 2}", "deep"]
)  # fmt: skip
STATEMENTS = st.sampled_from(
    ["pass", "raise SystemExit", "raise StopIteration", "1 / 0", "import nothing_of_this_name",
     "exit()", "deep = []\n    for _ in range(9000): deep = [deep]", "return 3", "return",
     "def again(): again()\n    again()", "return {1: 2}", "return {}", "raise Exception('a\\nb')",
     "raise type('E', (Exception,), {'__str__': lambda self: 1 / 0})", "trial.params.clear()"]
)  # fmt: skip


BROKEN = st.text(max_size=20) | st.sampled_from(
    ["", "search_space = 3", "raise SystemExit", "\0", "(" * 500, "def search_space(", "x" * 9000,
     "search_space = dict", "search_space = print", "import os; os.abort", "search_space = type"]
)  # fmt: skip


@st.composite
def space_files(draw: st.DrawFn) -> str:
    """A file that suggests, returns and raises what no search space should."""
    if draw(st.integers(0, 9)) == 0:
        return draw(BROKEN)
    fields = st.sampled_from(
        ["training.learning_rate", "model.lora_r", "algorithm.beta", "x", "", ".", "algorithm",
         "training.max_steps", "name", "search_space", "data.train"]
    )  # fmt: skip
    entries = draw(st.dictionaries(fields, SUGGESTED | SUGGESTED | RETURNED, max_size=3))
    return (
        f"def search_space(trial):\n    deep = 1\n    {draw(STATEMENTS | st.just('pass'))}\n"
        f"    return {{{', '.join(f'{field!r}: {value}' for field, value in entries.items())}}}\n"
    )


@FUZZ
@given(space_files() | st.binary(max_size=9), st.integers(1, 3))
def test_any_space_file_loads_or_says_what_is_wrong(source: str | bytes, num_trials: int) -> None:
    data = source.encode("utf-8", "surrogatepass") if isinstance(source, str) else source
    # A file of its own for each text: one is read anew only when its time of change differs.
    path = Path(f"space_{hashlib.sha256(data).hexdigest()[:16]}.py")
    path.write_bytes(data)
    raw = {key: value for key, value in RAW["dpo"].items() if key != "search_space"}
    load(yaml.safe_dump(raw | {"space_file": str(path)}), [f"search.num_trials={num_trials}"])


@HEAVY
@given(
    st.integers(1, 1500),
    st.sampled_from(
        ["search_space: {{algorithm.beta: [{}]}}", "search_space: {{training.learning_rate: [{}]}}",
         "search: {{points: [{}]}}", "bounds: {{eval/kl: [{}]}}", "objective: [{}]",
         "data: {{train: [{}]}}", "data: {{train: {{path: data, columns: {{{}}}}}}}",
         "model: {{lora_target_modules: [{}]}}", "training: {{training_arguments: {{{}}}}}",
         "bounds: {{{}}}", "search_space: {{{}}}"]
    ),
    st.sampled_from(["{{algorithm.beta: {}}}", "{}", "0.0{}1", "{{max: {}}}", "x{}", "x{}: {}",
                     "training.learning_rate{}: [{}, 1]"]),
)  # fmt: skip
def test_many_entries_are_taken_or_refused_in_no_time(count: int, section: str, item: str) -> None:
    text = section.format(", ".join(item.format(n, n) for n in range(count)))
    name = section.partition(":")[0]
    raw = {key: value for key, value in RAW["dpo"].items() if key != name}
    if name in ("model", "data"):
        text = text.replace("{", "{dtype: float32, ", 1) if name == "model" else text
    load(f"{yaml.safe_dump(raw)}\n{text}", [])
