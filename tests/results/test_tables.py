from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from easyds_tune.results.tables import write_tables


def test_trials_has_one_row_a_trial_with_its_best_step(demo_sweep: Any, tmp_path: Path) -> None:
    write_tables(demo_sweep.record(), tmp_path)
    table = pq.read_table(tmp_path / "trials.parquet").to_pydict()

    assert table["trial"] == ["000", "001", "002", "003", "004", "005"]
    assert table["rank"] == [3, 1, 4, 5, 6, 2]
    assert table["best_step"] == [40, 20, 20, 20, None, 20]
    assert table["best_value"] == [0.5, 0.9, 0.3, 1.7, None, 0.6]
    assert table["step"] == [40, 40, 20, 40, 0, 20]
    assert table["error_message"][4] == "学习率太高\nline two"
    assert table["params.model.lora_r"] == [8] * 6
    assert table["params.model.lora_target_modules"] == ['["q_proj", "v_proj"]'] * 6


def test_metrics_has_one_row_a_report_and_keeps_nan_apart_from_missing(
    sweep: Callable[..., Any], tmp_path: Path
) -> None:
    builder = sweep().trial({10: {"eval/reward": 1.0}, 20: {"eval/reward": math.nan, "extra": 2.0}})
    write_tables(builder.record(), tmp_path)
    table = pq.read_table(tmp_path / "metrics.parquet").to_pydict()

    assert (table["trial"], table["step"]) == (["000", "000"], [10, 20])
    assert table["extra"] == [None, 2.0]
    assert table["eval/reward"][0] == 1.0
    assert math.isnan(table["eval/reward"][1])
    assert table["time"] == [1003.0, 1005.0]


def test_a_parameter_with_whole_and_broken_numbers_is_a_float_column(
    sweep: Callable[..., Any], tmp_path: Path
) -> None:
    builder = sweep()
    for value in (1, 0.5, None):
        builder.trial({}, params={"a.x": value, "a.mixed": "all" if value == 1 else value})
    write_tables(builder.record(), tmp_path)
    table = pq.read_table(tmp_path / "trials.parquet")
    assert table.schema.field("params.a.x").type == pa.float64()
    assert table["params.a.mixed"].to_pylist() == ['"all"', "0.5", None]


def test_a_sweep_without_a_trial_has_empty_tables(
    sweep: Callable[..., Any], tmp_path: Path
) -> None:
    write_tables(sweep().record(), tmp_path)
    assert pq.read_table(tmp_path / "trials.parquet").num_rows == 0
    assert pq.read_table(tmp_path / "metrics.parquet").num_rows == 0
    assert sorted(file.name for file in tmp_path.iterdir()) == [
        "metrics.parquet",
        "trials.parquet",
    ]
