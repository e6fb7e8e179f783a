"""Arguments that several subcommands share."""

from __future__ import annotations

import argparse
from pathlib import Path


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
