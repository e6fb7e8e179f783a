"""easyds-tune plan: show what a sweep would do, without starting anything."""

from __future__ import annotations

import argparse

from easyds_tune.cli.common import add_spec_arguments


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """SPEC, --set and --full."""
    add_spec_arguments(parser)
    parser.add_argument(
        "--full",
        action="store_true",
        help="make every check that sweep makes before it starts; loads torch and the tokenizers",
    )


def run(args: argparse.Namespace) -> int:
    """Print the resolved spec, then trials, slots, steps, rungs and disk."""
    from easyds_tune.spec.load import load_sweep
    from easyds_tune.sweep.plan import full_plan_text, plan_text

    text = full_plan_text if args.full else plan_text
    print(text(load_sweep(args.spec, args.overrides, on_this_machine=True)))
    return 0
