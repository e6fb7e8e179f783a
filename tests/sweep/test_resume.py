"""What may differ when a sweep goes on, and what is refused; whole sweeps are in integration."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from easyds_tune.cli.resume import extension
from easyds_tune.errors import SpecError
from easyds_tune.journal.bounds import Bound
from easyds_tune.journal.events import (
    CheckpointEvent,
    Entry,
    Event,
    FinalEvent,
    FinalsEvent,
    FinishEvent,
    LostEvent,
    Objective,
    ReportEvent,
    StartEvent,
    StopEvent,
    SuggestEvent,
    SweepEvent,
    TrialError,
    TrialState,
)
from easyds_tune.journal.replay import SweepRecord
from easyds_tune.journal.writer import JournalWriter
from easyds_tune.results.resolved import Resolved
from easyds_tune.spec.load import load_sweep
from easyds_tune.spec.sweep import SweepSpec
from easyds_tune.sweep.resume import (
    differences,
    extended,
    is_over,
    resume_sweep,
    with_extensions,
)
from tests.integration.sweeps import spec_file
from tests.results.judged import JudgedSweep


@pytest.fixture
def spec(tmp_path: Path) -> SweepSpec:
    return load_sweep(str(spec_file(tmp_path, "small")))


def begun(folder: Path, spec: SweepSpec, **changes: Any) -> Path:
    """The folder of a sweep as far as its spec goes."""
    sweep = folder / "results" / spec.name
    sweep.mkdir(parents=True)
    resolved = {
        "spec": spec.model_dump(mode="json"),
        "working_folder": str(folder),
        "data_hashes": {},
        "versions": {},
    }
    (sweep / "spec.resolved.json").write_text(json.dumps(resolved | changes), encoding="utf-8")
    first = SweepEvent(spec.name, "dpo", Objective("eval/reward"), 4, 3, 0.0)
    JournalWriter.create(sweep / "journal.jsonl", first)[0].close()
    return sweep


def changed(spec: SweepSpec, **sections: dict[str, Any]) -> SweepSpec:
    raw = spec.model_dump(mode="json")
    for section, values in sections.items():
        raw[section] = {**(raw[section] or {}), **values}
    return SweepSpec.model_validate(raw)


def test_differences_are_told_by_field(spec: SweepSpec) -> None:
    other = changed(spec, search={"num_trials": 9}, training={"learning_rate": 0.5})
    assert differences(spec, other) == {
        "search.num_trials": (4, 9),
        "training.learning_rate": (1e-3, 0.5),
    }
    assert differences(spec, spec) == {}


def test_another_learning_rate_is_refused_and_the_difference_shown(
    spec: SweepSpec, tmp_path: Path
) -> None:
    sweep = begun(tmp_path, spec)
    before = sorted(path.name for path in sweep.iterdir())
    with pytest.raises(SpecError) as caught:
        resume_sweep(sweep, changed(spec, training={"learning_rate": 0.5}))
    (problem,) = caught.value.problems
    assert problem.startswith("training.learning_rate: was 0.001 when small began and is 0.5; only")
    assert "search.num_trials" in problem
    assert sorted(path.name for path in sweep.iterdir()) == before


def test_other_data_is_refused(spec: SweepSpec, tmp_path: Path) -> None:
    sweep = begun(tmp_path, spec, data_hashes={"train": "0" * 64})
    with pytest.raises(SpecError, match="train changed since the sweep began"):
        resume_sweep(sweep)


def test_a_sweep_without_its_resolved_spec_is_refused(spec: SweepSpec, tmp_path: Path) -> None:
    sweep = begun(tmp_path, spec)
    (sweep / "spec.resolved.json").write_text("{", encoding="utf-8")
    with pytest.raises(SpecError, match=r"spec\.resolved\.json: cannot be read"):
        resume_sweep(sweep)


def test_extensions_are_fields_by_short_names() -> None:
    assert extension(["trials=64", "hours=1.5"]) == {"search.num_trials": 64, "stop.hours": 1.5}
    with pytest.raises(SpecError) as caught:
        extension(["trials", "epochs=3"])
    assert len(caught.value.problems) == 2


def test_an_extension_is_checked_as_the_spec_is(spec: SweepSpec, tmp_path: Path) -> None:
    sweep = begun(tmp_path, spec)
    with pytest.raises(SpecError, match="num_trials"):
        resume_sweep(sweep, extend={"search.num_trials": yaml.safe_load("many")})


def test_an_extension_is_more_and_never_less(spec: SweepSpec) -> None:
    assert extended(spec, {"search.num_trials": 9}).search.num_trials == 9
    assert extended(spec, {"stop.hours": 2.0}).stop.hours == 2.0
    assert extended(spec, {"resources.max_concurrent": 1}).resources.max_concurrent == 1
    with pytest.raises(SpecError) as caught:
        extended(spec, {"search.num_trials": 3})
    assert caught.value.problems == [
        "--extend: search.num_trials is 4 already, got 3; name more"
    ]  # fmt: skip


def test_a_spec_that_was_not_changed_does_not_take_back_an_extension(
    spec: SweepSpec, tmp_path: Path
) -> None:
    more = changed(spec, search={"num_trials": 300}, stop={"hours": 5.0})
    resolved = Resolved(more, spec, {}, tmp_path)
    assert with_extensions(spec, resolved) == more
    fewer = changed(spec, search={"num_trials": 20})
    assert with_extensions(fewer, resolved) == changed(fewer, stop={"hours": 5.0})
    other = changed(spec, training={"learning_rate": 0.5})
    assert with_extensions(other, resolved).training.learning_rate == 0.5


def ended(spec: SweepSpec, *events: Event, winner: str | None = None) -> SweepRecord:
    """A sweep that has come to its end, by what happened."""
    first = SweepEvent(spec.name, "dpo", Objective("eval/reward"), spec.search.num_trials, 3, 0.0)
    record = SweepRecord.begin(Entry(0, 0.0, first))
    for number, event in enumerate(
        (*events, FinalEvent(winner, 1 if winner else None, 0 if winner else 3)), start=1
    ):
        record.apply(Entry(number, float(number), event))
    return record


def test_a_sweep_that_a_limit_ended_is_over_until_the_limit_is_raised(spec: SweepSpec) -> None:
    limited = changed(spec, stop={"tokens": 50})
    metrics = {"eval/reward": 0.5, "train/num_tokens": 60.0}
    record = ended(
        limited,
        SuggestEvent("000", 0, {}, "default"),
        StartEvent("000", 1),
        ReportEvent("000", 1, metrics),
        FinishEvent("000", TrialState.FAILED, 1, 1.0),
        StopEvent("60 tokens were trained on, the limit is 50"),
    )
    assert is_over(record, limited)
    assert not is_over(record, changed(spec, stop={"tokens": 70}))
    assert not is_over(record, changed(spec, search={"num_trials": 9}, stop={"tokens": 50}))


def test_time_that_passes_after_the_end_is_not_used(spec: SweepSpec) -> None:
    record = ended(spec, StopEvent("the sweep ran for 1 hours"))
    assert is_over(record, changed(spec, stop={"hours": 1 / 3600}))
    assert not is_over(record, changed(spec, stop={"hours": 1.0}))


def test_a_sweep_that_a_bug_ended_goes_on_once_somebody_says_so(spec: SweepSpec) -> None:
    error = TrialError("KeyError", "'x'")
    failed = [
        event
        for number in range(spec.stop.identical_failures or 3)
        for event in (
            SuggestEvent(f"{number:03d}", number, {}, "sampler"),
            FinishEvent(f"{number:03d}", TrialState.FAILED, 0, 1.0, error),
        )
    ]
    record = ended(spec, *failed, StopEvent("3 trials in a row failed alike: KeyError: 'x'"))
    assert not is_over(record, spec)


def test_an_end_that_its_record_does_not_tell_any_more_is_none(spec: SweepSpec) -> None:
    """As after a repair: the winner's lines are lost, or a trial's end."""
    begun = (SuggestEvent("000", 0, {}, "default"), StartEvent("000", 1))
    checkpoint = CheckpointEvent("000", 1, "trials/000/checkpoints/step-000001", 10)
    whole = (*begun, ReportEvent("000", 1, {"eval/reward": 0.5}), checkpoint)
    end = FinishEvent("000", TrialState.COMPLETED, 1, 1.0)
    assert is_over(ended(spec, *whole, end, winner="000"), spec)
    assert not is_over(ended(spec, *whole, winner="000"), spec)
    assert not is_over(ended(spec, *begun, checkpoint, end, winner="000"), spec)
    assert not is_over(ended(spec, *whole, end), spec)


def test_a_sweep_whose_only_fit_finalist_is_lost_goes_on_with_another_round(
    spec: SweepSpec,
) -> None:
    sweep = JudgedSweep(Bound("eval/kl", max=0.2))
    for reward, kl in ((0.1, 0.05), (0.9, 0.19), (0.8, 0.15), (0.7, 0.1)):
        sweep.trial({10: {"eval/reward": reward, "eval/kl": kl}})
    finals = {"000": 0.3, "001": 0.25, "002": 0.1}
    sweep.add(FinalsEvent([(trial, 10) for trial in finals]))
    for trial, kl in finals.items():
        values = [0.5 + 0.01 * (n % 7) for n in range(32)]
        sweep.judged(trial, 10, {"eval/reward": values, "eval/kl": [kl] * 32})
    sweep.add(FinalEvent("002", 10, 0))
    assert is_over(sweep.record, spec)
    sweep.add(LostEvent("002", 10, "missing"), FinalEvent(None, None, 3))
    assert not is_over(sweep.record, spec)
    assert is_over(sweep.record, spec.model_copy(update={"finals": None}))
    sweep.add(LostEvent("003", 10, "missing"))  # nobody is left to nominate
    assert is_over(sweep.record, spec)
