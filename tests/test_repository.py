"""The repository keeps its own promises: specs load, light commands stay light, nothing strays."""

from __future__ import annotations

import dataclasses
import importlib
import pkgutil
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import TypeAdapter

import easyds_tune.results
from easyds_tune.cli.main import parser
from easyds_tune.spec.algorithm import DPOSpec, PPOSpec, RewardModelSpec, SFTSpec
from easyds_tune.spec.argument_names import COMMON, EXTRA, OWN_PPO, RESERVED
from easyds_tune.spec.check import spec_problems
from easyds_tune.spec.load import load_sweep, read_yaml
from easyds_tune.spec.search import Param, param_kind
from easyds_tune.spec.sweep import SweepSpec, trial_spec
from easyds_tune.spec.training import TrainingSpec

ROOT = Path(__file__).parents[1]
SWEEPS = sorted((ROOT / "sweeps").glob("*"))
SEARCH_SPACES = sorted((ROOT / "search_spaces").glob("*"))
TOP_LEVEL = {
    ".ci", ".gitattributes", ".gitignore", ".pre-commit-config.yaml", "CHANGELOG.md",
    "CONTRIBUTING.md", "LICENSE", "Makefile", "README.md", "data", "easyds_tune",
    "pyproject.toml", "requirements.lock", "results", "search_spaces", "sweeps", "tests",
}  # fmt: skip

HEAVY = ("torch", "ray", "deepspeed", "transformers", "trl", "peft", "datasets")
LIGHT_MODULES = [
    "easyds_tune.spec.load",
    "easyds_tune.journal.reader",
    "easyds_tune.cli.main",
    *(
        f"easyds_tune.results.{module.name}"
        for module in pkgutil.iter_modules(easyds_tune.results.__path__)
    ),
]

# Homes, temporary and mounted folders. An address on the web has a letter before its slash.
MACHINE_PATH = re.compile(r"(?<![\w.~}*-])/(?:home|root|Users|work|mnt|opt|tmp)/[\w.-]")


def name(path: Path) -> str:
    return path.name


@pytest.mark.parametrize("path", SWEEPS, ids=name)
def test_every_sweep_loads(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    assert load_sweep(str(path)).name == path.stem


@pytest.mark.parametrize("path", SEARCH_SPACES, ids=name)
def test_every_search_space_loads_and_a_sweep_uses_it(path: Path) -> None:
    space = read_yaml(path.read_text(encoding="utf-8"), path.name)
    params = {field: param_kind(value) for field, value in space.items()}
    assert TypeAdapter(dict[str, Param]).validate_python(params)
    named = [
        read_yaml(sweep.read_text(encoding="utf-8"), sweep.name).get("search_space")
        for sweep in SWEEPS
    ]
    assert path.stem in named


@pytest.mark.parametrize("module", LIGHT_MODULES)
def test_light_modules_import_nothing_heavy(module: str) -> None:
    code = f"import sys, {module}; print(*(m for m in {HEAVY} if m in sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True
    )
    assert done.stdout.split() == []


@pytest.mark.parametrize("kind", ["sft", "rm", "dpo"])
def test_argument_names_are_those_of_the_installed_trl(kind: str) -> None:
    from trl import DPOConfig, RewardConfig, SFTConfig

    config, spec = {
        "sft": (SFTConfig, SFTSpec),
        "rm": (RewardConfig, RewardModelSpec),
        "dpo": (DPOConfig, DPOSpec),
    }[kind]
    installed = {field.name for field in dataclasses.fields(config)}
    passed_on = COMMON | EXTRA[kind]
    own = set(TrainingSpec.model_fields) | set(spec.model_fields)
    # TRL's truncation_mode cannot leave a record out, so ours has a name of its own.
    own -= {"training_arguments", "eval_steps", "type", "truncation"}

    assert passed_on <= installed
    assert own <= installed
    assert not passed_on & (own | RESERVED.keys())
    # A name TRL adds has to be placed: searched, passed on, or refused with a reason.
    assert installed - own - passed_on - {"eval_steps"} <= RESERVED.keys()


def sources(*folders: str) -> str:
    """The text of all modules below some of the package's folders."""
    files = [file for folder in folders for file in (ROOT / "easyds_tune" / folder).rglob("*.py")]
    return "\n".join(file.read_text(encoding="utf-8") for file in files)


def test_every_field_and_argument_of_ppo_is_read_where_it_trains() -> None:
    """No class of TRL's takes them over: one that no module names would silently do nothing."""
    text = (
        sources("algorithms", "models", "trial", "spec/sweep.py")
        + (ROOT / "easyds_tune" / "spec" / "algorithm.py")
        .read_text(encoding="utf-8")
        .partition("AlgorithmSpec = ")[2]
    )
    fields = PPOSpec.model_fields.keys() - {"type", "ref_model_name_or_path"}  # checked, not used
    assert [name for name in sorted(fields) if not re.search(rf"\.{name}\b|\"{name}\"", text)] == []
    assert [name for name in sorted(OWN_PPO) if f'"{name}"' not in text] == []
    assert OWN_PPO <= COMMON


def test_no_refused_argument_is_unknown_to_trl() -> None:
    from trl import DPOConfig, RewardConfig, SFTConfig

    installed = {
        field.name
        for config in (SFTConfig, RewardConfig, DPOConfig)
        for field in dataclasses.fields(config)
    }
    assert RESERVED.keys() <= installed


