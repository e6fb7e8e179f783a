"""easyds-tune best: name the best checkpoint over all trials and steps, and say why."""

from __future__ import annotations

import argparse
import json

from easyds_tune.cli.common import add_name_arguments, whole_record


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """NAME, --results and --json."""
    add_name_arguments(parser)
    parser.add_argument("--json", action="store_true", help="print what best.json holds")


def run(args: argparse.Namespace) -> int:
    """Print the winner; exit code 3 where no trial is fit to win."""
    from easyds_tune.results.best import best_json
    from easyds_tune.results.finals import settle
    from easyds_tune.results.load import find_sweep
    from easyds_tune.results.why import reasons

    folder = find_sweep(args.name, args.results)
    record = whole_record(folder)
    best = best_json(record)
    winner = best["winner"]
    if args.json:
        print(json.dumps(best, ensure_ascii=False, indent=2))
        return 3 if winner is None else 0
    print("\n".join(reasons(record, settle(record))))
    if winner is not None:
        for path, value in winner["params"].items():
            print(f"  {path}: {value:.4g}" if isinstance(value, float) else f"  {path}: {value}")
        if winner["checkpoint"] is not None:
            path = folder / winner["checkpoint"]
            print(f"checkpoint: {path}{'' if path.is_dir() else ' (there is none on this disk)'}")
    if best["front"]:
        print("No other checkpoint beats these in all objectives:")
    for point in best["front"]:
        values = ", ".join(f"{name} {value:.4g}" for name, value in point["values"].items())
        print(f"  trial {point['trial']} at step {point['step']}: {values}")
    return 3 if winner is None else 0
