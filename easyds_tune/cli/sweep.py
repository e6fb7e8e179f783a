"""easyds-tune sweep: search a spec's space and end with a ranked table."""

from __future__ import annotations

import argparse
import shlex
from pathlib import Path

from easyds_tune.cli.common import add_spec_arguments, let_go_of_output, say, to_type


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
    say(f"{spec.name}: {spec.search.num_trials} trials of {spec.algorithm.type}")

    from easyds_tune.sweep.run import run_sweep

    code = run_sweep(spec, written, simulate=args.simulate)
    return tell_the_end(code, folder)


def tell_the_end(code: int, folder: Path) -> int:
    """Print what a sweep found and what to type next; returns the code, whoever can read it."""
    from easyds_tune.sweep.disk import warn

    lines = _end_of(code, folder)
    try:
        print("\n".join(lines))
    except OSError as error:
        lost: OSError | None = error
        let_go_of_output()
    else:
        lost = let_go_of_output()
    if lost is not None:
        warn(f"what the sweep found cannot be printed ({lost}); see {to_type('status', folder)}")
    return code


def _end_of(code: int, folder: Path) -> list[str]:
    """What a sweep found and what to type next, or how it goes on."""
    if code in (130, 143):
        return [
            "interrupted; nothing that was reported is lost. Go on with:\n",
            f"  {to_type('resume', folder)}",
        ]
    from easyds_tune.results.finals import settle
    from easyds_tune.results.load import load_sweep_record
    from easyds_tune.results.resolved import load_resolved
    from easyds_tune.results.why import reasons

    record = load_sweep_record(folder)
    lines = ["", *reasons(record, settle(record))]
    if code == 3:
        lines.append(f"see {to_type('status', folder)}")
    elif code == 0:
        lines += [f"\nresults in {folder}; next:", f"  {to_type('best', folder)}"]
        if load_resolved(folder).simulate is None:
            lines.append(f"  {to_type('export', folder)} --to my-model --merge")
        lines.append(f"  tensorboard --logdir {shlex.quote(f'{folder}/tensorboard')}")
    return lines
