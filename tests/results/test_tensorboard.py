from __future__ import annotations

import json
import math
import re
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams import metadata

from easyds_tune.journal.events import (
    Entry,
    FinishEvent,
    ReportEvent,
    StartEvent,
    TrialState,
)
from easyds_tune.journal.replay import SweepRecord, replay
from easyds_tune.results.tensorboard import TensorBoardWriter, rebuild


def write_live(entries: list[Entry], folder: Path) -> SweepRecord:
    """What the driver does: every event into the record, then into the event files."""
    record = replay(entries[:1])
    writer = TensorBoardWriter(folder, record)
    for entry in entries[1:]:
        record.apply(entry)
        match entry.event:
            case StartEvent(trial=name):
                writer.start(record.trials[name])
            case ReportEvent(trial=name):
                writer.report(record.trials[name])
            case FinishEvent(trial=name):
                writer.finish(record.trials[name])
    writer.close()
    return record


def read_run(folder: Path) -> EventAccumulator:
    run = EventAccumulator(str(folder), size_guidance={"scalars": 0})
    run.Reload()
    return run


def scalars(folder: Path, tag: str) -> list[tuple[int, float]]:
    return [(event.step, round(event.value, 6)) for event in read_run(folder).Scalars(tag)]


def session_tags(folder: Path) -> set[str]:
    return set(read_run(folder).summary_metadata) & {
        metadata.SESSION_START_INFO_TAG,
        metadata.SESSION_END_INFO_TAG,
    }


def test_every_metric_is_a_scalar_by_step_at_its_time(demo_sweep: Any, tmp_path: Path) -> None:
    write_live(demo_sweep.entries(), tmp_path)
    assert scalars(tmp_path / "001", "eval/reward") == [(20, 0.9), (40, 0.8)]
    assert scalars(tmp_path / "001", "train/loss") == [(20, 0.91), (40, 0.92)]
    first, second = read_run(tmp_path / "000").Scalars("eval/reward")
    assert (first.wall_time, second.wall_time) == (1003.0, 1005.0)
    assert math.isnan(scalars(tmp_path / "003", "eval/reward")[1][1])


def test_the_best_step_has_tags_of_its_own_and_comes_last(demo_sweep: Any, tmp_path: Path) -> None:
    write_live(demo_sweep.entries(), tmp_path)
    assert scalars(tmp_path / "000", "best/eval/reward") == [(20, 0.4), (40, 0.5)]
    assert scalars(tmp_path / "001", "best/eval/reward") == [(20, 0.9)]
    assert scalars(tmp_path / "001", "best/step") == [(20, 20)]


def test_a_metric_that_the_new_best_step_lacks_is_not_left_from_the_old_one(
    sweep: Callable[..., Any], tmp_path: Path
) -> None:
    builder = sweep().trial({1: {"eval/reward": 1.0, "eval/kl": 0.1}, 2: {"eval/reward": 2.0}})
    write_live(builder.entries(), tmp_path)
    (_, old), (_, new) = scalars(tmp_path / "000", "best/eval/kl")
    assert old == pytest.approx(0.1)
    assert math.isnan(new)


def test_the_session_opens_at_the_start_and_closes_only_at_a_final_state(
    demo_sweep: Any, tmp_path: Path
) -> None:
    entries = demo_sweep.entries()
    write_live(entries[:3], tmp_path / "started")
    assert session_tags(tmp_path / "started" / "000") == {metadata.SESSION_START_INFO_TAG}

    write_live(entries, tmp_path / "whole")
    both = {metadata.SESSION_START_INFO_TAG, metadata.SESSION_END_INFO_TAG}
    assert session_tags(tmp_path / "whole" / "000") == both
    assert session_tags(tmp_path / "whole" / "005") == {metadata.SESSION_START_INFO_TAG}


def test_an_interrupted_session_stays_open_until_the_trial_ends(
    sweep: Callable[..., Any], tmp_path: Path
) -> None:
    builder = sweep().trial({10: {"eval/reward": 1.0}}, TrialState.INTERRUPTED)
    write_live(builder.entries(), tmp_path / "first")
    assert session_tags(tmp_path / "first" / "000") == {metadata.SESSION_START_INFO_TAG}

    builder.events += [
        StartEvent("000", 2),
        ReportEvent("000", 20, {"eval/reward": 0.5}),
        FinishEvent("000", TrialState.COMPLETED, 20, 9.0),
    ]
    write_live(builder.entries(), tmp_path / "second")
    run = read_run(tmp_path / "second" / "000")
    assert [event.step for event in run.Scalars("eval/reward")] == [10, 20]
    assert [event.step for event in run.Scalars("best/eval/reward")] == [10]
    assert metadata.SESSION_END_INFO_TAG in run.summary_metadata


