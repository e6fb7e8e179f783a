"""YAML that was never meant to be a spec: damaged, bombs, tags, bytes, and whatever lies deep."""

from __future__ import annotations

import codecs

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from easyds_tune.errors import SpecError
from easyds_tune.spec.load import read_yaml
from tests.fuzz import FUZZ, HEAVY, assert_clear, bounded
from tests.spec.fuzzing import ROOT, VALUES, load

pytestmark = [pytest.mark.usefixtures("fuzz_folder"), pytest.mark.fuzz]

DPO = (ROOT / "sweeps" / "dpo.yaml").read_text("utf-8")
JUNK = st.one_of(
    st.text(max_size=4),
    st.text("[]{}:,&*!|>'\"%@`#?- \n\t~", max_size=4),
    st.sampled_from(["<<: ", "&a ", "*a", "!!set ", "---\n", "...\n", "\0", "\ufeff", "\x85", "0x",
                     "!!python/object/apply:os.system [true]", "%YAML 1.1\n", "? ", "=", "1:30.5",
                     "!!timestamp x", "!!binary x", "!!int ''", "!!bool x", "!!float _", ".inf"]),
)  # fmt: skip
TAGS = ["", "!!str ", "!!int ", "!!float ", "!!bool ", "!!null ", "!!binary ", "!!timestamp ",
        "!!set ", "!!omap ", "!!pairs ", "!!map ", "!!seq ", "!!merge ", "!!value ", "! ", "!a ",
        "!<x> ", "!!python/name:os.system ", "!!python/object/apply:os.system "]  # fmt: skip
SCALARS = ["", "x", "1", "-1.5", "1e5", "true", "~", "''", "'x'", '"\\ud800"', "=", "<<", "1:2:3.5",
           "0x" + "f" * 5000, "9" * 5000, "1:" * 500 + "1.0", "2026-99-99", "_", "0b_", "aGk=",
           '"\\U00110000"', '"\\0"', "|\n  x", "x" * 5000, ".nan", "0o7", "+.inf"]  # fmt: skip


@st.composite
def nodes(draw: st.DrawFn, depth: int = 0) -> str:
    """A YAML value in flow style, of any tag, with anchors, aliases and merges."""
    tag, anchor = draw(st.sampled_from(TAGS)), draw(st.sampled_from(["", "", "&a ", "&b "]))
    kinds = ["scalar", "alias"] if depth > 2 else ["scalar", "alias", "list", "map", "map"]
    match draw(st.sampled_from(kinds)):
        case "alias":
            return draw(st.sampled_from(["*a", "*b"]))
        case "list":
            items = draw(st.lists(nodes(depth + 1), max_size=3))
            return f"{tag}{anchor}[{', '.join(items)}]"
        case "map":
            keys = st.sampled_from(["a", "b", "type", "<<", "<<", "? [a]", "1", "*a", "!!set {}"])
            pairs = draw(st.lists(st.tuples(keys, nodes(depth + 1)), max_size=3))
            return f"{tag}{anchor}{{{', '.join(f'{key} : {value}' for key, value in pairs)}}}"
        case _:
            return f"{tag}{anchor}{draw(st.sampled_from(SCALARS))}"


@st.composite
def bombs(draw: st.DrawFn) -> str:
    """A few lines that stand for more values than any machine holds."""
    levels, width = draw(st.integers(2, 60)), draw(st.integers(2, 12))
    kind = draw(st.sampled_from(["[{}]", "{{<<: [{}]}}", "{{k: [{}]}}"]))
    first = draw(st.sampled_from(["[x, y]", "{x: 1}", "&z [*z]"]))
    lines = [f"training: &a0 {first}"]
    lines += [
        f"k{n}: &a{n} {kind.format(', '.join([f'*a{n - 1}'] * width))}" for n in range(1, levels)
    ]
    places = ["deepspeed", "search_space", "algorithm", "name", "bounds", "judge", "seed", "model"]
    lines += [f"{place}: *a{levels - 1}" for place in draw(st.sets(st.sampled_from(places)))]
    return "\n".join(lines)


@FUZZ
@given(st.data())
def test_a_sweep_with_damaged_text_loads_or_says_what_is_wrong(data: st.DataObject) -> None:
    text = DPO
    for _ in range(data.draw(st.integers(1, 4))):
        start = data.draw(st.integers(0, len(text)))
        end = min(len(text), start + data.draw(st.integers(0, 12)))
        text = text[:start] + data.draw(JUNK) + text[end:]
    load(text, [])


@FUZZ
@given(st.one_of(st.text(), st.text("ab:- \n{}[]&*!?|>'\"#,\t1"), VALUES.map(yaml.safe_dump)))
def test_any_text_at_all_says_what_is_wrong(text: str) -> None:
    load(text, [])


@FUZZ
@given(
    st.sampled_from(["deepspeed", "search_space", "bounds", "judge", "training", "objective"]),
    nodes(),
)
def test_any_value_of_any_tag_is_taken_or_refused(section: str, value: str) -> None:
    lines = [line for line in DPO.split("\n") if not line.startswith(section)]
    load("\n".join([*lines, f"{section}: {value}"]), [])


@FUZZ
@given(nodes(), nodes())
def test_any_values_in_an_override_are_taken_or_refused(space: str, config: str) -> None:
    load(DPO, [f"search_space.algorithm.beta={space}", f"deepspeed={config}"])


@FUZZ
@given(bombs())
def test_a_bomb_is_refused_at_once(text: str) -> None:
    load(f"{text}\n{DPO}", [])
    load(text, [])
    with bounded(), pytest.raises(SpecError) as caught:
        read_yaml(f"{text}\nlast: 'x", "here")
    assert_clear(caught.value.problems)


@HEAVY
@given(
    st.sampled_from(["[", "{a: ", "- ", "? ", "[{a: ", "a:\n ", "!!map {a: ", "'", '"', "| ",
                     "&a [", "{", "[[],", "*a", "1:", "-", "\n", "a: b\n", "\t", "#", "!", "%",
                     "\u2028"]),
    st.one_of(st.integers(1, 2000), st.sampled_from([10_000, 60_000])),
)  # fmt: skip
def test_whatever_is_deep_or_long_is_refused_at_once(piece: str, times: int) -> None:
    load(piece * times, [])
    load(f"deepspeed: {piece * times}", [])


@FUZZ
@given(
    st.one_of(
        st.binary(max_size=60),
        st.sampled_from(["utf-16", "utf-32", "gb18030", "utf-8-sig", "utf-7", "latin-1"]).map(
            lambda name: f"name: 教学\n{DPO}".encode(name, "replace")
        ),
        st.tuples(st.binary(max_size=3), st.integers(0, len(DPO.encode()))).map(
            lambda pair: DPO.encode()[: pair[1]] + pair[0] + DPO.encode()[pair[1] :]
        ),
        st.binary(max_size=8).map(lambda junk: codecs.BOM_UTF8 * 2 + junk),
    )
)
def test_any_bytes_at_all_load_or_say_what_is_wrong(data: bytes) -> None:
    load(data, [])
