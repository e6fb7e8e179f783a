"""Finding a spec, reading its YAML, applying overrides, collecting problems."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from easyds_tune.errors import SpecError
from easyds_tune.spec.load import (
    MAX_BYTES,
    apply_overrides,
    find_spec,
    load_sweep,
    parse_params,
    read_yaml,
    validate,
)

SPEC = """
algorithm: {type: rm}
model: {model_name_or_path: someone/a-model}
data: {train: pairs}
training: {max_steps: 30, eval_steps: 10}
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "sweeps").mkdir()
    (tmp_path / "search_spaces").mkdir()
    (tmp_path / "sweeps" / "rm.yaml").write_text(SPEC, encoding="utf-8")
    (tmp_path / "search_spaces" / "small.yaml").write_text(
        "model.lora_r: [4, 8]\n", encoding="utf-8"
    )
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-5", 1e-5),
        ("5E4", 5e4),
        ("2026-11-21", "2026-11-21"),
        ("no", False),
        ("null", None),
        ("'1e-5'", "1e-5"),
        ("{a: 1, b: [x]}", {"a": 1, "b": ["x"]}),
        ("base: &b {x: 1}\nmore: {<<: *b, y: 2}", {"base": {"x": 1}, "more": {"x": 1, "y": 2}}),
    ],
)
def test_yaml_reads_as_a_person_means_it(text: str, value: Any) -> None:
    read = read_yaml(text, "here")
    assert read == value
    assert type(read) is type(value)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("a: 1\nb: 2\na: 3", "here:3: not valid YAML: the key 'a' is written twice"),
        ("true: 1", "here:1: not valid YAML: a key must be text, got true; put it in quotes"),
        ("a: {1: x}", "here:1: not valid YAML: a key must be text, got 1; put it in quotes"),
        ("a: 'x", "here:1: not valid YAML: found unexpected end of stream"),
        (
            "a: !!python/name:os.system",
            "here:1: not valid YAML: the tag python/name:os.system does",
        ),
    ],
)
def test_broken_yaml_is_refused_with_its_line(text: str, problem: str) -> None:
    with pytest.raises(SpecError) as caught:
        read_yaml(text, "here")
    [found] = caught.value.problems
    assert found.startswith(problem)


def test_a_spec_is_found_here_first_then_in_sweeps(folder: Path) -> None:
    assert find_spec("rm.yaml") == find_spec("rm") == Path("sweeps/rm.yaml")
    assert find_spec(str(folder / "sweeps" / "rm.yaml")).is_absolute()
    (folder / "rm.yaml").write_text(SPEC, encoding="utf-8")
    assert find_spec("rm") == Path("rm.yaml")


def test_the_name_of_the_file_is_the_name_of_the_sweep(folder: Path) -> None:
    assert load_sweep("rm").name == "rm"
    assert load_sweep("rm", ["name=other"]).name == "other"


def test_overrides_set_fields_in_their_order(folder: Path) -> None:
    spec = load_sweep(
        "rm", ["training.max_steps=20", "training.max_steps=15", "search.num_trials=3"]
    )
    assert (spec.training.max_steps, spec.search.num_trials) == (15, 3)
    assert spec.training.eval_steps == 10  # as written


def test_a_search_space_may_be_a_file_and_overridden_inside(folder: Path) -> None:
    assert list(load_sweep("rm", ["search_space=small"]).search_space) == ["model.lora_r"]
    overrides = [
        "search_space.training.learning_rate={low: 1e-5, high: 1e-3}",
        "search_space=small",
    ]
    space = load_sweep("rm", overrides).search_space
    assert list(space) == ["model.lora_r", "training.learning_rate"]


def test_a_search_space_stands_beside_the_sweeps_of_its_project(
    folder: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path_factory.mktemp("elsewhere"))
    spec = load_sweep(str(folder / "sweeps" / "rm.yaml"), ["search_space=small"])
    assert list(spec.search_space) == ["model.lora_r"]


def test_an_override_makes_the_sections_on_its_way() -> None:
    raw: dict[str, Any] = {}
    apply_overrides(raw, ["a.b.c=1", "search_space.a.b=[1, 2]", "d=x=y"])
    assert raw == {"a": {"b": {"c": 1}}, "search_space": {"a.b": [1, 2]}, "d": "x=y"}


def test_problems_of_fields_and_between_fields_come_together(raw: dict[str, Any]) -> None:
    raw["seed"] = -1
    raw["judge"] = {"prompts": "p", "reward": {"model_name_or_path": "./nowhere"}}
    raw["training"]["eval_steps"] = 99
    with pytest.raises(SpecError) as caught:
        validate(raw)
    assert [problem.split(":")[0] for problem in caught.value.problems] == [
        "seed",
        "judge",
        "training.eval_steps",
        "judge.reward.model_name_or_path",
    ]


@pytest.mark.parametrize("wrong", [{"algorithm": {"type": "x"}}, {"training": {"max_steps": -1}},
                                   {"training": []}])  # fmt: skip
def test_missing_files_are_named_beside_a_section_that_is_wrong(
    raw: dict[str, Any], wrong: dict[str, Any]
) -> None:
    raw |= wrong
    raw["data"]["train"] = "./nowhere.jsonl"
    with pytest.raises(SpecError) as caught:
        validate(raw)
    first, last = caught.value.problems
    assert not first.startswith("data.")
    assert last.startswith("data.train: no such file: './nowhere.jsonl'")


