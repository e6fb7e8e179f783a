"""The model card says where a model comes from, and its code runs as it stands."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from transformers import AutoModelForCausalLM

from easyds_tune.data.template import Template
from easyds_tune.deploy.card import render_card
from easyds_tune.deploy.export import export
from easyds_tune.spec.model import ModelSpec
from tests.deploy.tiny import CARD, adapter_checkpoint, causal_base, reward_model

OWN = Template("{{ messages }}", "tokenizer")


def code_of(card: str) -> str:
    found = re.search(r"```python\n(.*?)```", card, re.DOTALL)
    assert found
    return found[1]


@pytest.mark.parametrize("merge", [False, True])
@pytest.mark.parametrize("kind", ["causal", "reward"])
def test_the_loading_code_of_an_export_runs(tmp_path: Path, kind: Any, merge: bool) -> None:
    base = causal_base(tmp_path / "base")
    if kind == "causal":
        model, task = AutoModelForCausalLM.from_pretrained(base), "CAUSAL_LM"
    else:
        model, task = reward_model(base), "SEQ_CLS"
    trained = adapter_checkpoint(tmp_path / "checkpoint", model, task)
    spec = ModelSpec(model_name_or_path=str(base))
    export(trained, spec, kind, tmp_path / "out", merge=merge, card=CARD)

    code = code_of((tmp_path / "out" / "README.md").read_text(encoding="utf-8"))
    assert len(code.splitlines()) <= 5
    names: dict[str, Any] = {}
    exec(code, names)
    ids = names["tokenizer"]("栈", return_tensors="pt")["input_ids"]
    with torch.no_grad():
        wanted = model.eval()(input_ids=ids).logits
        torch.testing.assert_close(
            names["model"].eval()(input_ids=ids).logits, wanted, atol=1e-4, rtol=0
        )


def card_text(**changes: Any) -> str:
    base = ModelSpec(model_name_or_path="org/base", revision="v2", **changes)
    return render_card(CARD, base, "org/base", "causal", "adapter", Path("export"), template=OWN)


def test_metrics_stand_beside_their_intervals_and_bounds() -> None:
    # 1.25 ± 1.96 × 0.1 = 1.054 to 1.446
    assert "| eval/reward | 1.25 | 1.054 to 1.446 |  |" in card_text()
    assert "| eval/kl | 0.04 |  | at most 0.1 |" in card_text()
    assert "stderr" not in card_text()


def test_the_interval_of_an_accuracy_stays_between_0_and_1() -> None:
    card = replace(CARD, metrics={"eval/accuracy": 0.95, "eval/accuracy_stderr": 0.05})
    base = ModelSpec(model_name_or_path="org/base")
    text = render_card(card, base, "org/base", "reward", "adapter", Path("export"), template=OWN)
    assert "| eval/accuracy | 0.95 | 0.852 to 1 |" in text


def test_what_the_finals_measured_takes_the_place_of_the_searchs_number() -> None:
    card = replace(CARD, measured_anew={"eval/reward": (1.1, 0.9, 1.25)})
    base = ModelSpec(model_name_or_path="org/base")
    text = render_card(card, base, "org/base", "causal", "adapter", Path("export"), template=OWN)
    assert "| eval/reward | 1.1 | 0.9 to 1.25 |  |" in text
    assert "| eval/kl | 0.04 |  | at most 0.1 |" in text
    assert "on prompts that no decision had seen" in text
    assert "no decision" not in card_text()


def test_the_card_says_which_chat_template_the_model_was_trained_with() -> None:
    assert "| Chat template | the tokenizer's own |" in card_text()
    assert "without a chat template" not in card_text()
    base, plain = ModelSpec(model_name_or_path="org/base"), Template(None, "none")
    text = render_card(CARD, base, "org/base", "causal", "full", Path("export"), template=plain)
    told = "trained without a chat template: plain text with each message on a line of its own."
    assert told in text


def test_the_card_names_sweep_trial_step_data_and_parameters() -> None:
    text = card_text()
    assert "| Sweep, trial, step | quickstart, 003, 30 |" in text
    assert f"SHA-256 {'ab' * 32}" in text
    assert '| model.lora_target_modules | ["q_proj", "v_proj"] |' in text
    assert "torch 2." in text


def test_the_header_is_what_hubs_read() -> None:
    header = yaml.safe_load(card_text().split("---\n")[1])
    assert header["base_model"] == "org/base"
    assert header["library_name"] == "peft"


def test_a_revision_and_remote_code_are_part_of_the_loading_code() -> None:
    code = code_of(card_text(trust_remote_code=True))
    assert 'from_pretrained("org/base", revision="v2", trust_remote_code=True)' in code
