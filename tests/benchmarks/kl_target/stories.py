"""A second world for PPO: children's stories, and reward models for what a story mentions.

A rule says whether a story mentions a thing. Stories are drawn from the language model, pairs are
made by the rule (one that mentions it, one that does not, to the same opening), and a reward model
is trained on them with the product's own rm algorithm. A copy of a reward model with its head
multiplied by a factor gives the same order of replies on another scale.
"""

from __future__ import annotations

import itertools
import json
import random
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

RULES = {
    "dog": re.compile(r"\b(dog|dogs|puppy|doggy)\b", re.IGNORECASE),
    "happy": re.compile(r"\b(happy|happily|smile|smiled|smiles|laughed)\b", re.IGNORECASE),
}
"""What a story should mention, by name."""

NAMES = (
    "Lily", "Tom", "Mia", "Ben", "Anna", "Max", "Sue", "Sam", "Lucy", "Tim", "Sara", "Jack",
)  # fmt: skip
PLACES = (
    "went to the park", "played in the garden", "sat by the window", "walked to the shop",
    "was in the kitchen", "ran up the hill", "looked at the sky", "found a big box",
    "woke up early", "was at the beach",
)  # fmt: skip
OPENINGS = (
    "One day, {name} {place}.",
    "Once upon a time, {name} {place}.",
    "{name} {place} with mom.",
    "It was sunny. {name} {place}.",
    "{name} was sad. Then {name} {place}.",
    "In the morning, {name} {place}.",
)
CONTINUES = "{{ bos_token }}{% for message in messages %}{{ message.content }}{% endfor %}"
"""Chat template of a model that continues a text: no separator between prompt and reply."""
NUM_PAIRS, DRAWS, MAX_NEW_TOKENS = 800, 24, 48
JUDGE_PROMPTS = 128


def make_world(model: Path, folder: Path) -> None:
    """Write prompts, pairs and one trained reward model a rule into `folder`, once."""
    done = folder / "done"
    if done.exists():
        return
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    openings = _openings()
    judged, trained = openings[:JUDGE_PROMPTS], openings[JUDGE_PROMPTS:]
    _write(folder / "judge.jsonl", ({"input": text} for text in judged))
    _write(folder / "prompts.jsonl", ({"input": text} for text in trained))
    stories = _draw(model, trained)
    for rule, pattern in RULES.items():
        _write(folder / f"{rule}-pairs.jsonl", _pairs(stories, pattern))
        _train_reward(model, folder, rule)
    done.touch()


def scaled_reward(source: Path, target: Path, factor: float) -> Path:
    """A copy of the reward model in `source` whose scores are `factor` times as large."""
    if not target.exists():
        draft = target.with_name(f".{target.name}")
        shutil.rmtree(draft, ignore_errors=True)
        shutil.copytree(source, draft)
        name = "adapter_model" if (draft / "adapter_config.json").exists() else "model"
        weights = load_file(draft / f"{name}.safetensors")
        heads = [key for key in weights if "score" in key]
        assert len(heads) == 1, heads
        weights[heads[0]] = weights[heads[0]] * factor
        save_file(weights, draft / f"{name}.safetensors", metadata={"format": "pt"})
        draft.rename(target)
    return target


def _openings() -> list[str]:
    combined = itertools.product(OPENINGS, NAMES, PLACES)
    texts = [opening.format(name=name, place=place) for opening, name, place in combined]
    random.Random(11).shuffle(texts)
    return texts


def _draw(model: Path, openings: list[str]) -> dict[str, list[str]]:
    """Some stories to each opening."""
    from easyds_tune.models.generate import Sampling, generate
    from easyds_tune.models.load import load_model, load_tokenizer
    from easyds_tune.spec.model import ModelSpec

    tokenizer = load_tokenizer(str(model))
    language_model = load_model(
        ModelSpec(model_name_or_path=str(model), dtype="float32"), "causal", torch.device("cpu")
    )
    found: dict[str, list[str]] = {text: [] for text in openings}
    ids = [tokenizer(text)["input_ids"] for text in openings]
    for seed in range(DRAWS):
        replies = generate(
            language_model,
            ids,
            Sampling(MAX_NEW_TOKENS, seed=seed, coupled=False, batch_size=256),
            eos_token_ids=[tokenizer.eos_token_id],
            pad_token_id=tokenizer.pad_token_id,
        )
        for text, reply in zip(openings, replies, strict=True):
            found[text].append(tokenizer.decode(reply, skip_special_tokens=True))
    return found


def _pairs(stories: dict[str, list[str]], rule: re.Pattern[str]) -> Iterator[dict[str, str]]:
    """Pairs of one opening, as many of each opening as there are of both kinds."""
    pairs = []
    for opening, written in stories.items():
        with_it = [text for text in written if rule.search(text)]
        without = [text for text in written if not rule.search(text)]
        pairs += [
            {"prompt": opening, "chosen": chosen, "rejected": rejected}
            for chosen, rejected in zip(with_it, without, strict=False)
        ]
    random.Random(12).shuffle(pairs)
    return iter(pairs[:NUM_PAIRS])


def _train_reward(model: Path, folder: Path, rule: str) -> None:
    """Train rm on the rule's pairs; its last checkpoint becomes `folder/<rule>`."""
    from easyds_tune.spec.load import load_sweep
    from easyds_tune.sweep.single import train_single

    spec = load_sweep(
        "sweeps/rm.yaml",
        [
            f"model.model_name_or_path={model}",
            f"data.chat_template='{CONTINUES}'",
            f"data.train={folder}/{rule}-pairs.jsonl",
            "training.max_steps=200",
            "training.eval_steps=100",
            "training.learning_rate=3e-3",
        ],
        on_this_machine=True,
    )
    work = folder / f"{rule}-training"
    assert train_single(spec, {}, work) == 0
    (last,) = work.glob("**/checkpoints/step-000200")
    shutil.copytree(last, folder / rule, ignore=shutil.ignore_patterns("trainer"))


def _write(path: Path, rows: Iterator[dict[str, str]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
