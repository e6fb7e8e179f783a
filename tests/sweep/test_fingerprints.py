"""A sweep goes on with the models, settings and templates that it began with, and no others."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from safetensors.torch import load_file, save_file

from easyds_tune.cli.main import main
from easyds_tune.errors import SpecError
from easyds_tune.spec.load import load_sweep
from easyds_tune.spec.sweep import SweepSpec
from easyds_tune.sweep.fingerprints import (
    SIMULATE,
    STRETCHES,
    fingerprints,
    refuse_other_files,
    space_file_notes,
)
from easyds_tune.sweep.resume import resume_sweep
from easyds_tune.trial.records import records_of
from tests.integration.sweeps import DATA, spec_file
from tests.sweep.test_resume import begun

MODEL, JUDGE = "model.model_name_or_path", "judge.reward.model_name_or_path"
SPACE = """
def search_space(trial):
    return {"training.learning_rate": trial.suggest_float("training.learning_rate", 1e-4, 1e-2)}
"""


@pytest.fixture
def spec(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SweepSpec:
    """A sweep whose models, DeepSpeed settings, template and space stand in the working folder."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(DATA / "models" / "tiny-tutor", "base")
    shutil.copytree(DATA / "models" / "tiny-reward", "reward")
    Path("zero.json").write_text('{"zero_optimization": {"stage": 1}}', encoding="utf-8")
    shutil.copy("base/chat_template.jinja", "chat.jinja")
    Path("space.py").write_text(SPACE, encoding="utf-8")
    path = spec_file(
        tmp_path,
        "small",
        model={"model_name_or_path": "base"},
        judge={"reward": {"model_name_or_path": "reward"}},
        deepspeed="zero.json",
        space_file="space.py",
    )
    raw = yaml.safe_load(path.read_text(encoding="utf-8"))
    del raw["search_space"]
    raw["data"]["chat_template"] = "chat.jinja"
    path.write_text(yaml.safe_dump(raw), encoding="utf-8")
    return load_sweep("small.yaml")


def train_weights(path: Path) -> None:
    """Other numbers in the same names, shapes and bytes."""
    weights = {name: tensor + 0.01 for name, tensor in load_file(path).items()}
    size = path.stat().st_size
    save_file(weights, path, metadata={"format": "pt"})
    assert path.stat().st_size == size


def append_to(name: str) -> Callable[[], object]:
    """A change that leaves the file as valid as it was."""
    return lambda: Path(name).write_text(Path(name).read_text("utf-8") + "\n", encoding="utf-8")


CHANGES: list[tuple[str, str, Callable[[], object]]] = [
    (MODEL, "base", lambda: train_weights(Path("base/model.safetensors"))),
    (MODEL, "base", append_to("base/tokenizer_config.json")),
    (JUDGE, "reward", lambda: train_weights(Path("reward/model.safetensors"))),
    ("deepspeed", "zero.json", append_to("zero.json")),
    ("data.chat_template", "chat.jinja", append_to("chat.jinja")),
]


@pytest.mark.parametrize(("field", "name", "change"), CHANGES)
def test_what_changed_since_the_start_is_refused_by_its_field_and_nothing_is_written(
    spec: SweepSpec, tmp_path: Path, field: str, name: str, change: Callable[[], object]
) -> None:
    hashes = records_of(spec).hashes
    sweep = begun(tmp_path, spec, data_hashes=hashes, fingerprints=fingerprints(spec))
    change()
    before = {path.name: path.read_bytes() for path in sweep.iterdir()}
    with pytest.raises(SpecError) as caught:
        resume_sweep(sweep)
    assert caught.value.problems == [
        f"{field}: {name} changed since the sweep began; bring it back as it was, or start a new "
        "sweep"
    ]
    lock = sweep / "lock"
    assert lock.read_bytes() == b""
    lock.unlink()
    assert {path.name: path.read_bytes() for path in sweep.iterdir()} == before


