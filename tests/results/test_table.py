from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import pytest
from rich.cells import cell_len
from rich.console import Console

from easyds_tune.results.table import RankedTable


def lines(record: Any, width: int, top: int = 10) -> list[str]:
    stream = io.StringIO()
    Console(file=stream, width=width).print(RankedTable(record, top))
    return [line.rstrip() for line in stream.getvalue().splitlines()]


def test_the_table_at_120_columns(demo_sweep: Any) -> None:
    assert lines(demo_sweep.record(), 120) == [
        "#  trial  state      step  eval/reward ↑  Δ default    kl  learning_rate  beta  lora_r  "
        "lora_target_modules",
        "─" * 108,
        "1  001    COMPLETED    20  0.900 ± 0.050     +0.400  0.01           5e-5   0.1       8  "
        "      q_proj+v_proj",
        "2  005    RUNNING      20  0.600 ± 0.050     +0.100  0.01         1.5e-4   0.1       8  "
        "      q_proj+v_proj",
        "3  000    COMPLETED    40  0.500 ± 0.050    default  0.01         2.5e-5   0.1       8  "
        "      q_proj+v_proj",
        "4  002    PRUNED       20  0.300 ± 0.050     -0.200  0.01         7.5e-5   0.1       8  "
        "      q_proj+v_proj",
        "5  003    DIVERGED     20  1.700 ± 0.050     +1.200  0.01           1e-4   0.1       8  "
        "      q_proj+v_proj",
        "6  004    FAILED        –              –          –     –        1.25e-4   0.1       8  "
        "      q_proj+v_proj",
    ]


@pytest.mark.parametrize("width", range(56, 130))
def test_at_any_width_nothing_wraps_or_is_cut(demo_sweep: Any, width: int) -> None:
    shown = lines(demo_sweep.record(), width)
    table = shown[:8]
    assert all(cell_len(line) <= width for line in shown)
    assert not any("…" in line for line in table)
    header = table[0].split()
    assert [line.split()[1] for line in table[2:]] == ["001", "005", "000", "002", "003", "004"]
    caption = " ".join(shown[8:])
    for name in ("learning_rate", "beta", "lora_r", "lora_target_modules"):
        assert (name in header) != (name in caption)


def test_the_default_is_shown_wherever_it_ranks(demo_sweep: Any) -> None:
    shown = lines(demo_sweep.record(), 80, top=1)
    assert [line.split()[:2] for line in shown[2:4]] == [["1", "001"], ["3", "000"]]
    assert shown[4].startswith("2 of 6 trials")


def test_chinese_values_keep_the_columns_straight(sweep: Callable[..., Any]) -> None:
    builder = sweep(metric="eval/奖励")
    for value in ("余弦退火", "constant"):
        builder.trial({1: {"eval/奖励": 1.0}}, params={"训练.调度": value, "b.x": 1})
    shown = lines(builder.record(), 80)
    assert len({cell_len(line) for line in shown[2:]}) == 1


def test_a_sweep_where_less_is_better_says_so(sweep: Callable[..., Any]) -> None:
    builder = sweep("min").trial({1: {"eval/reward": 2.0}}).trial({1: {"eval/reward": 1.5}})
    shown = lines(builder.record(), 80)
    assert "eval/reward ↓" in shown[0]
    assert shown[2].split()[:6] == ["1", "001", "COMPLETED", "1", "1.5", "-0.5"]
