"""The arithmetic behind the benchmarks' verdicts."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType

import pytest


@pytest.fixture(scope="module")
def harness() -> ModuleType:
    """The scripts are no package; they import each other by file name."""
    path = Path(__file__).with_name("harness.py")
    spec = importlib.util.spec_from_file_location("harness", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["harness"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def test_a_spread_is_the_median_between_its_extremes(harness: ModuleType) -> None:
    spread = harness.Spread.of([3.0, 1.0, 2.0, 10.0])
    assert (spread.median, spread.low, spread.high, spread.count) == (2.5, 1.0, 10.0, 4)


def test_ratios_pair_the_runs_of_one_round(harness: ModuleType) -> None:
    assert harness.ratios([6.0, 10.0], [2.0, 5.0]) == [3.0, 2.0]


def test_a_target_is_met_at_its_limit_and_missed_beyond(harness: ModuleType) -> None:
    assert harness.Target("speed-up", 3.0, 3.0, "at least").met
    assert not harness.Target("speed-up", 2.9, 3.0, "at least").met
    assert harness.Target("seconds", 0.3, 0.3, "at most").met
    assert not harness.Target("seconds", 0.31, 0.3, "at most").met


def test_a_result_names_its_machine_and_keeps_every_sample(
    harness: ModuleType, tmp_path: Path
) -> None:
    target = harness.Target("seconds", 0.2, 0.3, "at most")
    path = harness.write_result(tmp_path / "new", "sample", [target], {"seconds": [0.1, 0.2]})
    result = json.loads(path.read_text(encoding="utf-8"))
    assert result["seconds"] == [0.1, 0.2]
    assert result["targets"][0]["met"] is True
    assert {"cpus", "load", "versions"} <= set(result["machine"])


def test_the_bundled_spec_is_a_sweep_that_loads(harness: ModuleType) -> None:
    from easyds_tune.spec.check import spec_problems
    from easyds_tune.spec.sweep import SweepSpec

    for algorithm in ("sft", "rm", "dpo"):
        spec = SweepSpec.model_validate(harness.bundled_spec(algorithm, training__max_steps=0))
        # Without a judge there is nothing to compare trials by, and a benchmark compares none.
        (problem,) = spec_problems(spec)
        assert problem.startswith("objective.metric: train/loss")
        assert spec.training.max_steps == 0
