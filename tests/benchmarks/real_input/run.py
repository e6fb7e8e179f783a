"""Six sweeps on real input that nobody here wrote, and the table of what came out.

Run it from anywhere: `python tests/benchmarks/real_input/run.py --out FOLDER`. It uses the product
as a person does, by its command line; a sweep that FOLDER holds already is not run again. Only
numbers leave the data: FOLDER is scratch, the table is for results/evidence.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from easyds_tune.results.ranking import RankedTrial
    from easyds_tune.spec.sweep import SweepSpec

SPECS = Path(__file__).resolve().parent
REPOSITORY = SPECS.parents[2]
DATA = REPOSITORY.parent / "shared" / "data"
HH = "../shared/data/hh-rlhf-harmless/test.jsonl.gz"
SHORT_PROMPTS = "hh-short-prompts.jsonl"
LONGEST_PROMPT = 600
"""Characters; what a model with a context of 512 small tokens can still answer."""

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")


@dataclass(frozen=True)
class Sweep:
    """One spec of this folder. judged_by: the reward-model sweep whose export scores its replies;
    prompts: a file made by this script.
    """

    name: str
    data: str
    judged_by: str | None = None
    prompts: str | None = None

    def overrides(self, out: Path) -> list[str]:
        """What the command line changes in the spec."""
        changes = [f"output.folder={out}"]
        if self.judged_by:
            reward = exported(self.judged_by, out)
            changes.append(f"judge.reward.model_name_or_path={reward}")
        if self.prompts:
            changes.append(f"judge.prompts.path={out / self.prompts}")
        return [word for change in changes for word in ("--set", change)]


SWEEPS = (
    Sweep("jade-rm", "jade-alignment-zh"),
    Sweep("hh-rm", "hh-rlhf-harmless"),
    Sweep("jade-dpo", "jade-alignment-zh", judged_by="jade-rm"),
    Sweep("hh-dpo", "hh-rlhf-harmless", judged_by="hh-rm", prompts=SHORT_PROMPTS),
    Sweep("toyhom-sft", "toyhom-med-qa"),
    Sweep("belle-sft", "belle"),
)


def exported(name: str, out: Path) -> Path:
    """The folder of a sweep's merged export."""
    return out / f"{name}-export"


def product(*words: str | Path) -> str:
    """Run a subcommand in the repository's root and return what it printed; stop if it fails."""
    command = [sys.executable, "-m", "easyds_tune.cli.main", *map(str, words)]
    print("$ easyds-tune", *words, flush=True)
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    print(done.stdout, done.stderr, sep="", flush=True)
    if done.returncode:
        sys.exit(f"easyds-tune {words[0]} ended with exit code {done.returncode}")
    return done.stdout


def write_short_prompts(path: Path) -> None:
    """HH's prompts that fit beside a reply into the context of the model that answers them.

    The sweep refuses longer ones, and its data section has no filter by length.
    """
    from easyds_tune.data.read import read
    from easyds_tune.data.records import prompt_of
    from easyds_tune.spec.data import DataSource

    prompts = [prompt_of(r) for r in read(DataSource(path=HH), "prompts").records]
    short = [p for p in prompts if sum(len(m["content"]) for m in p) <= LONGEST_PROMPT]
    lines = [json.dumps({"messages": list(p)}, ensure_ascii=False) for p in short]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def run_sweep(sweep: Sweep, out: Path) -> None:
    """Sweep and export, whatever of it is not there yet; the wall time goes beside the results."""
    seconds = out / f"{sweep.name}.seconds"
    if not seconds.exists():
        started = time.perf_counter()
        printed = product("sweep", SPECS / f"{sweep.name}.yaml", *sweep.overrides(out))
        (out / f"{sweep.name}.txt").write_text(printed, encoding="utf-8")
        seconds.write_text(f"{time.perf_counter() - started:.0f}", encoding="utf-8")
    to = exported(sweep.name, out)
    if not to.exists():
        product("best", sweep.name, "--results", out)
        product("export", sweep.name, "--results", out, "--to", to, "--merge")


def table_row(sweep: Sweep, out: Path) -> list[str]:
    """The numbers of one finished sweep."""
    from easyds_tune.results.load import load_sweep_record
    from easyds_tune.results.ranking import find_default, find_winner, rank
    from easyds_tune.results.resolved import RESOLVED_NAME, load_resolved

    folder = out / sweep.name
    record = load_sweep_record(folder)
    ranking = rank(record)
    counts = json.loads((folder / RESOLVED_NAME).read_text(encoding="utf-8"))
    states = Counter(str(trial.state) for trial in record.trials.values())
    winner = find_winner(ranking)
    left_out = [*record.notes, *_too_long(load_resolved(folder).spec)]
    arrow = "↑" if record.objective.mode == "max" else "↓"
    return [
        sweep.name,
        sweep.data,
        f"{counts['train_records']} / {counts['held_out_records']} / {counts['judge_prompts']}",
        "; ".join(left_out) or "–",
        ", ".join(f"{n} {state}" for state, n in sorted(states.items())),
        f"{record.objective.metric} {arrow}",
        _measured(find_default(ranking), record.objective.metric),
        _measured(winner, record.objective.metric),
        _measured(winner, "eval/kl"),
        (out / f"{sweep.name}.seconds").read_text(encoding="utf-8"),
    ]


