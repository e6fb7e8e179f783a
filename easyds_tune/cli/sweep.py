"""easyds-tune sweep: search a spec's space and end with a ranked table."""

from __future__ import annotations

import argparse
from pathlib import Path

from easyds_tune.cli.common import add_spec_arguments


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """SPEC, --set, --simulate and --resume."""
    add_spec_arguments(parser)
    parser.add_argument(
        "--resume", action="store_true", help="go on with it if it was begun already"
    )
    parser.add_argument(
        "--simulate",
        metavar="CURVES",
        type=Path,
        help="train nothing: trials report what this file of learning curves says",
    )


def run(args: argparse.Namespace) -> int:
    """Run the sweep; the exit code says whether it found a winner."""
    from easyds_tune.spec.load import find_spec, load_sweep
    from easyds_tune.sweep.folder import never_began

    spec = load_sweep(args.spec, args.overrides, on_this_machine=True)
    folder = Path(spec.output.folder) / spec.name
    if args.resume and (folder / "journal.jsonl").is_file() and not never_began(folder):
        from easyds_tune.sweep.resume import resume_sweep

        return tell_the_end(resume_sweep(folder, spec, simulate=args.simulate), folder)
    written = find_spec(args.spec).read_text(encoding="utf-8-sig")
    print(f"{spec.name}: {spec.search.num_trials} trials of {spec.algorithm.type}", flush=True)

    from easyds_tune.sweep.run import run_sweep

    code = run_sweep(spec, written, simulate=args.simulate)
    return tell_the_end(code, folder)


def tell_the_end(code: int, folder: Path) -> int:
    """Print what a sweep found and what to type next; returns the code."""
    name = folder.name
    where = "" if str(folder.parent) == "results" else f" --results {folder.parent}"
    if code in (130, 143):
        print("interrupted; nothing that was reported is lost. Go on with:\n")
        print(f"  easyds-tune resume {name}{where}")
        return code
    from easyds_tune.results.finals import settle
    from easyds_tune.results.load import load_sweep_record
    from easyds_tune.results.resolved import load_resolved
    from easyds_tune.results.why import reasons

    record = load_sweep_record(folder)
    print("\n" + "\n".join(reasons(record, settle(record))))
    if code == 3:
        print(f"see easyds-tune status {name}{where}")
    elif code == 0:
        print(f"\nresults in {folder}; next:")
        print(f"  easyds-tune best {name}{where}")
        if load_resolved(folder).simulate is None:
            print(f"  easyds-tune export {name}{where} --to my-model --merge")
        print(f"  tensorboard --logdir {folder}/tensorboard")
    return code
