"""Start the plain Ray Tune sweep of `ray_alone.py` in a place, and read what it said."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any

from tests.benchmarks.faults.place import Place, Running, Unseen

PROGRAM = Path(__file__).with_name("ray_alone.py")
NAME = "alone"
SECONDS = 240
"""That a command may take on a busy machine."""

PATIENCE = 120
"""After which a restored sweep of a few seconds is taken to hang."""

Line = dict[str, Any]


def start_ray(place: Place, env: dict[str, str] | None = None, **settings: Any) -> Running:
    """Start it, or with restore=True go on from what it left; settings as in `ray_alone.Settings`.

    The name's folder stays the same, and so does the log, unless settings say otherwise.
    """
    given = {"folder": str(place.folder / "ray"), "name": NAME} | settings
    log = place.folder / "log.jsonl"
    return place.start(str(PROGRAM), json.dumps(given), FAULTS_LOG=str(log), **(env or {}))


def folder_of(place: Place) -> Path:
    """Where Ray keeps the experiment."""
    return place.folder / "ray" / NAME


def newest(place: Place, pattern: str) -> Path:
    """The newest of Ray's own state files of a kind."""
    return max(folder_of(place).glob(pattern), key=lambda path: path.stat().st_mtime)


def log(place: Place, event: str = "", since: float = 0.0) -> list[Line]:
    """The lines of a kind, all of them if none is given."""
    path = place.folder / "log.jsonl"
    if not path.is_file():
        return []
    lines = path.read_text(encoding="utf-8").split("\n")[:-1]
    found = [json.loads(line) for line in lines]
    return [
        line for line in found if line["event"] == (event or line["event"]) and line["time"] > since
    ]


def configs(lines: list[Line]) -> list[str]:
    """The configurations of some lines, as text that can be compared."""
    return [json.dumps(line["config"], sort_keys=True) for line in lines]


def furthest(place: Place) -> dict[str, int]:
    """Configuration -> the last step that it reported."""
    reached: dict[str, int] = {}
    for line in log(place, "report"):
        key = json.dumps(line["config"], sort_keys=True)
        reached[key] = max(reached.get(key, 0), line["step"])
    return reached


def end(running: Running) -> str:
    """How it ended, in words; after so long without an end it is taken to hang."""
    try:
        code = running.process.wait(timeout=PATIENCE)
    except subprocess.TimeoutExpired:
        return f"hangs (no end in {PATIENCE} s)"
    return f"exit {code}"


def finish(running: Running, code: int = 0) -> None:
    """Wait for its end; raises Unseen where it ends with another code."""
    found = running.wait(SECONDS)
    if found != code:
        raise Unseen(f"exit code {found}: {error_of(running)}")


def error_of(running: Running) -> str:
    """The exception that a command ended with, in a few words; empty if there was none."""
    found = re.findall(
        r"^(?:[\w.]*\.)?(\w*(?:Error|Exception|Interrupt)\w*): ?(.*)$", running.text, re.M
    )
    return f"{found[-1][0]}: {found[-1][1][:120]}" if found else ""


def seconds_to(place: Place, since: Running, event: str) -> float | None:
    """From a command's start to the first line of a kind."""
    found = log(place, event, since=since.started)
    return found[0]["time"] - since.started if found else None
