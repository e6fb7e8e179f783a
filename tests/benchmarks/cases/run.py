"""What the product does with inputs that once failed: an earlier commit beside this checkout.

    python -m tests.benchmarks.cases.run --cases FOLDER --before COMMIT --out FOLDER

Every folder below `--cases` that holds a spec is one case: its files are copied, PROJECT in them
becomes this checkout, a make_model.py or make_models.py is run, and then `plan`, `plan --full` and,
where both pass, `train` (or `sweep`, where the case's README asks for it). The table has the exit
code of the last command and what it printed of interest: errors, notes and warnings.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from harness import checkout

ROOT = Path(__file__).resolve().parents[3]
TOLD = ("error: ", "warning: ", "# note: ", "note: ")
SECONDS = 300


class Outcome(NamedTuple):
    """How a case ended."""

    command: str
    code: int
    told: list[str]

    def __str__(self) -> str:
        told = "<br>".join(line.replace("|", "\\|") for line in self.told)
        return f"`{self.command}` → {self.code}" + (f"<br>{told}" if told else "")


def main() -> None:
    """Run every case with both checkouts and write the table."""
    arguments = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    arguments.add_argument("--cases", type=Path, required=True)
    arguments.add_argument("--before", metavar="COMMIT", help="an earlier commit to compare with")
    arguments.add_argument("--only", nargs="+", default=[], help="beginnings of cases' names")
    arguments.add_argument("--out", type=Path, required=True)
    options = arguments.parse_args()
    cases = [
        spec
        for spec in sorted(options.cases.resolve().rglob("*.yaml"))
        if not options.only or _name(spec, options.cases).startswith(tuple(options.only))
    ]
    lines = ["| case | before | now |", "| --- | --- | --- |"]
    with checkout(options.before or "HEAD") as before:
        for spec in cases:
            old = str(run_case(spec, before)) if options.before else ""
            new = str(run_case(spec, ROOT))
            lines.append(f"| {_name(spec, options.cases)} | {old} | {new} |")
            print(lines[-1], flush=True)
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "cases.md").write_text("\n".join(lines) + "\n", encoding="utf-8")


def _name(spec: Path, cases: Path) -> str:
    name = str(spec.parent.relative_to(cases.resolve()))
    return name if spec.stem == "spec" else f"{name}/{spec.stem}"


def run_case(spec: Path, code: Path) -> Outcome:
    """The outcome of one spec of a case with the package of a checkout."""
    with case_folder(spec.parent) as folder:
        for script in sorted(folder.glob("make_model*.py")):
            _run([sys.executable, script.name], folder, code)
        readme = (folder / "README").read_text(encoding="utf-8")
        wanted = "train" if "easyds-tune train" in readme else "sweep"
        machine = ["--set", "resources.gpus_per_trial=0"]
        outcome = _command(["plan", spec.name, *machine], folder, code)
        if outcome.code:
            return outcome
        ends = ["--to", "out"] if wanted == "train" else []
        if wanted == "sweep" and "own-modules" not in str(spec):
            # The search of a data case says no more than one trial of it.
            wanted, ends = "train", ["--to", "out"]
        ended = _command([wanted, spec.name, *ends, *machine], folder, code)
        return ended._replace(told=list(dict.fromkeys([*outcome.told, *ended.told])))


def _command(arguments: list[str], folder: Path, code: Path) -> Outcome:
    # Not `python -m`, which would import a case's own modules from its folder.
    start = "from easyds_tune.cli.main import main; import sys; sys.exit(main(sys.argv[1:]))"
    done = _run([sys.executable, "-P", "-c", start, *arguments], folder, code)
    lines = [*done.stdout.splitlines(), *done.stderr.splitlines()]
    told = [line.removeprefix("# ") for line in lines if line.startswith(TOLD)]
    shown = [line.replace(str(folder), "FOLDER").replace(str(ROOT), "PROJECT") for line in told]
    name = " ".join(word for word in arguments[:2])
    return Outcome(name, done.returncode, shown)


def _run(command: list[str], folder: Path, code: Path) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {
        "PYTHONPATH": str(code), "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "",
    }  # fmt: skip
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=SECONDS,
        stdin=subprocess.DEVNULL, check=False,
    )  # fmt: skip


@contextmanager
def case_folder(source: Path) -> Iterator[Path]:
    """A copy of a case's files in which PROJECT is this checkout."""
    with TemporaryDirectory() as parent:
        folder = Path(parent) / "case"
        shutil.copytree(source, folder)
        for path in folder.rglob("*"):
            path.chmod(0o755 if path.is_dir() else 0o644)
            if path.suffix in (".yaml", ".py", ".json"):
                text = path.read_text(encoding="utf-8").replace("PROJECT", str(ROOT))
                path.write_text(text, encoding="utf-8")
        yield folder


if __name__ == "__main__":
    main()