def test_a_trial_that_failed_before_it_started_is_shown_as_failed(
    sweep: Callable[..., Any], tmp_path: Path
) -> None:
    builder = sweep().trial({}, TrialState.FAILED)
    builder.events = [event for event in builder.events if not isinstance(event, StartEvent)]
    record = write_live(builder.entries(), tmp_path / "live")
    rebuild(record, tmp_path / "again")
    both = {metadata.SESSION_START_INFO_TAG, metadata.SESSION_END_INFO_TAG}
    assert session_tags(tmp_path / "live" / "000") == both
    assert session_tags(tmp_path / "again" / "000") == both


def test_a_retry_replaces_the_steps_it_went_back_over(
    sweep: Callable[..., Any], tmp_path: Path
) -> None:
    values = {10: {"eval/reward": 1.0}, 20: {"eval/reward": 5.0}, 30: {"eval/reward": 6.0}}
    builder = sweep().trial(values, TrialState.INTERRUPTED)
    builder.events += [
        StartEvent("000", 2),
        ReportEvent("000", 20, {"eval/reward": 2.0}),
        FinishEvent("000", TrialState.COMPLETED, 20, 9.0),
    ]
    write_live(builder.entries(), tmp_path)
    assert scalars(tmp_path / "000", "eval/reward") == [(10, 1.0), (20, 2.0)]
    assert scalars(tmp_path / "000", "best/eval/reward") == [(10, 1.0), (20, 2.0)]


def test_a_rebuilt_folder_equals_the_live_one_byte_for_byte(
    demo_sweep: Any, tmp_path: Path
) -> None:
    live, again = tmp_path / "live", tmp_path / "again"
    record = write_live(demo_sweep.entries(), live)
    (again / "leftover").mkdir(parents=True)
    rebuild(record, again)

    def files(folder: Path) -> dict[str, bytes]:
        return {
            str(path.relative_to(folder)): path.read_bytes()
            for path in folder.rglob("*")
            if path.is_file()
        }

    assert files(again) == files(live)
    assert sorted(folder.name for folder in tmp_path.iterdir()) == ["again", "live"]
    assert not (again / "leftover").exists()


@contextmanager
def server(folder: Path) -> Iterator[str]:
    """TensorBoard itself on a free port of the loopback; yields its address."""
    command = [sys.executable, "-m", "tensorboard.main", "--logdir", str(folder)]
    command += ["--host", "127.0.0.1", "--port", "0", "--reload_interval", "1"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    try:
        for line in process.stderr:
            address = re.search(r"http://127\.0\.0\.1:\d+", line)
            if address:
                yield address.group()
                return
        raise AssertionError("TensorBoard ended before it served")
    finally:
        process.terminate()
        process.wait()


def ask(address: str, route: str, body: dict[str, Any]) -> Any:
    request = urllib.request.Request(
        f"{address}/data/plugin/hparams/{route}",
        json.dumps(body).encode(),
        {"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=10) as reply:
        return json.load(reply)


def test_tensorboard_serves_each_trial_with_its_params_status_and_best_values(
    demo_sweep: Any, tmp_path: Path
) -> None:
    write_live(demo_sweep.entries(), tmp_path)
    statuses = ["STATUS_SUCCESS", "STATUS_FAILURE", "STATUS_RUNNING", "STATUS_UNKNOWN"]
    body = {"allowedStatuses": statuses, "startIndex": 0, "sliceSize": 50}
    with server(tmp_path) as address:
        deadline = time.monotonic() + 30
        groups: list[Any] = []
        # It loads run after run: six sessions, of which only 004 has no metric.
        while sum("metricValues" in group for group in groups) < 5 and time.monotonic() < deadline:
            time.sleep(0.2)
            groups = ask(address, "session_groups", body).get("sessionGroups", [])
        experiment = ask(address, "experiment", {})

    by_trial = {group["name"]: group for group in groups}
    assert {name: group["sessions"][0]["status"] for name, group in by_trial.items()} == {
        "000": "STATUS_SUCCESS",
        "001": "STATUS_SUCCESS",
        "002": "STATUS_SUCCESS",
        "003": "STATUS_FAILURE",
        "004": "STATUS_FAILURE",
        "005": "STATUS_UNKNOWN",  # how TensorBoard calls a session that is open
    }
    assert by_trial["001"]["hparams"] == {
        "training.learning_rate": 5e-5,
        "algorithm.beta": 0.1,
        "model.lora_r": "8",  # a choice with null in it is text
        "model.lora_target_modules": "q_proj+v_proj",
    }
    shown = {value["name"]["tag"]: value["value"] for value in by_trial["001"]["metricValues"]}
    assert shown["best/eval/reward"] == pytest.approx(0.9)  # at step 20; the last value is 0.8
    assert shown["best/step"] == 20

    domains = {info["name"]: info for info in experiment["hparamInfos"]}
    assert domains["training.learning_rate"]["domainInterval"] == {
        "minValue": 1e-6,
        "maxValue": 1e-3,
    }
    assert domains["model.lora_r"]["domainDiscrete"] == ["4", "8", "null"]
    assert [info["name"]["tag"] for info in experiment["metricInfos"]] == [
        "best/eval/reward",
        "best/eval/kl",
        "best/step",
    ]
