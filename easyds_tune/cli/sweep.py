"""easyds-tune sweep: search a spec's space and end with a ranked table."""

from __future__ import annotations

import argparse
from pathlib import Path

from easyds_tune.cli.common import add_spec_arguments


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """SPEC, --set and --simulate."""
    add_spec_arguments(parser)
    parser.add_argument(
        "--simulate",
        metavar="CURVES",
        type=Path,
        help="train nothing: trials report what this file of learning curves says",
    )


def run(args: argparse.Namespace) -> int:
    """Run the sweep; the exit code says whether it found a winner."""
    from easyds_tune.spec.load import find_spec, load_sweep

    spec = load_sweep(args.spec, args.overrides, on_this_machine=True)
    written = find_spec(args.spec).read_text(encoding="utf-8-sig")
    print(f"{spec.name}: {spec.search.num_trials} trials of {spec.algorithm.type}", flush=True)

    from easyds_tune.sweep.run import run_sweep

    code = run_sweep(spec, written, simulate=args.simulate)
    folder = f"{spec.output.folder}/{spec.name}"
    if code in (130, 143):
        print(f"interrupted; what is finished is in {folder}")
    else:
        from easyds_tune.results.finals import settle
        from easyds_tune.results.load import load_sweep_record
        from easyds_tune.results.why import reasons

        record = load_sweep_record(Path(folder))
        print("\n" + "\n".join(reasons(record, settle(record))))
    if code == 3:
        print(f"see easyds-tune status {folder}")
    elif code == 0:
        print(f"\nresults in {folder}; next:")
        where = "" if spec.output.folder == "results" else f" --results {spec.output.folder}"
        print(f"  easyds-tune best {spec.name}{where}")
        if args.simulate is None:
            print(f"  easyds-tune export {spec.name}{where} --to my-model --merge")
        print(f"  tensorboard --logdir {folder}/tensorboard")
    return code
