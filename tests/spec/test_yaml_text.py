"""YAML that is read, and YAML that is refused before it does any harm."""

from __future__ import annotations

from itertools import pairwise

import pytest

from easyds_tune.errors import SpecError
from easyds_tune.spec.yaml_text import MAX_CHARACTERS, MAX_DEPTH, read_yaml

LAUGHS = "\n".join(
    ["a: &a [x, x]", *(f"{new}: &{new} [*{old}, *{old}]" for old, new in pairwise("abcdefghijklm"))]
)
MERGES = "\n".join(
    [
        "a: &a {x: 1}",
        *(f"{new}: &{new} {{<<: [*{old}, *{old}]}}" for old, new in pairwise("abcdefghijklm")),
    ]
)


def problem_of(text: str) -> str:
    with pytest.raises(SpecError) as caught:
        read_yaml(text, "here")
    [problem] = caught.value.problems
    return problem


@pytest.mark.parametrize("text", [LAUGHS, MERGES])
def test_a_few_lines_cannot_stand_for_many_values(text: str) -> None:
    assert "not valid YAML: must stand for at most" in problem_of(text)


@pytest.mark.parametrize("text", ["a: &a [*a]", "a: &a {b: [*a]}"])
def test_a_value_cannot_hold_itself(text: str) -> None:
    assert "a value cannot hold itself" in problem_of(text)


@pytest.mark.parametrize(
    "text",
    ["[" * 5000, "- " * 5000, "[" * (MAX_DEPTH + 1) + "]" * (MAX_DEPTH + 1),
     "\n".join(["- &a0 x", *(f"- &a{n} [*a{n - 1}]" for n in range(1, MAX_DEPTH + 1))])],
    ids=["open", "blocks", "one too many", "aliases"],
)  # fmt: skip
def test_values_that_lie_too_deep_are_refused(text: str) -> None:
    assert "must lie at most 40 levels deep" in problem_of(text)


def test_values_may_lie_as_deep_as_a_spec_needs() -> None:
    depth = MAX_DEPTH - 1
    assert read_yaml("[" * depth + "x" + "]" * depth, "here")


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("a: !!timestamp x", "the tag timestamp does not fit what it stands at; remove the tag"),
        ("a: !!bool x", "the tag bool does not fit"),
        ("a: !!int ''", "the tag int does not fit"),
        ("a: !!float _", "the tag float does not fit"),
        ("a: !!binary aGk=", "the tag binary does not fit"),
        ("a: !!set {x}", "the tag tag:yaml.org,2002:set makes it no plain value"),
        ("a: =", "= alone means something to YAML; put it in quotes"),
        ("a: <<", "<< alone means something to YAML; put it in quotes"),
        (f"a: {'1:' * 200}1.0", "a number must have at most 100 digits"),
        (f"a: 0x{'f' * 5000}", "a number must have at most 100 digits"),
        (f"{'k' * 300}: 1", "a key must have at most 255 characters"),
        ("a: {<<: {1: x}}", "a key must be text, got 1; put it in quotes"),
        ("? [a]\n: b", "a key must be text, got several; put it in quotes"),
    ],
)
def test_what_is_no_plain_value_is_refused(text: str, problem: str) -> None:
    assert f"here:1: not valid YAML: {problem}" in problem_of(text)


def test_a_character_that_cannot_stand_there_is_named_with_its_line() -> None:
    problem = problem_of("a: 1\nb: \0")
    assert problem == (
        "here:2: not valid YAML: the character '\\x00' cannot stand here; write it as an escape"
    )


def test_a_text_longer_than_any_spec_is_refused_unread() -> None:
    assert "must have at most" in problem_of("#" * (MAX_CHARACTERS + 1))


def test_a_tag_may_make_text_of_anything() -> None:
    assert read_yaml("!!str 5", "here") == "5"
