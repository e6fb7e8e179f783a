"""Write `ppo_1_12_0.json`: what TRL 1.12.0's PPOTrainer computes on rollouts of tiny models.

TRL's own `PPOTrainer.train()` runs here; nothing of it is rewritten. Its local variables are read
where it calls back: at each `accelerator.backward` and at the `log` that ends an update. Recorded
is the second update, when the policy has left its reference and the KL is no longer 0.

TRL 1.12.0 is the last release with PPO. Make an environment of its own for it:

    pip install trl==1.12.0 torch transformers accelerate datasets rich
    python tests/algorithms/trl_ppo/make_fixture.py
"""

from __future__ import annotations

import json
import sys
import tempfile
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    LlamaForSequenceClassification,
    PreTrainedTokenizerFast,
)
from trl.experimental.ppo import PPOConfig, PPOTrainer

TRL_VERSION = "1.12.0"
FIXTURE = Path(__file__).with_name("ppo_1_12_0.json")

PAD, EOS, VOCABULARY = 0, 1, 40
SETTINGS: dict[str, Any] = {
    "num_ppo_epochs": 3,
    "kl_coef": 0.2,
    "cliprange": 0.2,
    "cliprange_value": 0.2,
    "vf_coef": 0.5,
    "gamma": 0.97,
    "lam": 0.9,
    "temperature": 0.8,
    "response_length": 12,
    "per_device_train_batch_size": 4,
    "gradient_accumulation_steps": 2,
    # Large enough that ratios and values leave their clip ranges within the inner epochs.
    "learning_rate": 0.01,
}
CASES: dict[str, dict[str, Any]] = {
    "full_length_k1": {"kl_estimator": "k1"},
    "full_length_k3": {"kl_estimator": "k3"},
    "ragged_k1": {"kl_estimator": "k1", "stop_token": "eos", "missing_eos_penalty": 1.0},
}
"""All replies of full length, where nothing can stop them; replies that end early."""

ROLLOUT = {
    "logprobs": "log_probs",
    "ref_logprobs": "reference_log_probs",
    "values": "values",
    "scores": "scores",
    "padding_mask": "padding",
    "padding_mask_p1": "padding_one_later",
    "rewards": "rewards",
    "advantages": "whitened_advantages",
    "returns": "returns",
}
"""TRL's local variables at the end of an update, and what the fixture calls them."""

STATISTICS = {
    "pg_loss_stats": "policy_loss",
    "vf_loss_stats": "value_loss",
    "approxkl_stats": "approx_kl",
    "pg_clipfrac_stats": "clip_fraction",
    "vf_clipfrac_stats": "value_clip_fraction",
}


@dataclass
class Recorder:
    """Reads TRL's local variables at the calls it makes; keeps the last update's."""

    update: dict[str, Any] = field(default_factory=dict)
    micro_batches: list[dict[str, Any]] = field(default_factory=list)

    def watch(self, trainer: PPOTrainer) -> None:
        """Listen to the two calls that TRL's loop makes on the way."""
        backward, log = trainer.accelerator.backward, trainer.log

        def seen_backward(loss: torch.Tensor) -> None:
            local = sys._getframe(1).f_locals
            self.micro_batches.append(
                {
                    "rows": local["micro_batch_inds"].tolist(),
                    "log_probs": plain(local["new_logprobs"]),
                    "values": plain(local["vpred"]),
                }
            )
            backward(loss)

        def seen_log(metrics: dict[str, float], *args: Any) -> None:
            local = sys._getframe(1).f_locals
            self.update = {ours: plain(local[theirs]) for theirs, ours in ROLLOUT.items()}
            for theirs, ours in STATISTICS.items():
                # (epoch, mini-batch, micro-batch): in the order of their backward passes.
                for micro_batch, value in zip(
                    self.micro_batches, plain(local[theirs].flatten()), strict=True
                ):
                    micro_batch[ours] = value
            self.update["micro_batches"] = self.micro_batches
            self.micro_batches = []
            log(metrics, *args)

        trainer.accelerator.backward = seen_backward
        trainer.log = seen_log


