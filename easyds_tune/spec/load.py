"""From a YAML file and `--set` overrides to one validated SweepSpec, or all problems at once."""

from __future__ import annotations

import copy
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from easyds_tune.errors import SpecError
from easyds_tune.redact import key_problems, without_keys
from easyds_tune.spec.algorithm import PPOSpec
from easyds_tune.spec.base import Spec, written_fields
from easyds_tune.spec.check import missing_files, spec_problems
from easyds_tune.spec.check_search import SEARCHABLE, fixed_because, param_problems
from easyds_tune.spec.data import DataSpec
from easyds_tune.spec.finals import FinalsSpec
from easyds_tune.spec.judge import JudgeSpec
from easyds_tune.spec.messages import PARAM_KEYS, did_you_mean, shown, validation_problems
from easyds_tune.spec.model import ModelSpec
from easyds_tune.spec.resources import resource_problems
from easyds_tune.spec.sweep import NAME_PATTERN, NAME_RULE, SweepSpec, set_path
from easyds_tune.spec.yaml_text import MAX_DEPTH, MAX_KEY, cut, read_yaml

Section = TypeVar("Section", bound=Spec)

SOURCES = ("data.train", "data.eval", "judge.prompts", "finals.prompts")
"""Fields that take a data source, or its path alone."""
MAX_BYTES = 2**20
"""Of a spec's file, which is read whole."""


def find_spec(name: str) -> Path:
    """The file behind a name: as written, else in sweeps/; with or without its .yaml."""
    for folder in (Path(), Path("sweeps")):
        for candidate in (name, f"{name}.yaml"):
            # os.path.isfile is False for names that no file can have; Path.is_file raises.
            if name and os.path.isfile(folder / candidate):
                return folder / candidate
    known = sorted(path.name for path in Path("sweeps").glob("*.yaml"))
    hint = f"; sweeps/ has {', '.join(known)}" if known else ""
    what = "is a folder, not a YAML file" if name and os.path.isdir(name) else "no such file"
    raise SpecError([f"{name or 'SPEC is empty'}: {what}, here or in sweeps/{hint}"])


def _read_file(path: Path) -> dict[str, Any]:
    try:
        if (size := path.stat().st_size) > MAX_BYTES:
            raise SpecError(
                [f"{path}: must have at most {MAX_BYTES} bytes, got {size}; shorten it"]
            )
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise SpecError([f"{path}: must be UTF-8, and byte {error.start} is not"]) from error
    except OSError as error:
        raise SpecError([f"{path}: cannot be read: {error.strerror}"]) from error
    raw = read_yaml(text, str(path))
    if not isinstance(raw, dict):
        kind = "nothing" if raw is None else type(raw).__name__
        raise SpecError([f"{path}: must hold settings such as `seed: 1`, got {kind}"])
    return raw


def _inline_search_space(raw: dict[str, Any], spec_path: Path | None) -> None:
    """Replace the name of a search-space file by what it holds."""
    name = raw.get("search_space")
    if not isinstance(name, str):
        return
    # A sweep and its space often share a name: sweeps/ppo.yaml, search_spaces/ppo.yaml.
    folders = [Path("search_spaces"), Path()]
    if spec_path:
        beside = spec_path.parent
        folders = [folders[0], beside.parent / "search_spaces", beside / "search_spaces", Path()]
        folders.append(beside)
    for folder in folders:
        for candidate in (name, f"{name}.yaml"):
            if os.path.isfile(folder / candidate):
                raw["search_space"] = _read_file(folder / candidate)
                return
    # A spec's own folder is full of specs, which are no search spaces.
    spaces = [folder for folder in folders if folder.name == "search_spaces"]
    known = sorted({path.stem for folder in spaces for path in folder.glob("*.yaml")})
    hint = f"; search_spaces/ has {', '.join(known)}" if known else ""
    hint = did_you_mean(name, known) or hint
    raise SpecError([f"search_space: no file {name!r} here or in search_spaces/{hint}"])


