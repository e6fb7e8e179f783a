"""The smallest spec there is, to be changed in one place by each test."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from easyds_tune.spec.sweep import SweepSpec, set_path

ROOT = Path(__file__).parents[2]


@pytest.fixture
def raw() -> dict[str, Any]:
    """A reward model's sweep: it needs no judge."""
    return {
        "name": "tiny",
        "algorithm": {"type": "rm"},
        "model": {"model_name_or_path": "someone/a-model"},
        "data": {"train": "pairs"},
        "training": {"max_steps": 30, "eval_steps": 10},
    }


@pytest.fixture
def spec(raw: dict[str, Any]) -> Callable[..., SweepSpec]:
    """The smallest spec with some dotted fields set and a search space."""

    def make(space: dict[str, Any] | None = None, /, **fields: Any) -> SweepSpec:
        for path, value in fields.items():
            set_path(raw, path, value)
        return SweepSpec.model_validate({**raw, "search_space": space or {}})

    return make


@pytest.fixture
def ppo(raw: dict[str, Any]) -> Callable[..., SweepSpec]:
    """The smallest PPO spec: 30 steps of 64 replies, mini-batches of 8."""
    raw["algorithm"] = {"type": "ppo", "reward": {"model_name_or_path": "someone/a-reward"}}
    raw["judge"] = {"prompts": "p", "reward": {"model_name_or_path": "someone/another-reward"}}

    def make(space: dict[str, Any] | None = None, /, **fields: Any) -> SweepSpec:
        for path, value in fields.items():
            set_path(raw, path, value)
        return SweepSpec.model_validate({**raw, "search_space": space or {}})

    return make


@pytest.fixture(scope="module")
def fuzz_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Works in a folder with the bundled models and spaces, and just enough records to plan."""
    folder = tmp_path_factory.mktemp("fuzz")
    (folder / "data" / "easyds").mkdir(parents=True)
    (folder / "data" / "models").symlink_to(ROOT / "data" / "models")
    (folder / "search_spaces").symlink_to(ROOT / "search_spaces")
    for name in ("sft", "preferences", "prompts", "judge_prompts", "finals_prompts"):
        lines = (ROOT / "data" / "easyds" / f"{name}.jsonl").read_text("utf-8").split("\n")[:20]
        (folder / "data" / "easyds" / f"{name}.jsonl").write_text("\n".join(lines), "utf-8")
    before = Path.cwd()
    os.chdir(folder)
    yield folder
    os.chdir(before)
