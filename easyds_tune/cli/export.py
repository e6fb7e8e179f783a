"""easyds-tune export: turn a sweep's best checkpoint into a model folder, and prove it equal."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from easyds_tune.cli.common import add_name_arguments, whole_record
from easyds_tune.errors import CheckpointError

if TYPE_CHECKING:
    from easyds_tune.journal.replay import SweepRecord
    from easyds_tune.results.finals import Best


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """NAME, --results, --to and --merge."""
    add_name_arguments(parser)
    parser.add_argument("--to", type=Path, required=True, metavar="DIR", help="new folder")
    parser.add_argument(
        "--merge", action="store_true", help="merge the adapter into the base: one plain model"
    )


def run(args: argparse.Namespace) -> int:
    """Export the winner and say what was verified; exit code 3 where no trial is fit to win."""
    from easyds_tune.results.finals import find_best
    from easyds_tune.results.load import find_sweep
    from easyds_tune.results.resolved import load_resolved

    folder = find_sweep(args.name, args.results)
    record = whole_record(folder)
    resolved = load_resolved(folder)
    winner = find_best(record)
    if winner is None or winner.checkpoint is None:
        print(f"error: {record.name} has no checkpoint that is fit to win", file=sys.stderr)
        return 3

    from easyds_tune.deploy.card import ModelCard
    from easyds_tune.deploy.export import export
    from easyds_tune.trial.quiet import quiet_libraries

    quiet_libraries()
    checkpoint = folder / winner.checkpoint
    if not checkpoint.is_dir() and not args.to.exists():
        raise CheckpointError(
            f"{checkpoint}: the checkpoint of trial {winner.trial.id} at step {winner.step} is no "
            "longer there; a sweep keeps its best one, so somebody deleted it, or moved the folder "
            "without it"
        )
    report = export(
        checkpoint,
        resolved.base(),
        "reward" if record.algorithm == "rm" else "causal",
        args.to,
        merge=args.merge,
        card=ModelCard(
            sweep=record.name,
            algorithm=record.algorithm,
            trial=winner.trial.id,
            step=winner.step,
            params=winner.trial.params,
            metrics=winner.report.metrics,
            measured_anew=_measured_anew(record, winner),
            bounds={bound.metric: (bound.min, bound.max) for bound in record.bounds},
            data_hash=resolved.data_hashes["train"],
        ),
        chat_template=resolved.spec.data.chat_template,
        working_folder=resolved.working_folder,
    )
    print(
        f"trial {winner.trial.id}, step {winner.step}: {report.form} in {args.to} "
        f"({report.bytes / 1e6:.1f} MB, {report.dtype})"
    )
    print(
        f"verified: loaded again, its logits differ from the checkpoint's by at most "
        f"{report.largest_difference:.2g} over {report.sequences} texts "
        f"(allowed: {report.tolerance:.2g})"
    )
    return 0


def _measured_anew(record: SweepRecord, best: Best) -> dict[str, tuple[float, float, float]]:
    """Metric -> (value, low, high) as the finals measured it."""
    if best.finalist is None:
        return {}
    measured = {**best.finalist.metrics, record.objective.metric: best.finalist.reported}
    return {name: (found.value, found.low, found.high) for name, found in measured.items()}