def test_parameters_of_one_trial_are_read_as_yaml_and_checked(folder: Path) -> None:
    spec = load_sweep("rm")
    assert parse_params(spec, ["training.learning_rate=1e-3", "model.lora_r=null"]) == {
        "training.learning_rate": 1e-3,
        "model.lora_r": None,
    }
    with pytest.raises(SpecError) as caught:
        parse_params(spec, ["nothing", "model.lora_r=0", "seed=1"])
    assert caught.value.problems == [
        "--params nothing: must look like algorithm.beta=0.2",
        "--params seed=1: seed is no parameter of a trial; use --set seed=1",
        "model.lora_r: the value 0 is refused: model.lora_r: must be at least 1, got 0",
    ]


@pytest.mark.parametrize("path", [".".join("a" * 900), "a" * 300, "deepspeed" + ".a" * 60])
def test_an_override_that_leads_nowhere_on_earth_is_cut_short(folder: Path, path: str) -> None:
    with pytest.raises(SpecError) as caught:
        load_sweep("rm", [f"{path}=1"])
    [problem] = caught.value.problems
    assert "must look like training.learning_rate=1e-4" in problem
    assert len(problem) < 200
    with pytest.raises(SpecError, match=r"must look like algorithm\.beta=0\.2"):
        parse_params(load_sweep("rm"), [f"{path}=1"])


@pytest.mark.parametrize("name", ["~no-such-user", "~no-such-user/x", "*"])
def test_an_earlier_sweep_of_any_name_is_missed_in_words(folder: Path, name: str) -> None:
    with pytest.raises(SpecError, match=r"search\.points_from: no journal\.jsonl in"):
        load_sweep("rm", [f"search.points_from={name!r}"])


@pytest.mark.parametrize("field", ["output.folder", "search.points_from"])
def test_a_folder_no_system_has_is_refused(folder: Path, field: str) -> None:
    with pytest.raises(SpecError, match=f"{field}: must have at most 255 bytes"):
        load_sweep("rm", [f"{field}={'x' * 300}", "search.num_trials=1"])


def test_a_file_larger_than_any_spec_is_refused_unread(folder: Path) -> None:
    (folder / "big.yaml").write_bytes(b"#" * (MAX_BYTES + 1))
    with pytest.raises(SpecError, match=r"big\.yaml: must have at most 1048576 bytes"):
        load_sweep("big")


@pytest.mark.parametrize("targets", ["a{99999999999}", "(" * 3000 + ")" * 3000])
def test_a_pattern_that_python_cannot_hold_is_refused(folder: Path, targets: str) -> None:
    with pytest.raises(SpecError, match=r"model\.lora_target_modules: must be a list of names or"):
        load_sweep("rm", [f"model.lora_target_modules={targets!r}"])


@pytest.mark.parametrize("written", ["pairs", "[pairs]", "{path: pairs}"])
def test_a_part_of_a_source_is_set_where_the_source_is_its_path_alone(
    folder: Path, written: str
) -> None:
    (folder / "plain.yaml").write_text(SPEC.replace("pairs", written), encoding="utf-8")
    spec = load_sweep("plain", ["data.train.path=others", "data.train.limit=3"])
    (source,) = spec.data.train
    assert (source.path, source.limit) == ("others", 3)


def test_a_search_space_that_is_nested_like_the_spec_is_refused_with_its_dotted_paths(
    folder: Path,
) -> None:
    nested = "search_space: {model: {lora_r: [4, 8], lora_alpha: [8, 16]}}"
    (folder / "nested.yaml").write_text(f"{SPEC}{nested}", encoding="utf-8")
    with pytest.raises(SpecError) as caught:
        load_sweep("nested")
    assert caught.value.problems == [
        "search_space.model: must be the dotted path of a field, got a section; write "
        "model.lora_r: [4, 8], model.lora_alpha: [8, 16]"
    ]


def test_a_name_from_the_file_is_refused_with_how_to_give_another(folder: Path) -> None:
    (folder / "数据 结构.yaml").write_text(SPEC, encoding="utf-8")
    with pytest.raises(SpecError) as caught:
        load_sweep("数据 结构.yaml")
    (problem,) = caught.value.problems
    assert problem.startswith(
        "name: is the file's, '数据 结构', where the spec gives none, and must"
    )
    assert problem.endswith("write name: in the file, or --set name=my-sweep")
    assert load_sweep("数据 结构.yaml", ["name=ds"]).name == "ds"


@pytest.mark.parametrize("path", ["model.model_name_or_path", "judge.reward.model_name_or_path"])
def test_the_name_of_a_sweep_s_winner_is_refused_with_what_works_today(
    folder: Path, path: str
) -> None:
    overrides = ["judge.prompts=pairs", f"{path}=best:ppo"]
    with pytest.raises(SpecError) as caught:
        load_sweep("rm", overrides)
    assert (
        f"{path}: must be a model's folder or a hub name, got 'best:ppo': a sweep's winner cannot "
        "be named yet; easyds-tune export ppo --to DIR, then write that folder"
    ) in caught.value.problems


def test_a_name_that_the_shell_s_encoding_cannot_write_is_refused_once_with_the_remedy(
    folder: Path,
) -> None:
    (folder / "rm.yaml").write_text(SPEC.replace("pairs", "数据.jsonl"), encoding="utf-8")
    (folder / "数据.jsonl").write_text(
        '{"prompt": "a", "chosen": "b", "rejected": "c"}', encoding="utf-8"
    )
    command = [sys.executable, "-m", "easyds_tune.cli.main", "plan", "rm.yaml"]
    ascii_only = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])} | ascii_only
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    lines = done.stderr.splitlines()
    assert done.returncode == 2
    assert len(lines) == 2, lines
    assert "this shell's encoding, ascii, can write" in lines[0]
    assert "set PYTHONUTF8=1 in the environment" in lines[0]
    mended = environment | {"PYTHONUTF8": "1"}
    done = subprocess.run(command, env=mended, capture_output=True, text=True, check=False)
    assert "数据" not in done.stderr or "encoding" not in done.stderr
