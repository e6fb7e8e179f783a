"""`easyds-tune`: find the subcommand, run it, turn errors into messages and exit codes."""

from __future__ import annotations

import argparse
import io
import sys
import traceback

from easyds_tune import __version__
from easyds_tune.cli import best, export, plan, repair, resume, status, sweep, train
from easyds_tune.cli.common import let_go_of_output
from easyds_tune.errors import EasyDSError, ProblemsError
from easyds_tune.redact import redact

COMMANDS = (plan, sweep, resume, train, status, best, export, repair)
READERS = ("status", "best", "export", "repair")
"""Commands that read a sweep's folder: they start nothing, whatever is wrong."""
TEXTS = ("plan", "status", "best")
"""Commands whose whole work is what they print."""


def parser() -> argparse.ArgumentParser:
    """The whole command line."""
    root = argparse.ArgumentParser(
        prog="easyds-tune",
        description="Hyperparameter sweeps for LLM post-training: SFT, reward models, DPO, PPO.",
        epilog="Exit codes: 0 done, 1 failed, 2 the spec or input is wrong, 3 no trial is fit, "
        "130/143 interrupted.",
    )
    root.add_argument("--version", action="version", version=f"easyds-tune {__version__}")
    commands = root.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for module in COMMANDS:
        name = module.__name__.rsplit(".", 1)[-1]
        line = (module.__doc__ or "").strip().splitlines()[0]
        text = line.partition(": ")[2]
        sub = commands.add_parser(name, help=text, description=text[0].upper() + text[1:])
        module.add_arguments(sub)
        sub.set_defaults(run=module.run)
    return root


def main(argv: list[str] | None = None) -> int:
    """Run a command and return its exit code."""
    args = parser().parse_args(argv)
    if isinstance(sys.stdout, io.TextIOWrapper):  # an encoding that lacks ± ends nothing
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        code: int = args.run(args)
        if sys.stdout is not None:
            sys.stdout.flush()
        return code
    except ProblemsError as error:
        for problem in error.problems:
            _tell(problem)
        if args.command not in READERS:
            count = len(error.problems)
            plural = "s" if count != 1 else ""
            print(f"{count} problem{plural}; nothing was started", file=sys.stderr)
        return error.exit_code
    except EasyDSError as error:
        _tell(error)
        return error.exit_code
    except BrokenPipeError:
        # A reader that goes away, as `| head` does, has what it wanted of a text.
        if args.command in TEXTS:
            return 0
        print(f"error: {args.command} lost the reader of its output and ended", file=sys.stderr)
        return 1
    except OSError as error:
        _tell(error)
        return 1
    except KeyboardInterrupt:
        return 130
    except Exception:
        # A bug of ours, told as Python would; libraries put URLs into it, keys included.
        print(redact(traceback.format_exc()), file=sys.stderr, end="")
        return 1
    finally:
        let_go_of_output()


def _tell(problem: object) -> None:
    print(f"error: {redact(str(problem))}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
