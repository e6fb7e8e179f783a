"""From a YAML file and `--set` overrides to one validated SweepSpec, or all problems at once."""

from __future__ import annotations

import copy
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import yaml
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
from easyds_tune.spec.messages import did_you_mean, validation_problems
from easyds_tune.spec.model import ModelSpec
from easyds_tune.spec.resources import resource_problems
from easyds_tune.spec.sweep import SweepSpec, set_path

Section = TypeVar("Section", bound=Spec)


class _Loader(yaml.SafeLoader):
    """YAML's safe subset, where 1e-5 is a number, a date is text, and so is every key."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key_node, _ in node.value:
            if key_node.tag == "tag:yaml.org,2002:merge":
                continue
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, str):
                reason = f"a key must be text, got {key!r}; put it in quotes"
                raise yaml.constructor.ConstructorError(None, None, reason, key_node.start_mark)
            if key in seen:
                reason = f"the key {key!r} is written twice; remove one of the two"
                raise yaml.constructor.ConstructorError(None, None, reason, key_node.start_mark)
            seen.add(key)
        return super().construct_mapping(node, deep)


_Loader.yaml_implicit_resolvers = {
    first: [pair for pair in pairs if pair[0] != "tag:yaml.org,2002:timestamp"]
    for first, pairs in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"),
    list("-+.0123456789"),
)


def read_yaml(text: str, where: str) -> Any:
    """Parse YAML text; SpecError with the line where it is broken."""
    try:
        return yaml.load(text, _Loader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f":{mark.line + 1}" if mark else ""
        reason = getattr(error, "problem", None) or str(error)
        raise SpecError([f"{where}{line}: not valid YAML: {reason}"]) from error
    except (ValueError, RecursionError) as error:
        raise SpecError([f"{where}: not valid YAML: {error}"]) from error


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


def _find_space_file(raw: dict[str, Any], spec_path: Path) -> None:
    """A space file may stand beside its spec."""
    name = raw.get("space_file")
    if isinstance(name, str) and name and not os.path.isfile(name):
        beside = spec_path.parent / name
        if os.path.isfile(beside):
            raw["space_file"] = str(beside)


def apply_overrides(raw: dict[str, Any], overrides: list[str]) -> None:
    """Apply `a.b=c` overrides in place; the value is read as YAML."""
    problems = []
    for override in overrides:
        path, sign, text = override.partition("=")
        if not sign or not re.fullmatch(r"[A-Za-z_]\w*(\.[^.=\s]+)*", path.strip()):
            problems.append(f"--set {override}: must look like training.learning_rate=1e-4")
            continue
        try:
            value = read_yaml(text, f"--set {path}")
            # A searched field is one key with dots in it, not a nested mapping.
            if path.startswith("search_space."):
                space = raw.setdefault("search_space", {})
                space[path.removeprefix("search_space.").strip()] = value
            else:
                set_path(raw, path.strip(), value)
        except SpecError as error:
            problems += error.problems
        except (KeyError, TypeError, AttributeError):
            problems.append(
                f"--set {override}: a part of {path} before its end holds a value and no fields; "
                "set that part itself"
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
    raw.setdefault("name", path.stem)
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
        if not sign:
            problems.append(f"--params {text}: must look like algorithm.beta=0.2")
            continue
        head = path.partition(".")[0]
        if fixed_because(path) or (head in written_fields(SweepSpec) and head not in SEARCHABLE):
            problems.append(f"--params {text}: {path} is no parameter of a trial; use --set {text}")
            continue
        raw[path] = read_yaml(value, f"--params {path}")
    problems += param_problems(spec, raw)
    if not problems:
        problems = spec_problems(spec.with_params(raw))
    if problems:
        raise SpecError(problems)
    return raw