def _take_nested_spaces(raw: dict[str, Any]) -> list[str]:
    """Remove fields of a search space that are nested like the spec; says how to write them."""
    space = raw.get("search_space")
    if not isinstance(space, dict):
        return []
    nested = [
        key
        for key, value in space.items()
        if key in SEARCHABLE and isinstance(value, dict) and not set(PARAM_KEYS) & value.keys()
    ]
    problems = []
    for key in nested:
        dotted = ", ".join(f"{key}.{field}: {shown(value)}" for field, value in space[key].items())
        problems.append(
            f"search_space.{key}: must be the dotted path of a field, got a section; write {dotted}"
        )
        del space[key]
    return problems


def _find_space_file(raw: dict[str, Any], spec_path: Path) -> None:
    """A space file may stand beside its spec."""
    name = raw.get("space_file")
    if isinstance(name, str) and name and not os.path.isfile(name):
        beside = spec_path.parent / name
        if os.path.isfile(beside):
            raw["space_file"] = str(beside)


def _is_path(text: str) -> bool:
    """Whether an override's left side is a dotted path."""
    return (
        re.fullmatch(r"[A-Za-z_]\w*(\.[^.=\s]+)*", text) is not None
        and len(text) <= MAX_KEY
        and text.count(".") < MAX_DEPTH
    )


def _write_out_source(raw: dict[str, Any], path: str) -> None:
    """Write a data source that is plain text as {path: text}, so that its other fields can be set.

    A list of one source is written as that source.
    """
    for source in SOURCES:
        section, _, field = source.partition(".")
        if not path.startswith(f"{source}.") or not isinstance(raw.get(section), dict):
            continue
        value = raw[section].get(field)
        if isinstance(value, list) and len(value) == 1:
            value = value[0]
        raw[section][field] = {"path": value} if isinstance(value, str) else value


def apply_overrides(raw: dict[str, Any], overrides: list[str]) -> None:
    """Apply `a.b=c` overrides in place; the value is read as YAML."""
    problems = []
    for override in overrides:
        path, sign, text = override.partition("=")
        if not sign or not _is_path(path.strip()):
            problems.append(f"--set {cut(override)}: must look like training.learning_rate=1e-4")
            continue
        try:
            value = read_yaml(text, f"--set {path}")
            # A searched field is one key with dots in it, not a nested mapping.
            if path.startswith("search_space."):
                space = raw.setdefault("search_space", {})
                space[path.removeprefix("search_space.").strip()] = value
            else:
                _write_out_source(raw, path.strip())
                set_path(raw, path.strip(), value)
        except SpecError as error:
            problems += error.problems
        except (KeyError, TypeError, AttributeError):
            problems.append(
                f"--set {cut(override)}: a part of {path} before its end holds a value and no "
                "fields; set that part itself"
            )
    if problems:
        raise SpecError(problems)


def load_sweep(
    name: str, overrides: list[str] | None = None, *, on_this_machine: bool = False
) -> SweepSpec:
    """Read, complete and check a sweep's spec.

    name: a path, or a bare name looked for in the working directory and then in sweeps/.
    overrides: `a.b=c` texts, applied before validation.
    on_this_machine: where the spec is refused, say also what this machine lacks; a sound spec
        is held against the machine by what comes next, a plan or the preflight.
    Raises SpecError with every problem found; nothing is started or written.
    """
    path = find_spec(name)
    raw = _read_file(path)
    problems: list[str] = []
    # Another search space comes first: its entries may be overridden too.
    spaces = [text for text in overrides or [] if text.startswith("search_space=")]
    others = [text for text in overrides or [] if text not in spaces]
    steps: list[Callable[[], None]] = [
        lambda: apply_overrides(raw, spaces),
        lambda: _inline_search_space(raw, path),
        lambda: apply_overrides(raw, others),
    ]
    for step in steps:
        try:
            step()
        except SpecError as error:
            problems += error.problems
            if isinstance(raw.get("search_space"), str):
                del raw["search_space"]
    if "name" not in raw:
        raw["name"] = path.stem
        if not re.fullmatch(NAME_PATTERN, path.stem):
            raw["name"] = "sweep"
            problems.append(
                f"name: is the file's, {path.stem!r}, where the spec gives none, and {NAME_RULE}; "
                "write name: in the file, or --set name=my-sweep"
            )
    problems += _take_nested_spaces(raw)
    _find_space_file(raw, path)
    return validate(raw, problems, on_this_machine=on_this_machine)


