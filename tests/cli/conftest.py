"""A working folder with the bundled sweeps and models, and commands that must be refused."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from easyds_tune.cli.main import main

ROOT = Path(__file__).parents[2]
RECORDS = 24
"""Records copied of each bundled file: enough to plan with, quick to read."""

Refusal = Callable[..., list[str]]


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory of a user who has the demo: sweeps, spaces, data and models."""
    for name in ("sweeps", "search_spaces"):
        shutil.copytree(ROOT / name, tmp_path / name)
    (tmp_path / "data" / "easyds").mkdir(parents=True)
    (tmp_path / "data" / "models").symlink_to(ROOT / "data" / "models")
    for name in ("sft", "preferences", "prompts", "judge_prompts", "finals_prompts"):
        lines = (ROOT / "data" / "easyds" / f"{name}.jsonl").read_text("utf-8").split("\n")
        text = "\n".join(lines[:RECORDS])
        (tmp_path / "data" / "easyds" / f"{name}.jsonl").write_text(text, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def everything_in(folder: Path) -> dict[str, tuple[int, int]]:
    """Each path below `folder` with its time of change and size."""
    found = {}
    for path in folder.rglob("*"):
        stat = path.lstat()
        found[str(path.relative_to(folder))] = (stat.st_mtime_ns, stat.st_size)
    return found


@pytest.fixture
def refused(workspace: Path, capsys: pytest.CaptureFixture[str]) -> Refusal:
    """Run a command that must end as exit 2 and write nothing; returns the problems it names."""

    def run(*argv: str) -> list[str]:
        before = everything_in(workspace)
        code = main(list(argv))
        lines = capsys.readouterr().err.splitlines()
        problems = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
        assert code == 2
        assert everything_in(workspace) == before
        count = len(problems)
        told = [f"{count} problem{'s' if count != 1 else ''}; nothing was started"]
        assert [line for line in lines if line.endswith("nothing was started")] == (
            told if argv[0] in ("plan", "sweep", "train") else []
        )
        return problems

    return run


@pytest.fixture
def plan_refused(refused: Refusal) -> Refusal:
    """The problems that `plan dpo.yaml` names with these overrides."""

    def run(*overrides: str, spec: str = "dpo.yaml") -> list[str]:
        return refused("plan", spec, *(word for text in overrides for word in ("--set", text)))

    return run


@pytest.fixture
def sweep_refused(refused: Refusal) -> Refusal:
    """The problems that `sweep dpo.yaml` names with these overrides, before anything starts."""

    def run(*overrides: str, spec: str = "dpo.yaml") -> list[str]:
        return refused("sweep", spec, *(word for text in overrides for word in ("--set", text)))

    return run
