"""Keys never reach the spec, the journal, the tables or the screen: a canary in each of them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from easyds_tune.cli.main import main
from easyds_tune.results.load import load_sweep_record
from tests.integration.sweeps import spec_file

CANARIES = {
    "HF_TOKEN": "hf_Canary1Canary2Canary3Canary4Cana",
    "OPENAI_API_KEY": "sk-proj-Canary5Canary6Canary7Canary8",
    "WANDB_API_KEY": "ca4a1e" * 6 + "cafe",
}
URL = "https://reader:Canary9Canary@hub.example/model"
BIRDS = [*CANARIES.values(), "Canary9Canary"]
LANDSCAPE = Path(__file__).parents[1] / "benchmarks" / "decisions" / "landscapes" / "hacking.yaml"
SPACE = """
import os

drawn = 0


def search_space(trial):
    global drawn
    drawn += 1
    if drawn > 33:  # after those that are tried before the sweep starts
        raise ValueError(f"{os.environ['OPENAI_API_KEY']} was refused by {URL}")
    rate, beta = "training.learning_rate", "algorithm.beta"
    return {
        rate: trial.suggest_float(rate, 1e-4, 1e-2, log=True),
        beta: trial.suggest_float(beta, 0.03, 0.5, log=True),
    }


URL = "https://reader:Canary9Canary@hub.example/model"
"""


@pytest.fixture(autouse=True)
def canaries(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in CANARIES.items():
        monkeypatch.setenv(name, value)


def birds_in(text: str) -> list[str]:
    return [bird for bird in BIRDS if bird in text]


def files_with_birds(folder: Path) -> list[str]:
    return [
        str(path.relative_to(folder))
        for path in sorted(folder.rglob("*"))
        if path.is_file() and any(bird.encode() in path.read_bytes() for bird in BIRDS)
    ]


@pytest.mark.parametrize("command", ["plan", "sweep", "train"])
@pytest.mark.parametrize(
    ("override", "where"),
    [
        (f"model.model_name_or_path={URL}", "model.model_name_or_path"),
        (f"model.revision={CANARIES['HF_TOKEN']}", "model.revision"),
        (f"data.train={URL}.jsonl", "data.train"),
        (f"deepspeed={{comet: {{api_key: {BIRDS[3]}}}}}", "deepspeed.comet.api_key"),
        (f"name={CANARIES['WANDB_API_KEY']}", "name"),
        (f"search_space.model.lora_r=[4, {CANARIES['OPENAI_API_KEY']}]", "search_space"),
        (f"{CANARIES['OPENAI_API_KEY']}.x=1", "--set <OPENAI_API_KEY>.x=1"),
    ],
)
def test_a_spec_with_a_key_is_refused_without_showing_it(
    workspace: Path, capsys: pytest.CaptureFixture[str], command: str, override: str, where: str
) -> None:
    assert main([command, "dpo", "--set", override]) == 2
    out, err = capsys.readouterr()
    assert birds_in(out + err) == []
    assert f"error: {where}" in err
    assert "nothing was started" in err
    if not override.startswith("sk-"):
        assert "must not" in err


def test_a_broken_file_shows_no_key(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = f"model: {{a: {CANARIES['HF_TOKEN']}\nb: !!python/object:os.system {URL}\n"
    (workspace / "bad.yaml").write_text(text, encoding="utf-8")
    assert main(["plan", "bad.yaml"]) == 2
    assert birds_in("".join(capsys.readouterr())) == []


def test_a_bug_shows_its_traceback_without_keys(
    workspace: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*args: object, **kwargs: object) -> None:
        raise RuntimeError(f"401 for {URL} with {CANARIES['HF_TOKEN']}")

    monkeypatch.setattr("easyds_tune.spec.load.load_sweep", fail)
    assert main(["plan", "dpo"]) == 1
    err = capsys.readouterr().err
    assert "RuntimeError: 401 for https://***@hub.example/model with <HF_TOKEN>" in err
    assert birds_in(err) == []


@pytest.mark.slow
@pytest.mark.timeout(180)
@pytest.mark.parametrize("fails", [False, True])
def test_no_key_is_anywhere_after_a_sweep(tmp_path: Path, fails: bool) -> None:
    """The sweep's own folder, and all that it said; it fails in the middle of its search, or not.

    What a trial itself fails with is a worker's to redact.
    """
    curves = tmp_path / f"curves-{CANARIES['WANDB_API_KEY']}.yaml"
    curves.write_bytes(LANDSCAPE.read_bytes())
    (tmp_path / "space.py").write_text(SPACE, encoding="utf-8")
    space = {"search_space": {
        "training.learning_rate": {"low": 1e-4, "high": 1e-2, "log": True},
        "algorithm.beta": {"low": 0.03, "high": 0.5, "log": True},
    }}  # fmt: skip
    spec = spec_file(
        tmp_path,
        "canary",
        model={"lora_r": 8},
        training={"max_steps": 12, "eval_steps": 6},
        search={"num_trials": 8, "sampler": "random"},
        finals={"top": 1},
        **({"search_space": None, "space_file": "space.py"} if fails else space),
    )
    text = spec.read_text(encoding="utf-8").replace("search_space: null\n", "")
    spec.write_text(f"# with {CANARIES['HF_TOKEN']} from {URL}\n{text}", encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "easyds_tune.cli.main", "sweep", spec.name, "--simulate",
         str(curves)],
        cwd=tmp_path,
        env=os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        timeout=150,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert birds_in(done.stdout + done.stderr) == []
    folder = tmp_path / "results" / "canary"
    assert files_with_birds(folder) == []
    record = load_sweep_record(folder)
    assert any("<WANDB_API_KEY>" in note for note in record.notes)
    assert "# with <HF_TOKEN> from https://***@" in (folder / "spec.yaml").read_text("utf-8")
    if fails:
        assert record.stopped is not None
        assert "<OPENAI_API_KEY> was refused by https://***@hub.example/model" in record.stopped