def validate(
    raw: dict[str, Any], problems: list[str] | None = None, *, on_this_machine: bool = False
) -> SweepSpec:
    """A raw mapping as a checked SweepSpec; SpecError with all problems, earlier ones first."""
    problems = list(problems or [])
    if found := key_problems(raw):
        problems += found
        raw = without_keys(raw)  # what else is wrong shall not be told with a key in it
    spec: SweepSpec | None = None
    try:
        spec = SweepSpec.model_validate(raw)
    except ValidationError as error:
        problems += validation_problems(error, raw)
        spec = _without_what_is_wrong(raw, error)
    more = spec_problems(spec) if spec else _file_problems(raw)
    problems += [problem for problem in more if problem not in problems]
    if problems and spec and on_this_machine:
        problems += resource_problems(spec.resources)
    if problems or spec is None:
        raise SpecError(problems)
    return spec


def _without_what_is_wrong(raw: dict[str, Any], error: ValidationError) -> SweepSpec | None:
    """The spec with its refused fields at their defaults, so that the other checks can run too."""
    trimmed = copy.deepcopy(raw)
    for item in error.errors():
        place: Any = trimmed
        found: list[tuple[dict[str, Any], str]] = []
        for key in item["loc"]:
            if isinstance(place, dict) and key in place:
                found.append((place, str(key)))
                place = place[key]
        if found:
            parent, key = found[-1]
            del parent[key]
    trimmed.setdefault("name", "sweep")
    training = trimmed.setdefault("training", {})
    if isinstance(training, dict) and not {"max_steps", "num_train_epochs"} & set(training):
        training["num_train_epochs"] = 1
    try:
        return SweepSpec.model_validate(trimmed)
    except ValidationError:
        return None


def _file_problems(raw: dict[str, Any]) -> list[str]:
    """Missing files and models of the sections that are sound by themselves."""
    return missing_files(
        _section(ModelSpec, raw.get("model")),
        _section(JudgeSpec, raw.get("judge")),
        _section(DataSpec, raw.get("data")),
        _section(PPOSpec, raw.get("algorithm")),
        _section(FinalsSpec, raw.get("finals")),
    )


def _section(kind: type[Section], raw: object) -> Section | None:
    try:
        return kind.model_validate(raw)
    except ValidationError:
        return None


def parse_params(spec: SweepSpec, texts: list[str]) -> dict[str, Any]:
    """`a.b=c` texts as parameters of one trial, checked against the spec.

    Raises SpecError where a text, a field or a value is wrong.
    """
    raw: dict[str, Any] = {}
    problems = []
    for text in texts:
        path, sign, value = text.partition("=")
        if not sign or not _is_path(path):
            problems.append(f"--params {cut(text)}: must look like algorithm.beta=0.2")
            continue
        head = path.partition(".")[0]
        if fixed_because(path) or (head in written_fields(SweepSpec) and head not in SEARCHABLE):
            problems.append(
                f"--params {cut(text)}: {path} is no parameter of a trial; use --set {cut(text)}"
            )
            continue
        raw[path] = read_yaml(value, f"--params {path}")
    problems += param_problems(spec, raw)
    if not problems:
        problems = spec_problems(spec.with_params(raw))
    if problems:
        raise SpecError(problems)
    return raw
