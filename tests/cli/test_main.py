"""The command line as a whole: quick, light, and clear where it is used wrongly."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from easyds_tune.cli.main import COMMANDS, main, parser

HEAVY = ("torch", "ray", "deepspeed", "transformers", "trl", "peft", "datasets", "optuna")
TELL_WHAT_WAS_LOADED = f"""
import sys
from easyds_tune.cli.main import main
code = 0
try:
    code = main(sys.argv[1:])
except SystemExit as stop:
    code = stop.code or 0
loaded = [name for name in {HEAVY!r} if name in sys.modules]
sys.exit(f"loaded {{loaded}}" if loaded else code)
"""


def run_light(*argv: str) -> tuple[float, subprocess.CompletedProcess[str]]:
    """Best time of three runs in a process of their own, and the last of them."""
    seconds = []
    for _ in range(3):
        start = time.perf_counter()
        done = subprocess.run(
            [sys.executable, "-c", TELL_WHAT_WAS_LOADED, *argv], capture_output=True, text=True
        )
        seconds.append(time.perf_counter() - start)
    return min(seconds), done


@pytest.mark.parametrize("argv", [["--help"], ["--version"], ["plan", "--help"]])
def test_help_comes_within_half_a_second_and_loads_nothing_heavy(argv: list[str]) -> None:
    seconds, done = run_light(*argv)
    assert done.returncode == 0, done.stderr
    assert seconds <= 0.5


def test_a_plan_comes_within_two_seconds_and_loads_nothing_heavy(workspace: Path) -> None:
    seconds, done = run_light("plan", "dpo")
    assert done.returncode == 0, done.stderr
    assert "# objective: eval/reward (max)" in done.stdout
    assert seconds <= 2


def test_help_names_every_command_and_the_exit_codes(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        main(["--help"])
    out = capsys.readouterr().out
    names = ["plan", "sweep", "train", "status", "best", "export", "repair"]
    assert [module.__name__.rsplit(".", 1)[-1] for module in COMMANDS] == names
    assert all(f"    {name} " in out for name in names)
    assert "2 the spec or input is wrong" in " ".join(out.split())


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ([], "the following arguments are required: COMMAND"),
        (["swep", "dpo"], "invalid choice: 'swep'"),
        (["plan"], "the following arguments are required: SPEC"),
        (["plan", "dpo", "more"], "unrecognized arguments: more"),
        (["plan", "dpo", "--set"], "argument --set: expected one argument"),
        (["plan", "dpo", "--st", "seed=1", "--unknown"], "unrecognized arguments"),
        (["status"], "the following arguments are required: NAME"),
        (["status", "x", "--top", "many"], "argument --top: invalid int value: 'many'"),
        (["export", "x"], "the following arguments are required: --to"),
    ],
)
def test_a_wrong_invocation_is_refused_with_the_usage(
    argv: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(argv)
    err = capsys.readouterr().err
    assert err.startswith("usage: easyds-tune")
    assert message in err


def test_every_command_describes_itself(capsys: pytest.CaptureFixture[str]) -> None:
    for module in COMMANDS:
        name = module.__name__.rsplit(".", 1)[-1]
        with pytest.raises(SystemExit, match="0"):
            parser().parse_args([name, "--help"])
        assert (module.__doc__ or "").startswith(f"easyds-tune {name}: ")
        assert capsys.readouterr().out.startswith(f"usage: easyds-tune {name} ")


def test_a_reader_that_goes_away_is_no_error(workspace: Path) -> None:
    read_end, write_end = os.pipe()
    os.close(read_end)
    with os.fdopen(write_end, "wb") as closed:
        done = subprocess.run(
            [sys.executable, "-m", "easyds_tune.cli.main", "plan", "dpo"],
            stdout=closed, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")


def test_a_sweep_that_loses_its_reader_has_failed_and_says_so(workspace: Path) -> None:
    read_end, write_end = os.pipe()
    os.close(read_end)
    with os.fdopen(write_end, "wb") as closed:
        done = subprocess.run(
            [sys.executable, "-m", "easyds_tune.cli.main", "sweep", "dpo"],
            stdout=closed, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
    assert done.returncode == 1
    assert done.stderr == "error: sweep lost the reader of its output and ended\n"


def test_a_disk_that_refuses_is_an_error_without_a_traceback(
    workspace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    journal = workspace / "results" / "broken" / "journal.jsonl"
    journal.parent.mkdir(parents=True)
    journal.symlink_to("/proc/self/mem")  # a file that opens and cannot be read
    assert main(["status", "broken"]) == 1
    assert capsys.readouterr().err.startswith("error: [Errno")


def test_a_name_that_no_file_system_takes_is_no_sweeps(
    workspace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["status", "x" * 300]) == 2
    assert "no sweep is called" in capsys.readouterr().err