def test_a_copy_elsewhere_is_the_same_and_so_is_what_no_trial_reads(
    spec: SweepSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    at_first = fingerprints(spec)
    assert sorted(at_first) == ["data.chat_template", "deepspeed", JUDGE, MODEL, "space_file"]
    Path("base/README.md").write_text("trained on tutoring", encoding="utf-8")
    Path("base/training_args.bin").write_bytes(b"seed 1")
    shutil.copytree(tmp_path, tmp_path / "moved" / "here", ignore=shutil.ignore_patterns("moved"))
    monkeypatch.chdir(tmp_path / "moved" / "here")
    shutil.rmtree(tmp_path / "base")
    assert fingerprints(spec) == at_first


def test_an_older_sweep_has_none_and_is_accepted(spec: SweepSpec) -> None:
    refuse_other_files(spec, None, fingerprints(spec), None)


def test_a_folder_in_the_place_of_a_hub_name_is_refused(spec: SweepSpec) -> None:
    now = fingerprints(spec)
    hub = {path: value for path, value in now.items() if path != MODEL}
    for one, other, words in ((now, hub, "was no folder"), (hub, now, "was a folder")):
        with pytest.raises(SpecError, match=f"{MODEL}: base {words} on this machine when"):
            refuse_other_files(spec, None, one, other)


def test_a_hub_name_and_a_preset_have_none(spec: SweepSpec) -> None:
    changes = {MODEL: "some/model", "deepspeed": "zero2", "data.chat_template": "none"}
    found = fingerprints(spec.with_params(changes))
    assert sorted(found) == [JUDGE, "space_file"]
    assert fingerprints(spec.with_params({"data.chat_template": "{{ messages }}"})).keys() == (
        fingerprints(spec.with_params({"data.chat_template": None})).keys()
    )


def test_an_adapters_base_counts_and_may_move_with_it(spec: SweepSpec, tmp_path: Path) -> None:
    Path("adapter").mkdir()
    config = Path("adapter/adapter_config.json")
    settings = {"r": 4, "base_model_name_or_path": str(tmp_path / "base")}
    config.write_text(json.dumps(settings), encoding="utf-8")
    Path("adapter/adapter_model.safetensors").write_bytes(b"weights")
    on_adapter = spec.with_params({MODEL: "adapter"})
    at_first = fingerprints(on_adapter)

    os.rename("base", "elsewhere")
    config.write_text(json.dumps(settings | {"base_model_name_or_path": "elsewhere"}), "utf-8")
    assert fingerprints(on_adapter) == at_first
    train_weights(Path("elsewhere/model.safetensors"))
    with pytest.raises(SpecError, match=f"{MODEL}: adapter, or the base under it, changed since"):
        refuse_other_files(on_adapter, None, fingerprints(on_adapter), at_first)


def test_gigabytes_take_well_under_a_second_and_training_shows_in_them(spec: SweepSpec) -> None:
    weights = Path("base/model.safetensors")
    with weights.open("r+b") as stream:
        stream.truncate(4 * 2**30)  # holes: no disk is taken
    begin = time.perf_counter()
    at_first = fingerprints(spec)[MODEL]
    assert time.perf_counter() - begin < 1
    for place in (100, 2**30, 4 * 2**30 - 100):
        with weights.open("r+b") as stream:
            stream.seek(place)
            stream.write(b"\1" * (4 * 2**30 // STRETCHES))
            stream.truncate(4 * 2**30)
        changed = fingerprints(spec)[MODEL]
        assert changed != at_first
        at_first = changed


def test_another_space_file_is_a_note_alone(spec: SweepSpec) -> None:
    at_first = fingerprints(spec)
    assert space_file_notes(spec, at_first, at_first) == []
    append_to("space.py")()
    now = fingerprints(spec)
    refuse_other_files(spec, None, now, at_first)
    (note,) = space_file_notes(spec, now, at_first)
    assert note.startswith("space_file: space.py changed since the sweep began; new trials come")


def test_curves_stand_for_all_models(spec: SweepSpec) -> None:
    Path("curves.yaml").write_text("space: {}", encoding="utf-8")
    at_first = fingerprints(spec, Path("curves.yaml"))
    assert sorted(at_first) == [SIMULATE, "space_file"]
    append_to("curves.yaml")()
    now = fingerprints(spec, Path("curves.yaml"))
    with pytest.raises(SpecError, match=r"--simulate: curves.yaml changed since the sweep began;"):
        refuse_other_files(spec, Path("curves.yaml"), now, at_first)


def test_curves_are_refused_where_trials_were_trained(
    spec: SweepSpec, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    begun(tmp_path, spec)
    Path("curves.yaml").write_text("space: {}", encoding="utf-8")
    assert main(["sweep", "small.yaml", "--resume", "--simulate", "curves.yaml"]) == 2
    assert capsys.readouterr().err.startswith("error: --simulate: small trains its trials; ")


def test_other_curves_than_at_the_start_are_refused_and_a_copy_is_not(
    spec: SweepSpec, tmp_path: Path
) -> None:
    first, copy = tmp_path / "curves.yaml", tmp_path / "copy.yaml"
    first.write_text("space: {}", encoding="utf-8")
    shutil.copy(first, copy)
    sweep = begun(tmp_path, spec, simulate=str(first), fingerprints=fingerprints(spec, first))
    with pytest.raises(SpecError, match=r"must"):
        resume_sweep(sweep, simulate=copy)  # refused for what it holds
    copy.write_text("space: {a: [1, 2]}", encoding="utf-8")
    with pytest.raises(SpecError, match=f"--simulate: small began with {first}, and {copy} is"):
        resume_sweep(sweep, simulate=copy)
