"""easyds-tune repair: mend a sweep's journal, and write anew all that is derived from it."""

from __future__ import annotations

import argparse

from easyds_tune.cli.common import add_name_arguments


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """NAME and --results."""
    add_name_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Say what was wrong with the journal, and which files were written anew."""
    from easyds_tune.journal.repair import repair
    from easyds_tune.results.load import JOURNAL_NAME, find_sweep
    from easyds_tune.results.rebuild import DERIVED, rebuild
    from easyds_tune.results.resolved import UNFINISHED_RESOLVED_NAME
    from easyds_tune.sweep.disk import warn
    from easyds_tune.sweep.ending import mend
    from easyds_tune.sweep.lock import lock

    folder = find_sweep(args.name, args.results)
    with lock(folder):
        (folder / UNFINISHED_RESOLVED_NAME).unlink(missing_ok=True)  # of a driver that was killed
        done = repair(folder / JOURNAL_NAME)
        print(f"{folder / JOURNAL_NAME}: {done}", flush=True)
        mend(folder, done.record, warn)
        rebuild(done.record, folder)
    print(f"written anew from the journal: {', '.join(DERIVED)}")
    return 0
