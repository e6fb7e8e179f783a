"""A checkpoint judged anew gives the trial's own numbers on the search's own prompts."""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from easyds_tune.errors import CheckpointError, ModelError
from easyds_tune.spec.sweep import SweepSpec
from easyds_tune.trial.checkpoint import drop_trainer_state
from easyds_tune.trial.records import records_of
from easyds_tune.trial.rejudge import Measured, rejudge
from easyds_tune.trial.run import Report
from easyds_tune.trial.workbench import Workbench
from tests.algorithms.small_ppo import ppo_spec
from tests.models.adapters import sft_adapter
from tests.trial.small import TUTOR, Lab, bits, sweep_spec

SPECS: dict[str, Callable[..., SweepSpec]] = {
    "sft": lambda **changes: sweep_spec("sft", objective={"metric": "eval/loss"}, **changes),
    "dpo": lambda **changes: sweep_spec("dpo", **changes),
    "rm": lambda **changes: sweep_spec("rm", **changes),
    "ppo": lambda **changes: ppo_spec(**changes),
}
FINALS = {"num_prompts": 6}
# Of 40 records half are held out, so that half of those are enough for finals.
CHANGES = {"data": {"eval_fraction": 0.5}, "training": {"max_steps": 2, "eval_steps": 1}}


def lab_of(kind: str, folder: Path, **changes: Any) -> Lab:
    spec = SPECS[kind](finals=FINALS, **CHANGES, **changes)
    lab = Lab(spec, folder)
    lab.records = records_of(spec)
    lab.bench = lab.fresh_bench()
    return lab


def told(measured: Measured) -> dict[str, float]:
    """The metrics that the numbers of a measurement add up to."""
    return {
        name: math.fsum(values) / math.fsum(measured.weights.get(name, [1.0] * len(values)))
        for name, values in measured.values.items()
    }


def as_reported(
    lab: Lab, report: Report, bench: Workbench, tolerance: float, **params: Any
) -> None:
    measured = rejudge(bench, lab.trial(**params), report.checkpoint.path, on="search")
    found = told(measured)
    assert found
    reported = {name: report.metrics[name] for name in found}
    assert found == pytest.approx(reported, rel=tolerance, abs=tolerance)


@pytest.mark.parametrize("rank", [4, None])
@pytest.mark.parametrize("kind", SPECS)
def test_on_the_searchs_own_prompts_it_gives_what_the_trial_reported(
    kind: str, rank: int | None, tmp_path: Path
) -> None:
    lab = lab_of(kind, tmp_path)
    params = {"model__lora_r": rank, "model__lora_dropout": 0.1}
    reports = lab.run(**params)
    for bench in (lab.bench, lab.fresh_bench()):
        for report in reports:
            as_reported(lab, report, bench, 1e-6, **params)
            drop_trainer_state(report.checkpoint.path)  # judged without it as well


@pytest.mark.parametrize("kind", ["sft", "ppo"])
def test_a_trial_after_it_has_the_bits_of_one_before(kind: str, tmp_path: Path) -> None:
    lab = lab_of(kind, tmp_path)
    before = lab.run()
    full = lab.run(model__lora_r=None)
    for report in (before[0], full[0]):
        rejudge(lab.bench, lab.trial(), report.checkpoint.path)
    assert bits(lab.run()) == bits(before)


def test_finals_ask_other_prompts_with_other_luck_the_same_for_all(tmp_path: Path) -> None:
    lab = lab_of("dpo", tmp_path)
    reports = lab.run()
    trial = lab.trial()
    first, last = (rejudge(lab.bench, trial, r.checkpoint.path) for r in reports)
    assert rejudge(lab.fresh_bench(), trial, reports[0].checkpoint.path) == first
    assert {len(values) for values in first.values.values()} == {FINALS["num_prompts"]}
    assert first.weights.keys() == {"eval/kl", "eval/kl_k1"}
    assert first.values["eval/length"] == first.weights["eval/kl"]
    assert first != last
    # The same prompts asked with the search's draws would be answered otherwise.
    with lab.bench.borrow() as base:
        judge = lab.bench.finals_judge(base)
        assert judge is not None
        ours = judge._sampling.seed
        assert ours != lab.bench.judge._sampling.seed  # type: ignore[union-attr]
        assert judge._prompts == lab.records.finals_prompts
    assert not set(map(repr, lab.records.finals_prompts)) & set(map(repr, lab.records.prompts))


@pytest.mark.parametrize("kind", ["rm", "sft"])
def test_held_out_records_of_the_finals_are_not_those_of_the_search(
    kind: str, tmp_path: Path
) -> None:
    lab = lab_of(kind, tmp_path)
    report = lab.run(steps=1)[0]
    found = rejudge(lab.bench, lab.trial(), report.checkpoint.path)
    assert len(found.values["eval/loss"]) == len(lab.records.finals_held_out) > 0
    assert told(found)["eval/loss"] != pytest.approx(report.metrics["eval/loss"], rel=1e-6)
    assert lab.bench.judge is not None or kind == "rm"


def test_a_policy_that_started_from_an_adapter_is_judged_against_it(tmp_path: Path) -> None:
    start = sft_adapter(tmp_path / "start", TUTOR, None)
    lab = lab_of("ppo", tmp_path, base=start)
    reports = lab.run()
    # One plain adapter holds both, up to rounding.
    as_reported(lab, reports[-1], lab.bench, 1e-3)
    assert reports[-1].metrics["eval/kl"] < 1  # to the plain base it is far more
    again = rejudge(lab.bench, lab.trial(), reports[-1].checkpoint.path, on="search")
    assert again == rejudge(lab.fresh_bench(), lab.trial(), reports[-1].checkpoint.path, "search")


def test_a_checkpoint_that_is_damaged_or_of_another_base_is_refused(tmp_path: Path) -> None:
    lab = lab_of("dpo", tmp_path)
    checkpoint = lab.run(steps=1)[0].checkpoint.path
    damaged = tmp_path / "damaged"
    shutil.copytree(checkpoint, damaged)
    weights = damaged / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    with pytest.raises(CheckpointError, match="not as it was written"):
        rejudge(lab.bench, lab.trial(), damaged)

    other = lab_of("dpo", tmp_path / "other", model={"lora_target_modules": ["q_proj"]})
    alien = other.run(steps=1)[0].checkpoint.path
    wide = alien / "adapter_config.json"
    text = wide.read_text().replace('"r": 4', '"r": 5')
    manifest = alien / "manifest.json"
    wide.write_text(text)
    _sign(manifest, wide)
    with pytest.raises(ModelError, match="does not fit its base"):
        rejudge(lab.bench, lab.trial(), alien)
    # The base is loaded again, so nothing of it is left.
    rejudge(lab.bench, lab.trial(), checkpoint)
    assert torch.is_grad_enabled()


def _sign(manifest: Path, file: Path) -> None:
    """Let a manifest describe a file as it is now."""
    import hashlib
    import json

    content = json.loads(manifest.read_text())
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    content["files"][file.name] = {"sha256": digest, "bytes": file.stat().st_size}
    manifest.write_text(json.dumps(content))