@pytest.mark.parametrize("kind", ["sft", "rm", "dpo"])
def test_no_passed_on_argument_is_one_that_our_own_code_passes(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A name given twice is a TypeError in every trial, or one of the two silently loses."""
    algorithm = importlib.import_module(f"easyds_tune.algorithms.{kind}")
    from transformers import PretrainedConfig

    from easyds_tune.algorithms.row import TrialInputs
    from easyds_tune.algorithms.trl_loop import training_arguments

    class Base(torch.nn.Linear):
        dtype = torch.float32  # these two are all of a base that the arguments depend on
        config = PretrainedConfig()

    base: Any = Base(1, 1)
    nothing: Any = None
    inputs = TrialInputs(base, nothing, nothing, None, torch.device("cpu"), lambda: base)
    monkeypatch.chdir(ROOT)
    spec = trial_spec(load_sweep(f"sweeps/{kind}.yaml"), "000", {}, train_records=100)
    told: dict[str, Any] = {}
    monkeypatch.setattr(algorithm, "rows", lambda *args, **kwargs: told.update(kwargs))
    algorithm.train(spec, inputs)

    ours = training_arguments(spec, inputs, ROOT).keys() | told["config"].keys()
    assert {"max_length", "learning_rate"} <= ours
    assert ours & (COMMON | EXTRA[kind]) == set()


def tracked_files() -> list[Path]:
    done = subprocess.run(["git", "ls-files", "-z"], capture_output=True, cwd=ROOT, check=False)
    if done.returncode:
        pytest.skip("not a git checkout")
    return [Path(file) for file in done.stdout.decode().split("\0") if file]


def test_the_top_level_holds_only_what_was_agreed() -> None:
    assert {file.parts[0] for file in tracked_files()} <= TOP_LEVEL


def test_no_tracked_file_names_a_folder_of_some_machine() -> None:
    found = []
    for file in tracked_files():
        try:
            text = (ROOT / file).read_text(encoding="utf-8")
        except (UnicodeDecodeError, FileNotFoundError):
            continue  # a binary file, or one that is about to be removed
        found += [f"{file}: {match.group()}" for match in MACHINE_PATH.finditer(text)]
    assert found == []


def documents() -> list[Path]:
    """The tracked Markdown files of the top level, of data/ and of results/."""
    return [
        file
        for file in tracked_files()
        if file.suffix == ".md" and (len(file.parts) == 1 or file.parts[0] in ("data", "results"))
    ]


def test_no_document_waits_for_a_number() -> None:
    texts = {str(file): (ROOT / file).read_text(encoding="utf-8") for file in documents()}
    assert [name for name, text in texts.items() if "@@" in text] == []


def test_every_relative_link_of_a_document_points_to_something() -> None:
    broken = []
    for file in documents():
        text = (ROOT / file).read_text(encoding="utf-8")
        for target in re.findall(r"\]\(([^)\s#]+)", text):
            if "://" not in target and not (ROOT / file.parent / target).exists():
                broken.append(f"{file}: {target}")
    assert broken == []


def test_every_command_of_the_readme_is_one_and_its_spec_loads(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(ROOT)
    blocks = re.findall(r"```bash\n(.*?)```", (ROOT / "README.md").read_text("utf-8"), re.DOTALL)
    lines = [line.partition("#")[0].split() for line in "".join(blocks).splitlines()]
    ours = [words[1:] for words in lines if words[:1] == [".venv/bin/easyds-tune"]]
    assert len(ours) >= 5
    for words in ours:
        arguments = parser().parse_args(words)
        if "spec" in arguments:
            load_sweep(arguments.spec, arguments.overrides)
    targets = {words[1] for words in lines if words[:1] == ["make"]}
    makefile = (ROOT / "Makefile").read_text("utf-8")
    assert targets
    assert all(re.search(rf"^{target}:", makefile, re.MULTILINE) for target in targets)


def test_the_specs_of_the_readme_are_specs() -> None:
    text = (ROOT / "README.md").read_text("utf-8")
    dpo, ppo = (
        read_yaml(block, "README.md") for block in re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)
    )
    for raw in (dpo, {**dpo, **ppo, "search_space": {}}):
        problems = spec_problems(SweepSpec.model_validate({"name": "readme", **raw}))
        assert [problem for problem in problems if "no such file" not in problem] == []


def test_no_tracked_file_is_larger_than_a_download_should_be() -> None:
    """The bundled models and data stay small enough for a clone in seconds."""
    files = [ROOT / file for file in tracked_files()]
    sizes = {str(file): file.stat().st_size for file in files if file.exists()}
    assert {file: size for file, size in sizes.items() if size > 8_000_000} == {}


def test_the_lock_pins_every_direct_dependency_within_its_range() -> None:
    import tomllib

    from packaging.requirements import Requirement

    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    lines = (ROOT / "requirements.lock").read_text(encoding="utf-8").splitlines()
    pins = [Requirement(line) for line in lines if line and not line.startswith("#")]
    locked = {normal(pin.name): str(pin.specifier).removeprefix("==") for pin in pins}
    direct = project["dependencies"] + project["optional-dependencies"]["dev"]
    for wanted in map(Requirement, direct):
        assert wanted.specifier.contains(locked[normal(wanted.name)]), wanted
    assert locked["torch"] == "2.13.0"


def normal(package: str) -> str:
    return re.sub(r"[-_.]+", "-", package).lower()
