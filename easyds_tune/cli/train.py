"""easyds-tune train: run one trial alone, without Ray or a search."""

from __future__ import annotations

import argparse
from pathlib import Path

from easyds_tune.cli.common import add_spec_arguments


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """SPEC, --set, --params and --to."""
    add_spec_arguments(parser)
    parser.add_argument(
        "--params",
        metavar="A.B=C",
        nargs="+",
        action="extend",
        default=[],
        help="fields that differ from the spec, such as algorithm.beta=0.2",
    )
    parser.add_argument(
        "--to",
        type=Path,
        metavar="DIR",
        help="new folder for checkpoints (default: results/NAME-single)",
    )


def run(args: argparse.Namespace) -> int:
    """Train one trial and print a line an evaluation."""
    from easyds_tune.spec.load import load_sweep, parse_params

    spec = load_sweep(args.spec, args.overrides, on_this_machine=True)
    params = parse_params(spec, args.params)
    folder = args.to or Path(spec.output.folder) / f"{spec.name}-single"

    from easyds_tune.sweep.single import train_single

    return train_single(spec, params, folder)
