"""The README.md of an exported model: where it comes from, what it scored, how to load it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import yaml

from easyds_tune.data.template import PLAIN, Template
from easyds_tune.journal.intervals import interval_95
from easyds_tune.models.load import ModelKind
from easyds_tune.spec.model import ModelSpec

Form = Literal["adapter", "merged", "full"]
"""What is exported: LoRA weights alone, base and LoRA in one, or a model trained whole."""

PACKAGES = ("easyds-tune", "torch", "transformers", "peft", "trl", "deepspeed")
FORM_IN_WORDS = {
    "adapter": "A LoRA adapter; it needs its base model beside it.",
    "merged": "A whole model: the LoRA adapter is merged into its base.",
    "full": "A whole model: every weight was trained.",
}

NO_TEMPLATE_IN_WORDS = (
    f"It was trained without a chat template: {PLAIN}. End a prompt with a line break, as in "
    '`tokenizer("a prompt\\n", return_tensors="pt")`.'
)


def installed_versions() -> dict[str, str]:
    """The versions of the packages that decide what a model computes."""
    return {package: version(package) for package in PACKAGES}


@dataclass(frozen=True)
class ModelCard:
    """What a sweep knows about the checkpoint it hands over.

    params: the searched fields and their values in this trial.
    metrics: of the exported step; `x_stderr` beside `x` is its standard error.
    measured_anew: metric -> (value, low, high) of the sweep's finals, where they measured it.
    data_hash: SHA-256 of the training records.
    bounds: metric -> (lowest, highest) it had to stay within; None is an open end.
    """

    sweep: str
    algorithm: str
    trial: str
    step: int
    params: Mapping[str, Any]
    metrics: Mapping[str, float]
    data_hash: str
    bounds: Mapping[str, tuple[float | None, float | None]] = field(default_factory=dict)
    measured_anew: Mapping[str, tuple[float, float, float]] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=installed_versions)


def render_card(
    card: ModelCard,
    base: ModelSpec,
    base_name: str,
    kind: ModelKind,
    form: Form,
    folder: Path,
    *,
    template: Template,
    started_from: Path | None = None,
) -> str:
    """The card as Markdown, with the YAML header that model hubs read.

    base_name: the base as the export refers to it; folder: where the export will lie.
    template: what it was trained with; the exported tokenizer has it.
    started_from: the adapter that the trial started from, which these weights hold already.
    """
    header = {
        "base_model": base_name,
        "library_name": "peft" if form == "adapter" else "transformers",
        "pipeline_tag": "text-generation" if kind == "causal" else "text-classification",
        "tags": ["easyds-tune", card.algorithm],
    }
    facts = {
        "Base model": base_name + (f" (revision {base.revision})" if base.revision else ""),
        **(
            {"Started from": f"the adapter {started_from}, held in these weights"}
            if started_from
            else {}
        ),
        "Algorithm": card.algorithm,
        "Sweep, trial, step": f"{card.sweep}, {card.trial}, {card.step}",
        "Chat template": template.in_words,
        "Training data": f"SHA-256 {card.data_hash}",
        "Made with": ", ".join(f"{name} {number}" for name, number in card.versions.items()),
    }
    sections = [
        f"---\n{yaml.safe_dump(header, allow_unicode=True, sort_keys=False)}---",
        f"# {card.sweep}, trial {card.trial}, step {card.step}",
        FORM_IN_WORDS[form] + ("" if template.text is not None else f" {NO_TEMPLATE_IN_WORDS}"),
        "## Load it",
        f"```python\n{loading_code(base, base_name, kind, form, folder)}\n```",
        "## Where it comes from",
        _table(("", ""), list(facts.items())),
        "## Searched parameters",
        _table(
            ("parameter", "value"),
            [(name, json.dumps(value, ensure_ascii=False)) for name, value in card.params.items()],
        ),
        "## Metrics of this step",
        "Intervals are mean ± 1.96 standard errors, within 0 to 1 for shares. KL is in nats per "
        "token, against the model the trial started from."
        + (
            " Where a metric was measured in the sweep's finals, on prompts that no decision had "
            "seen, that number stands here, with a bootstrap interval."
            if card.measured_anew
            else ""
        ),
        _table(("metric", "value", "95 % interval", "bound"), _metric_rows(card)),
    ]
    return "\n\n".join(sections) + "\n"


def loading_code(base: ModelSpec, base_name: str, kind: ModelKind, form: Form, folder: Path) -> str:
    """Python that loads the export into `model` and `tokenizer`."""
    auto = "AutoModelForCausalLM" if kind == "causal" else "AutoModelForSequenceClassification"
    first = f'"{base_name if form == "adapter" else folder}"'
    if form == "adapter" and base.revision:
        first += f', revision="{base.revision}"'
    if form == "adapter" and kind == "reward":
        first += ", num_labels=1"
    code = ", trust_remote_code=True" if base.trust_remote_code else ""
    lines = [
        f"from transformers import {auto}, AutoTokenizer",
        f'tokenizer = AutoTokenizer.from_pretrained("{folder}"{code})',
        f"model = {auto}.from_pretrained({first}{code})",
    ]
    if form == "adapter":
        lines.insert(0, "from peft import PeftModel")
        lines.append(f'model = PeftModel.from_pretrained(model, "{folder}")')
    return "\n".join(lines)


def _metric_rows(card: ModelCard) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = []
    for name, value in card.metrics.items():
        if name.endswith("_stderr"):
            continue
        error = card.metrics.get(f"{name}_stderr")
        interval = ""
        if name in card.measured_anew:
            value, low, high = card.measured_anew[name]
            interval = f"{low:.4g} to {high:.4g}"
        elif error is not None:
            low, high = interval_95(name, value, error)
            interval = f"{low:.4g} to {high:.4g}"
        rows.append((name, f"{value:.4g}", interval, _bound(card.bounds.get(name))))
    return rows


def _bound(bound: tuple[float | None, float | None] | None) -> str:
    low, high = bound or (None, None)
    words = [f"at least {low:g}"] if low is not None else []
    words += [f"at most {high:g}"] if high is not None else []
    return ", ".join(words)


def _table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    if not rows:
        return "None."
    lines = [head, tuple("---" for _ in head), *rows]
    return "\n".join(
        "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in line) + " |"
        for line in lines
    )
