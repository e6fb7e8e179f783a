"""YAML text as plain values: text, numbers, true, false, null, and lists and mappings of these.

What no spec needs and a parser chokes on is refused where it stands: a few lines of aliases that
stand for gigabytes, a value inside itself, tags, numbers of thousands of digits.
"""

from __future__ import annotations

import re
from typing import Any, NamedTuple

import yaml

from easyds_tune.errors import SpecError

MAX_CHARACTERS = 2**16
"""Of a file; the longest spec of this project has 2,000."""
MAX_VALUES = 5_000
"""Values in a file, with each alias counted as what it stands for."""
MAX_DEPTH = 40
"""Lists and mappings inside each other."""
MAX_DIGITS = 100
"""Characters of a number: it fits a float, and Python reads it at once."""
MAX_KEY = 255
"""Characters of a key."""

_TAG = "tag:yaml.org,2002:"
_SCALARS = ("null", "bool", "int", "float", "str")
_MERGE = f"{_TAG}merge"


class _Loader(yaml.SafeLoader):
    """YAML's safe subset, where 1e-5 is a number and a date is text."""


_Loader.yaml_implicit_resolvers = {
    first: [pair for pair in pairs if pair[0] != f"{_TAG}timestamp"]
    for first, pairs in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(
    f"{_TAG}float",
    re.compile(r"^[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"),
    list("-+.0123456789"),
)


class _Size(NamedTuple):
    """Of a value: how many there are in it, itself included, and how deep they lie."""

    values: int
    depth: int


def read_yaml(text: str, where: str) -> Any:
    """Parse YAML text; SpecError with the line where it is broken, or is no plain value."""
    if len(text) > MAX_CHARACTERS:
        raise SpecError(
            [f"{where}: must have at most {MAX_CHARACTERS} characters, got {len(text)}; shorten it"]
        )
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        if node is None:
            return None
        _check(node, loader, {})
        return loader.construct_document(node)
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        reason = f"the character {chr(error.character)!r} cannot stand here; write it as an escape"
        raise SpecError([f"{where}:{line}: not valid YAML: {reason}"]) from error
    except yaml.MarkedYAMLError as error:
        place = f":{error.problem_mark.line + 1}" if error.problem_mark else ""
        raise SpecError([f"{where}{place}: not valid YAML: {error.problem}"]) from error
    except RecursionError as error:
        raise SpecError([f"{where}: not valid YAML: {_too_deep()}"]) from error
    except ValueError as error:
        raise SpecError([f"{where}: not valid YAML: {error}"]) from error


def _check(node: yaml.Node, loader: _Loader, sizes: dict[yaml.Node, _Size | None]) -> _Size:
    """The size of a value; refuses it where it is none that a spec can hold.

    sizes: of the values seen, which an alias may name again; None while one is being measured.
    """
    if node in sizes:
        size = sizes[node]
        if size is None:
            raise _refused(node, "a value cannot hold itself; remove the alias")
        return size
    sizes[node] = None
    parts: list[yaml.Node] = []
    if isinstance(node, yaml.ScalarNode):
        _check_scalar(node, loader)
    elif isinstance(node, yaml.MappingNode) and node.tag == f"{_TAG}map":
        _check_keys(node)
        parts = [value for _, value in node.value]
    elif isinstance(node, yaml.SequenceNode) and node.tag == f"{_TAG}seq":
        parts = node.value
    else:
        raise _refused(node, f"the tag {cut(node.tag)} makes it no plain value; remove the tag")
    inside = [_check(part, loader, sizes) for part in parts]
    size = _Size(
        1 + sum(part.values for part in inside), 1 + max((part.depth for part in inside), default=0)
    )
    if size.depth > MAX_DEPTH:
        raise _refused(node, _too_deep())
    if size.values > MAX_VALUES:
        raise _refused(
            node, f"must stand for at most {MAX_VALUES} values, aliases included; shorten it"
        )
    sizes[node] = size
    return size


def _check_scalar(node: yaml.ScalarNode, loader: _Loader) -> None:
    kind = node.tag.removeprefix(_TAG)
    if kind == "str":
        return
    # A tag may call something a number which is none, and the parser then fails on it.
    plain: str = loader.resolve(yaml.ScalarNode, node.value, (True, False))  # type: ignore[no-untyped-call]
    if plain != node.tag:
        raise _refused(node, f"the tag {cut(kind)} does not fit what it stands at; remove the tag")
    if kind not in _SCALARS:
        raise _refused(node, f"{node.value} alone means something to YAML; put it in quotes")
    if len(node.value) > MAX_DIGITS:
        raise _refused(node, f"a number must have at most {MAX_DIGITS} digits, got more")


def _check_keys(node: yaml.MappingNode) -> None:
    seen: set[str] = set()
    for key, _ in node.value:
        if key.tag == _MERGE:
            continue
        if not isinstance(key, yaml.ScalarNode) or key.tag != f"{_TAG}str":
            got = f"got {cut(key.value)}" if isinstance(key, yaml.ScalarNode) else "got several"
            raise _refused(key, f"a key must be text, {got}; put it in quotes")
        if len(key.value) > MAX_KEY:
            raise _refused(
                key, f"a key must have at most {MAX_KEY} characters, got {cut(key.value)}"
            )
        if key.value in seen:
            raise _refused(key, f"the key {key.value!r} is written twice; remove one of the two")
        seen.add(key.value)


def _refused(node: yaml.Node, reason: str) -> yaml.MarkedYAMLError:
    return yaml.constructor.ConstructorError(None, None, reason, node.start_mark)


def _too_deep() -> str:
    return f"values must lie at most {MAX_DEPTH} levels deep; write them flatter"


def cut(text: str) -> str:
    """A text for a message, cut where it is long."""
    return text if len(text) <= 100 else f"{text[:97]}..."
