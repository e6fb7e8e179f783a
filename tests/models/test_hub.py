"""A hub name that cannot be loaded is refused at once; a cached one is used without the hub."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from huggingface_hub import constants

from easyds_tune.models.hub import hub_problems


@pytest.fixture(autouse=True)
def unreachable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A hub that no machine has, and an empty cache."""
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setattr("huggingface_hub.hf_api.api.endpoint", "http://127.0.0.1:9")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_folder_needs_no_hub(tmp_path: Path) -> None:
    assert hub_problems(str(tmp_path)) == []


def test_a_name_that_is_neither_here_nor_reachable_is_refused_within_a_second() -> None:
    start = time.monotonic()
    (problem,) = hub_problems("results/mine")
    assert time.monotonic() - start < 1
    assert problem.startswith("results/mine: there is no such folder here (")
    assert "the hub cannot be reached" in problem
    assert problem.endswith("or download it first with `hf download results/mine`")


def test_a_name_that_no_hub_can_have_is_refused() -> None:
    assert hub_problems("a name/of mine") == [
        "a name/of mine: is neither a folder here nor a hub name; correct it"
    ]


def test_a_cached_model_is_used_offline_where_the_hub_cannot_be_reached(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit = "0" * 40
    model = tmp_path / "cache" / "models--someone--thing"
    (model / "snapshots" / commit).mkdir(parents=True)
    (model / "snapshots" / commit / "config.json").write_text("{}", encoding="utf-8")
    (model / "refs").mkdir()
    (model / "refs" / "main").write_text(commit, encoding="utf-8")
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")  # so that the change is undone
    assert hub_problems("someone/thing") == []
    assert constants.HF_HUB_OFFLINE
    assert os.environ["HF_HUB_OFFLINE"] == "1"
