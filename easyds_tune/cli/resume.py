"""easyds-tune resume: go on with a sweep that was interrupted, died or is to have more trials."""

from __future__ import annotations

import argparse
from typing import Any

from easyds_tune.cli.common import add_name_arguments


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """NAME, --results and --extend."""
    add_name_arguments(parser)
    parser.add_argument(
        "--extend",
        metavar="WHAT=N",
        action="append",
        default=[],
        help="give it more than its spec does: trials=64, slots=2, hours=12, gpu_hours=100 or "
        "tokens=1000000; may be repeated",
    )


def run(args: argparse.Namespace) -> int:
    """Go on; the exit code says whether there is a winner."""
    from easyds_tune.results.load import find_sweep

    folder = find_sweep(args.name, args.results)
    extend = extension(args.extend)
    from easyds_tune.cli.sweep import tell_the_end
    from easyds_tune.sweep.resume import resume_sweep

    return tell_the_end(resume_sweep(folder, extend=extend), folder)


def extension(texts: list[str]) -> dict[str, Any]:
    """`trials=64` texts as values by the dotted path of the field.

    Raises SpecError with every text that is not of this form.
    """
    from easyds_tune.errors import SpecError
    from easyds_tune.spec.yaml_text import read_yaml
    from easyds_tune.sweep.resume import EXTENDS

    found, problems = {}, []
    for text in texts:
        name, sign, value = text.partition("=")
        if not sign or name not in EXTENDS:
            problems.append(f"--extend {text}: must be {', '.join(f'{n}=N' for n in EXTENDS)}")
        else:
            found[EXTENDS[name]] = read_yaml(value, f"--extend {name}")
    if problems:
        raise SpecError(problems)
    return found
