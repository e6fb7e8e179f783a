"""Rows 4, 5, 6, 21 and 22: files are cut, garbled, deleted or replaced."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import random
from pathlib import Path

import pyarrow.parquet as parquet

from tests.benchmarks.faults import our_side as our
from tests.benchmarks.faults import ray_side as ray
from tests.benchmarks.faults.place import Outcome, Place


def killed_simulation(place: Place, name: str, seed: int) -> None:
    """A sweep on learning curves whose driver was killed in the middle."""
    first = our.simulate(place, our.write_simulated_spec(place, name, seed=seed))
    first.wait_for(lambda: our.count(place, "report", name) >= 25, our.SECONDS, "reports")
    first.kill()


def damaged_record(place: Place, seed: int) -> Outcome:
    """Row 4: the journal's last line is cut or garbled; then one in its middle."""
    reference = our.simulated_reference(place, seed=seed)
    killed_simulation(place, our.NAME, seed)
    journal = our.journal_of(place)
    whole = journal.read_bytes()
    problems, seconds = [], None
    last = whole.rstrip(b"\n").rfind(b"\n") + 1
    middle = whole.find(b"\n", len(whole) // 2) + 20
    tails = {"cut": whole[: (last + len(whole)) // 2], "garbled": _garble(whole, last + 30)}
    for what, damaged in tails.items():
        journal.write_bytes(damaged)
        again = our.resume(place)
        our.finish(again)
        seconds = our.seconds_to_report(place, again.started)
        difference = our.difference(our.record(place), reference)
        problems.append(difference and f"last line {what}: {difference}")
        said = "torn" in again.text or "torn" in " ".join(our.record(place).notes)
        problems.append("" if said else f"last line {what}: nothing was said of it")
    journal.write_bytes(_garble(whole, middle))
    line = whole[:middle].count(b"\n") + 1
    problems += _repaired(place, line)
    return our.verdict(
        problems,
        "last line cut, last line garbled: repaired and said, decisions as without; middle line "
        "garbled: refused with its number, and repaired but for that line",
        seconds,
    )


def _garble(data: bytes, position: int) -> bytes:
    return data[:position] + bytes([data[position] ^ 0x15]) + data[position + 1 :]


def _repaired(place: Place, line: int) -> list[str]:
    """Damage in the middle is refused with its line; repair loses that line alone, and says so."""
    journal, problems = our.journal_of(place), []
    damaged = journal.read_bytes().split(b"\n")[:-1]
    refused = our.resume(place)
    code = refused.wait(our.SECONDS)
    if code == 0 or f"jsonl:{line}:" not in refused.text or "repair" not in refused.text:
        problems.append(f"middle: resume gave {code} and {refused.text[-200:]!r}")
    mended = our.easyds(place, "repair", our.NAME)
    our.finish(mended)
    if f"1 of its lines are lost ({line})" not in mended.text:
        problems.append(f"repair said {mended.text[-200:]!r}")
    whole = [_event(text) for number, text in enumerate(damaged, start=1) if number != line]
    now = [_event(text) for text in journal.read_bytes().split(b"\n")[:-1]]
    problems.append("" if all(event in now for event in whole) else "repair lost whole lines")
    our.finish(our.resume(place))
    found = our.record(place)
    if len(found.trials) != found.num_trials or not all(
        trial.state.is_final for trial in found.trials.values()
    ):
        problems.append(f"after repair: {[trial.state for trial in found.trials.values()]}")
    return problems


def _event(line: bytes) -> dict[str, object]:
    """An event of the journal without its number and checksum, which a repair may change."""
    parsed: dict[str, object] = json.loads(line)
    return {key: value for key, value in parsed.items() if key not in ("crc", "seq")}


def damaged_record_by_ray(place: Place, seed: int) -> Outcome:
    """Row 4 with Ray Tune: its newest experiment state, then its searcher's state, cut."""
    return _damaged_ray(place, seed, ["experiment_state-*.json", "searcher-state-*.pkl"], cut=True)


def _damaged_ray(place: Place, seed: int, patterns: list[str], *, cut: bool) -> Outcome:
    """Kill Ray's driver, damage the newest file of each pattern in turn, restore."""
    first = ray.start_ray(place, seed=seed)
    first.wait_for(lambda: len(ray.log(place, "report")) >= 20, ray.SECONDS, "reports")
    first.kill()
    kept = {path: path.read_bytes() for path in ray.folder_of(place).glob("*") if path.is_file()}
    seen, good = [], True
    for pattern in patterns:
        for path, data in kept.items():
            path.write_bytes(data)
        damaged = ray.newest(place, pattern)
        if cut:
            os.truncate(damaged, damaged.stat().st_size // 2)
        else:
            damaged.unlink()
        again = ray.start_ray(place, seed=seed, restore=True)
        ended = ray.end(again)
        done = len(ray.log(place, "outcome", since=again.started))
        good = good and ended == "exit 0" and done == 8
        what = f"{pattern.split('-')[0].removesuffix('.pkl')} {'cut' if cut else 'gone'}"
        seen.append(f"{what}: {ended}, {done} of 8 results {ray.error_of(again)}".strip())
    return Outcome(good, "; ".join(seen))


TABLES = ("trials.parquet", "metrics.parquet")


def truncated_table(place: Place, seed: int) -> Outcome:
    """Row 5: the tables of an interrupted sweep are cut in half."""
    killed_simulation(place, our.NAME, seed)
    folder = our.folder_of(place)
    for table in TABLES:  # what an earlier driver may have left half-written
        (folder / table).write_bytes(b"PAR1 and no more")
    again = our.resume(place)
    our.finish(again)
    problems = _wrong_tables(place)
    for table in TABLES:
        os.truncate(folder / table, (folder / table).stat().st_size // 2)
    (folder / "best.json").write_text('{"winner": ', encoding="utf-8")
    problems += _readable_without_tables(place)
    our.finish(our.easyds(place, "repair", our.NAME))
    problems += _wrong_tables(place)
    return our.verdict(
        problems,
        "rebuilt: by resume before the end, by repair after it",
        our.seconds_to_report(place, again.started),
    )


def _wrong_tables(place: Place) -> list[str]:
    found, folder = our.record(place), our.folder_of(place)
    rows = (len(found.trials), sum(len(trial.reports) for trial in found.trials.values()))
    problems = []
    for table, wanted in zip(TABLES, rows, strict=True):
        try:
            number = parquet.read_table(folder / table).num_rows
        except (OSError, ValueError) as error:
            problems.append(f"{table}: {error}")
            continue
        if number != wanted:
            problems.append(f"{table} has {number} rows instead of {wanted}")
    try:
        json.loads((folder / "best.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        problems.append(f"best.json: {error}")
    return problems


def _readable_without_tables(place: Place) -> list[str]:
    problems = []
    for command in ("status", "best"):
        running = our.easyds(place, command, our.NAME)
        if (code := running.wait(our.SECONDS)) != 0:
            problems.append(f"{command} gave {code}: {running.text[-200:]}")
    return problems


def truncated_table_by_ray(place: Place, seed: int) -> Outcome:
    """Row 5 with Ray Tune: the searcher's generator state, which it derives, is cut."""
    return _damaged_ray(place, seed, ["search_gen_state-*.json"], cut=True)


def derived_files_deleted(place: Place, seed: int) -> Outcome:
    """Row 6: everything but the spec, the journal and the checkpoints is deleted."""
    reference = our.simulated_reference(place, seed=seed)
    killed_simulation(place, our.NAME, seed)
    _delete_derived(our.folder_of(place))
    again = our.resume(place)
    our.finish(again)
    problems = [our.difference(our.record(place), reference), *_wrong_derived(place)]
    seconds = our.seconds_to_report(place, again.started)
    _delete_derived(our.folder_of(place))
    our.finish(our.easyds(place, "repair", our.NAME))
    problems += _wrong_derived(place)
    good = "rebuilt from the journal: by resume before the end, by repair after it"
    return our.verdict(problems, good, seconds)


def _delete_derived(folder: Path) -> None:
    kept = ("spec.yaml", "spec.resolved.json", "journal.jsonl")
    for path in sorted(folder.rglob("*"), reverse=True):
        inside = path.relative_to(folder).parts
        if inside[0] not in (*kept, "trials"):
            path.rmdir() if path.is_dir() else path.unlink()


def _wrong_derived(place: Place) -> list[str]:
    boards = {path.parent.name for path in our.folder_of(place).glob("tensorboard/*/events.out.*")}
    missing = our.record(place).trials.keys() - boards
    problems = [f"no event file of {sorted(missing)}"] if missing else []
    return problems + _wrong_tables(place)


def derived_files_deleted_by_ray(place: Place, seed: int) -> Outcome:
    """Row 6 with Ray Tune: each of the files beside the experiment's state, deleted or empty."""
    patterns = ["tuner.pkl", "searcher-state-*.pkl", "search_gen_state-*.json"]
    return _damaged_ray(place, seed, patterns, cut=False)


class Malice:
    """Unpickled, it leaves a file: whoever finds it knows that code has run."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> object:
        return (os.system, (f"touch {self.marker}",))


def malicious_pickle(place: Place, seed: int) -> Outcome:
    """Row 21: pickles that run code lie where Ray, Optuna or a checkpoint would have theirs."""
    first = our.sweep(place, our.write_spec(place, search__num_trials=2, scheduler__type="none"))
    first.wait_for(lambda: our.count(place, "report") >= 2, our.SECONDS, "reports")
    first.kill()
    folder, marker = our.folder_of(place), place.folder / "code-has-run"
    malice = pickle.dumps(Malice(marker))
    for name in ("tuner.pkl", "trainable.pkl", "searcher-state-0.pkl", "study.pkl", "lock.pkl"):
        (folder / name).write_bytes(malice)
        (folder / "trials" / "000" / name).write_bytes(malice)
    newest = max(folder.glob("trials/000/checkpoints/step-*"))
    replaced = [*newest.rglob("*.pt"), *newest.rglob("*.pth")]
    for path in replaced:
        path.write_bytes(malice)
    _forge_manifest(newest)
    again = our.resume(place)
    our.finish(again)
    for command in (("status", our.NAME), ("best", our.NAME)):
        our.finish(our.easyds(place, *command))
    problems = [
        "the pickle's code has run" if marker.exists() else "",
        "" if our.all_completed(our.record(place), 2) else "not all trials were completed",
    ]
    return our.verdict(
        problems,
        f"ten planted pickles and {len(replaced)} in the newest checkpoint, its manifest "
        "forged to match: none was read, the trial went on from an older one",
        our.seconds_to_report(place, again.started),
    )


def _forge_manifest(checkpoint: Path) -> None:
    """Make a checkpoint's manifest agree with what its files are now."""
    path = checkpoint / "manifest.json"
    manifest = json.loads(path.read_text(encoding="utf-8"))
    for name, entry in manifest["files"].items():
        data = (checkpoint / name).read_bytes()
        entry |= {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}
    path.write_text(json.dumps(manifest, indent=1), encoding="utf-8")


def malicious_pickle_by_ray(place: Place, seed: int) -> Outcome:
    """Row 21 with Ray Tune: `tuner.pkl` is replaced."""
    marker = place.folder / "code-has-run"
    first = ray.start_ray(place, seed=seed)
    first.wait_for(lambda: len(ray.log(place, "report")) >= 5, ray.SECONDS, "reports")
    first.kill()
    (ray.folder_of(place) / "tuner.pkl").write_bytes(pickle.dumps(Malice(marker)))
    again = ray.start_ray(place, seed=seed, restore=True)
    ended = ray.end(again)
    ran = marker.exists()
    return Outcome(not ran, f"{'code has run' if ran else 'no code ran'}; {ended}")


def torn_then_appended(place: Place, seed: int) -> Outcome:
    """Row 22: the last line is torn; a driver appends. And: somebody has appended to it before."""
    reference = our.simulated_reference(place, seed=seed)
    killed_simulation(place, our.NAME, seed)
    journal = our.journal_of(place)
    whole = journal.read_bytes()
    last = whole.rstrip(b"\n").rfind(b"\n") + 1
    cut = random.Random(seed).randrange(last + 1, len(whole) - 1)
    journal.write_bytes(whole[:cut])
    again = our.resume(place)
    our.finish(again)
    seconds = our.seconds_to_report(place, again.started)
    problems = [our.difference(our.record(place), reference)]
    # As appends without a look at the file's end leave it: two lines in one, and a whole one.
    starts = [0, *(at + 1 for at, byte in enumerate(whole[:-1]) if byte == 10)]
    third, second = starts[-3:-1]
    journal.write_bytes(whole[: (third + second) // 2] + whole[second:])
    problems += _repaired(place, len(starts) - 2)
    saved = [_event(text) for text in journal.read_bytes().split(b"\n")[:-1]]
    if _event(whole[second : starts[-1]].rstrip(b"\n")) not in saved:
        problems.append("the whole line behind the torn one is lost")
    return our.verdict(
        problems,
        "torn line cut before the append, decisions as without; where something else had appended "
        "to a torn line: refused, and repaired but for the torn line",
        seconds,
    )


def torn_then_appended_by_ray(place: Place, seed: int) -> Outcome:
    """Row 22 with Ray Tune and Optuna's own journal file."""
    first = ray.start_ray(place, seed=seed, storage="journal")
    first.wait_for(lambda: len(ray.log(place, "report")) >= 20, ray.SECONDS, "reports")
    first.kill()
    journal = place.folder / "log.jsonl.optuna"
    os.truncate(journal, journal.stat().st_size - 5)
    ends, errors = [], []
    for _ in range(2):
        again = ray.start_ray(place, seed=seed, storage="journal", restore=True)
        ends.append(ray.end(again))
        errors.append(ray.error_of(again))
    done = len(ray.log(place, "outcome", since=again.started))
    seen = f"restored twice: {' then '.join(ends)}, {done} results; {' | '.join(errors)}"
    return Outcome(ends == ["exit 0"] * 2 and done == 8, seen)