def plain(tensor: torch.Tensor) -> Any:
    """Nested lists; a float32 as the shortest decimal that reads back as the same bits."""
    if tensor.dtype == torch.bool:
        return tensor.int().tolist()
    return json.loads(
        np.array2string(
            tensor.detach().numpy(),
            separator=",",
            threshold=sys.maxsize,
            formatter={"float_kind": lambda x: repr(float(str(x)))},
        )
    )


def word_tokenizer() -> PreTrainedTokenizerFast:
    """One token a word: w2, w3, ..."""
    words = {"<pad>": PAD, "<eos>": EOS} | {f"w{n}": n for n in range(2, VOCABULARY)}
    inner = Tokenizer(models.WordLevel(words, unk_token="<pad>"))
    inner.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(
        tokenizer_object=inner, pad_token="<pad>", eos_token="<eos>", padding_side="left"
    )


def tiny_models() -> tuple[LlamaForCausalLM, Any, Any]:
    """Policy, reward model and value model of random weights."""
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=2,
        initializer_range=0.3,
        pad_token_id=PAD,
        eos_token_id=EOS,
        num_labels=1,
    )
    torch.manual_seed(0)
    policy = LlamaForCausalLM(config)
    head = torch.nn.Linear(config.hidden_size, VOCABULARY)
    with torch.no_grad():
        head.weight.copy_(policy.lm_head.weight)
        head.bias.zero_()
        head.bias[PAD] = -40.0  # TRL takes a padding token that was drawn for the reply's end
        head.bias[EOS] = 1.5  # some replies end early where they may
    policy.lm_head = head
    return policy, LlamaForSequenceClassification(config), LlamaForSequenceClassification(config)


def run_case(settings: dict[str, Any]) -> dict[str, Any]:
    """Two updates of TRL's PPO; the record of the second."""
    policy, reward_model, value_model = tiny_models()
    tokenizer = word_tokenizer()
    prompts = [" ".join(f"w{2 + (7 * row + k) % 38}" for k in range(3 + row % 4)) for row in
               range(8)]  # fmt: skip
    recorder = Recorder()
    np.random.seed(0)  # TRL draws the order of the inner epochs from the global generator
    with tempfile.TemporaryDirectory() as folder:
        trainer = PPOTrainer(
            args=PPOConfig(
                output_dir=folder, total_episodes=16, num_sample_generations=0, seed=0,
                use_cpu=True, bf16=False, gradient_checkpointing=False, report_to=[],
                disable_tqdm=True, save_strategy="no", lr_scheduler_type="constant", **settings,
            ),
            processing_class=tokenizer,
            model=policy,
            ref_model=None,
            reward_model=reward_model,
            value_model=value_model,
            train_dataset=Dataset.from_dict({"input_ids": tokenizer(prompts)["input_ids"]}),
        )  # fmt: skip
        recorder.watch(trainer)
        trainer.train()
    names = ("kl_estimator", "kl_coef", "cliprange", "cliprange_value", "gamma", "lam")
    return {"settings": {name: settings[name] for name in names}, **recorder.update}


def main() -> None:
    """Run every case and write the fixture."""
    if metadata.version("trl") != TRL_VERSION:
        raise SystemExit(f"needs trl=={TRL_VERSION}, got {metadata.version('trl')}")
    torch.set_num_threads(1)
    packages = ("trl", "torch", "transformers", "accelerate")
    fixture = {
        "versions": {name: metadata.version(name) for name in packages},
        "cases": {name: run_case(SETTINGS | case) for name, case in CASES.items()},
    }
    FIXTURE.write_text(compact(fixture) + "\n", encoding="utf-8")


def compact(value: Any, depth: int = 0) -> str:
    """JSON with a line for each row of numbers instead of one for each number."""
    if isinstance(value, dict):
        body = [f"{json.dumps(key)}: {compact(item, depth + 1)}" for key, item in value.items()]
        opening, closing = "{}"
    elif isinstance(value, list) and value and isinstance(value[0], (list, dict)):
        body = [compact(item, depth + 1) for item in value]
        opening, closing = "[]"
    else:
        return json.dumps(value)
    gap = "\n" + " " * depth
    return opening + gap + " " + f",{gap} ".join(body) + gap + closing


if __name__ == "__main__":
    main()
