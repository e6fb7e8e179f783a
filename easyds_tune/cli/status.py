"""easyds-tune status: show how far a sweep is, running or finished."""

from __future__ import annotations

import argparse
import time

from easyds_tune.cli.common import add_name_arguments, to_type


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """NAME, --results and --top."""
    add_name_arguments(parser)
    parser.add_argument(
        "--top", type=int, default=10, metavar="N", help="trials to show (default: 10)"
    )


def run(args: argparse.Namespace) -> int:
    """Print counts, times and the ranked table from the journal."""
    from rich.console import Console

    from easyds_tune.results.load import find_sweep, load_sweep_record
    from easyds_tune.results.status import status_view
    from easyds_tune.sweep.lock import holder

    folder = find_sweep(args.name, args.results)
    record = load_sweep_record(folder)
    Console().print(status_view(record, time.time(), top=max(1, args.top)))
    if record.final is None and holder(folder) is None:
        print(f"Nobody runs it just now; go on with: {to_type('resume', folder)}")
    return 0
