"""The whole real stack on learning curves: Ray, searcher, scheduler, guard, journal, finals."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from easyds_tune.decisions.make import make_decider
from easyds_tune.journal.events import (
    DecideEvent,
    FinalistEvent,
    FinishEvent,
    ReportEvent,
    SuggestEvent,
    TrialState,
)
from easyds_tune.journal.reader import read_events
from easyds_tune.journal.replay import SweepRecord, TrialRecord
from easyds_tune.results.load import load_sweep_record
from easyds_tune.results.resolved import load_resolved
from easyds_tune.simulation.curves import load_landscape
from easyds_tune.simulation.discrete import simulate
from easyds_tune.spec.load import load_sweep
from easyds_tune.spec.sweep import SweepSpec
from easyds_tune.sweep.simulated import curves_for
from tests.integration.sweeps import command, spec_file

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]

SEED = 0
LANDSCAPE = Path(__file__).parents[1] / "benchmarks" / "decisions" / "landscapes" / "hacking.yaml"


def sweep_of(
    folder: Path, trials: int, slots: int, finals: dict[str, int] | None = None, seed: int = 0
) -> tuple[Path, SweepSpec]:
    """An `asha` sweep on curves whose best reward lies outside of the bound."""
    path = spec_file(
        folder,
        "asha",
        model={"lora_r": 8},
        training={"max_steps": 54, "eval_steps": 6},
        search_space={
            "training.learning_rate": {"low": 1e-4, "high": 1e-2, "log": True},
            "algorithm.beta": {"low": 0.03, "high": 0.5, "log": True},
        },
        search={"num_trials": trials},
        scheduler={"type": "asha"},
        bounds={"eval/kl": {"max": 0.2}},
        finals=finals or {"top": 3},
        seed=seed,
        resources={"gpus_per_trial": 0, "max_concurrent": slots},
    )
    with command(folder, "sweep", path.name, "--simulate", str(LANDSCAPE)) as (process, _):
        code = process.wait(timeout=150)
    assert code == 0, (folder / "output.txt").read_text(encoding="utf-8")
    return folder / "results" / "asha", load_sweep(str(path))


def shape(trial: TrialRecord) -> tuple[object, ...]:
    """All of a trial but its times."""
    decisions = [(d.step, d.by, d.action, d.reason) for d in trial.decisions]
    reports = [(report.step, report.metrics) for report in trial.reports]
    return trial.params, trial.source, trial.seed, trial.state, trial.attempt, decisions, reports


def test_ray_decides_as_the_same_events_do_without_it(tmp_path: Path) -> None:
    """With one slot there is one order of events, and so one sweep: live and in virtual time.

    Its first round of finals finds nothing inside, so another configuration is trained again.
    """
    finals = {"top": 1, "num_prompts": 16, "seeds": 1}
    folder, spec = sweep_of(tmp_path, trials=15, slots=1, finals=finals, seed=SEED)
    live = load_sweep_record(folder)

    def decide(record: SweepRecord):  # type: ignore[no-untyped-def]
        return make_decider(spec, record, slots=1)

    virtual = simulate(spec, curves_for(spec, load_landscape(LANDSCAPE)), decide, slots=1).record
    assert live.trials.keys() == virtual.trials.keys()
    for name, trial in live.trials.items():
        assert shape(trial) == shape(virtual.trials[name])
    assert live.finalists == virtual.finalists
    assert (live.chosen, live.finals_round) == (virtual.chosen, virtual.finals_round)
    assert live.finals_round > 1
    actions = {d.action for trial in live.trials.values() for d in trial.decisions}
    assert actions == {"stop", "pause", "promote"}

    # A driver that dies as the second round begins leaves this journal.
    journal = folder / "journal.jsonl"
    lines = journal.read_bytes().splitlines(keepends=True)
    rounds = [number for number, line in enumerate(lines) if b'"event":"finals"' in line]
    journal.write_bytes(b"".join(lines[: rounds[1] + 1]))
    assert go_on(tmp_path, "resume", "asha") == 0
    resumed = load_sweep_record(folder)
    assert resumed.finalists == live.finalists
    assert (resumed.chosen, resumed.finals_round) == (live.chosen, live.finals_round)
    assert resumed.final == live.final


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("asha")
    # As a driver leaves it that dies while it writes the first event.
    dead = folder / "results" / "asha"
    dead.mkdir(parents=True)
    (dead / "lock").write_text('{"pid": 1, "host": "here", "started": 0}', encoding="utf-8")
    (dead / "journal.jsonl").write_bytes(b'{"crc":"bc67')
    return sweep_of(folder, trials=24, slots=2)[0]


def test_the_folder_of_a_sweep_that_never_began_is_taken_over(sweep: Path) -> None:
    text = (sweep / "journal.jsonl").read_bytes()
    assert text.count(b'"event":"sweep"') == 1
    assert load_sweep_record(sweep).torn_bytes == 0
    assert (sweep / "lock").stat().st_size == 0


def test_every_trial_ends_and_nothing_infeasible_is_first(sweep: Path) -> None:
    record = load_sweep_record(sweep)
    assert all(trial.state.is_final for trial in record.trials.values())
    assert record.final is not None
    assert record.final.winner is not None
    winner = record.trials[record.final.winner]
    (report,) = [report for report in winner.reports if report.step == record.final.step]
    assert report.metrics["eval/kl"] <= 0.2


def test_no_more_than_two_run_at_a_time(sweep: Path) -> None:
    running: set[str] = set()
    most = 0
    for entry in read_events(sweep / "journal.jsonl"):
        match entry.event:
            case SuggestEvent(trial=trial):
                running.add(trial)
            case DecideEvent(trial=trial, action="promote"):
                running.add(trial)
            case FinishEvent(trial=trial):
                running.discard(trial)
        most = max(most, len(running))
    assert most == 2


def test_a_paused_trial_goes_on_at_the_step_it_stopped_at(sweep: Path) -> None:
    record = load_sweep_record(sweep)
    promoted = [t for t in record.trials.values() if t.attempt > 1]
    assert promoted
    for trial in promoted:
        assert [report.step for report in trial.reports] == list(range(6, trial.step + 1, 6))


def test_the_guard_stopped_a_trial_and_said_on_which_number(sweep: Path) -> None:
    record = load_sweep_record(sweep)
    bounded = [t for t in record.trials.values() if t.state is TrialState.BOUNDED]
    assert bounded
    for trial in bounded:
        decision = trial.decisions[-1]
        assert (decision.by, decision.action) == ("guard", "stop")
        assert decision.reason.endswith("must be at most 0.2")
        assert trial.reports[-1].metrics["eval/kl"] > 0.2


def test_finalists_are_judged_after_everything_else(sweep: Path) -> None:
    events = [entry.event for entry in read_events(sweep / "journal.jsonl")]
    kinds = [type(event) for event in events]
    last_report = len(kinds) - 1 - kinds[::-1].index(ReportEvent)
    first_finalist = kinds.index(FinalistEvent)
    assert last_report < first_finalist
    finalists = [event for event in events if isinstance(event, FinalistEvent)]
    lengths: Callable[[FinalistEvent], int] = lambda event: len(event.values["eval/reward"])  # noqa: E731
    assert {lengths(event) for event in finalists} == {256}


def test_what_a_sweep_was_extended_by_outlives_its_file(tmp_path: Path) -> None:
    """As where a queue starts the same command again and again."""
    folder, spec = sweep_of(tmp_path, trials=2, slots=1)
    resolved = load_resolved(folder)
    assert (resolved.spec, resolved.given) == (spec, spec)
    assert go_on(tmp_path, "resume", "asha", "--extend", "trials=4") == 0
    said = (tmp_path / "output.txt").read_text(encoding="utf-8")
    assert "search.num_trials: 2 became 4" in said
    assert go_on(tmp_path, "sweep", "asha.yaml", "--resume") == 0
    assert load_resolved(folder).spec.search.num_trials == 4
    assert load_resolved(folder).given == spec
    record = load_sweep_record(folder)
    assert (len(record.trials), record.num_trials) == (4, 4)


def go_on(folder: Path, *arguments: str) -> int:
    with command(folder, *arguments) as (process, _):
        code: int = process.wait(timeout=150)
    return code