HEADER = ["sweep", "data", "train / held out / prompts", "left out, and why", "trials", "objective",
          "default", "best", "kl of the best (nats/token)", "seconds"]  # fmt: skip


def _measured(ranked: RankedTrial | None, metric: str) -> str:
    """A trial's metric at its best step, with its standard error."""
    from easyds_tune.results.text import format_measured

    if ranked is None or ranked.report is None:
        return "–"
    metrics = ranked.report.metrics
    return format_measured(metrics.get(metric), metrics.get(f"{metric}_stderr"))


def _too_long(spec: SweepSpec) -> list[str]:
    """What the length limit keeps from training and evaluation; it depends on the tokenizer."""
    from easyds_tune.data.template import choose_template
    from easyds_tune.data.tokenise import Encoder
    from easyds_tune.data.training_sets import fit
    from easyds_tune.models.load import load_tokenizer
    from easyds_tune.trial.records import read_records
    from easyds_tune.trial.workbench import ENCODE

    records = read_records(spec.data, spec.algorithm.type, spec.judge)
    tokenizer = load_tokenizer(spec.model.model_name_or_path)
    encoder = Encoder(tokenizer, choose_template(tokenizer, spec.data.chat_template))
    encode = ENCODE[spec.algorithm.type]
    parts = {"train": records.train, "held out": records.held_out}
    return [
        f"{part}: {count} {why}"
        for part, kept in parts.items()
        if kept
        for why, count in fit(encode(kept, encoder).dataset, spec.algorithm).dropped.items()
    ]


def shortcut_row(name: str, out: Path) -> list[str]:
    """Held-out accuracy of an exported reward model, as the data is and with replies stripped."""
    import torch

    from easyds_tune.data.records import PreferencePair
    from easyds_tune.results.resolved import load_resolved
    from easyds_tune.rewards.reward_model import RewardModel
    from easyds_tune.spec.judge import RewardModelRewardSpec
    from easyds_tune.trial.records import read_records

    spec = load_resolved(out / name).spec
    reward = RewardModelRewardSpec(model_name_or_path=str(exported(name, out)))
    scorer = RewardModel(reward, torch.device("cpu"))
    held_out = read_records(spec.data, "rm", None).held_out
    pairs = [record for record in held_out if isinstance(record, PreferencePair)]
    prompts = [pair.prompt for pair in pairs]

    def right(chosen: list[str], rejected: list[str]) -> str:
        margins = scorer.score(prompts, chosen) - scorer.score(prompts, rejected)
        return f"{(margins > 0).float().mean().item():.3f}"

    return [
        name,
        str(len(pairs)),
        right([p.chosen for p in pairs], [p.rejected for p in pairs]),
        right([p.chosen.strip() for p in pairs], [p.rejected.strip() for p in pairs]),
        f"{sum(len(p.chosen) < len(p.rejected) for p in pairs) / len(pairs):.3f}",
    ]


def markdown(header: list[str], rows: list[list[str]]) -> str:
    """A Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def main() -> int:
    """Run what is missing, then print the tables and keep them in `--out`."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="scratch folder, outside the tree")
    out: Path = parser.parse_args().out.resolve()
    if not DATA.is_dir():
        print("SKIPPED: there is no ../shared/data beside this repository")
        return 0
    os.chdir(REPOSITORY)  # the specs' paths stand there
    out.mkdir(parents=True, exist_ok=True)
    if not (out / SHORT_PROMPTS).exists():
        write_short_prompts(out / SHORT_PROMPTS)
    for sweep in SWEEPS:
        run_sweep(sweep, out)
    rows = [table_row(sweep, out) for sweep in SWEEPS]
    shortcuts = [shortcut_row(name, out) for name in ("jade-rm", "hh-rm")]
    header = ["reward model", "all held-out pairs", "accuracy", "with replies stripped",
              "the shorter reply is the better one"]  # fmt: skip
    text = markdown(HEADER, rows) + "\n\n" + markdown(header, shortcuts) + "\n"
    (out / "table.md").write_text(text, encoding="utf-8")
    print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
