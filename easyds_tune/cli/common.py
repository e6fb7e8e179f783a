"""Arguments that several subcommands share."""

from __future__ import annotations

import argparse
import os
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from easyds_tune.journal.replay import SweepRecord


def add_spec_arguments(parser: argparse.ArgumentParser) -> None:
    """SPEC and --set, for every command that reads a spec."""
    parser.add_argument(
        "spec", metavar="SPEC", help="a YAML file, or a name looked for here and in sweeps/"
    )
    parser.add_argument(
        "--set",
        dest="overrides",
        metavar="A.B=C",
        action="append",
        default=[],
        help="override a field of the spec, such as training.max_steps=50; may be repeated",
    )


def add_name_arguments(parser: argparse.ArgumentParser) -> None:
    """NAME and --results, for every command that reads a sweep's folder."""
    parser.add_argument("name", metavar="NAME", help="a sweep's name, or the path of its folder")
    parser.add_argument(
        "--results",
        type=Path,
        default=Path("results"),
        metavar="DIR",
        help="folder that holds the sweeps (default: results)",
    )


def whole_record(folder: Path) -> SweepRecord:
    """A sweep's record without contenders that do not verify on disk; warns of each of these."""
    from easyds_tune.redact import redact
    from easyds_tune.results.load import load_sweep_record
    from easyds_tune.results.verified import loss_notes, verified_while_running

    before, record, losses = verified_while_running(lambda: load_sweep_record(folder), folder)
    for note in loss_notes(before, record, losses):
        print(f"warning: {redact(note)}", file=sys.stderr)
    if losses:
        print(
            f"restore the files, then run {to_type('repair', folder)}; without the files, repair "
            "rewrites best.json without these checkpoints. To train one again: easyds-tune train "
            "SPEC --params ...",
            file=sys.stderr,
        )
    return record


def to_type(command: str, folder: Path) -> str:
    """The line that a person types here for a command on a sweep's folder."""
    folder = folder.resolve()
    named = folder.parent == Path("results").resolve()
    where = "" if named else f" --results {shlex.quote(str(folder.parent))}"
    return f"easyds-tune {command} {shlex.quote(folder.name)}{where}"


def say(text: str) -> None:
    """Print a line at once; a full disk is ignored.

    Raises BrokenPipeError where stdout is closed.
    """
    try:
        print(text, flush=True)
    except BrokenPipeError:
        raise
    except OSError:
        pass


def let_go_of_output() -> OSError | None:
    """Write what is still to be printed, or drop it and return why standard output does not take
    it: Python itself would end with another code and a complaint."""
    if sys.stdout is None:  # closed, as by `>&-`
        return None
    try:
        sys.stdout.flush()
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return error
    return None
