"""easyds-tune plan: show what a sweep would do, without starting anything."""

from __future__ import annotations

import argparse

from easyds_tune.cli.common import add_spec_arguments


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """SPEC and --set."""
    add_spec_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Print the resolved spec, then trials, slots, steps, rungs and disk."""
    from easyds_tune.spec.load import load_sweep
    from easyds_tune.sweep.plan import plan_text

    print(plan_text(load_sweep(args.spec, args.overrides, on_this_machine=True)))
    return 0
