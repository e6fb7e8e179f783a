"""An export loads with plain Transformers or PEFT, computes alike, or does not exist."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    GenerationConfig,
    PreTrainedTokenizerFast,
)

from easyds_tune.data.template import Template, choose_template
from easyds_tune.deploy.export import base_reference, export
from easyds_tune.drafts import draft_of
from easyds_tune.errors import CheckpointError, ExportError, ModelError, SpecError
from easyds_tune.models.stack import save_adapter, with_policy_adapter
from easyds_tune.models.start import start_of
from easyds_tune.spec.model import ModelSpec
from easyds_tune.trial.checkpoint import drop_trainer_state, write_checkpoint
from tests.deploy.tiny import (
    CARD,
    adapter_checkpoint,
    byte_tokenizer,
    causal_base,
    checkpoint_of,
    encoder_base,
    reward_model,
)
from tests.models.adapters import edit_config, moved, sft_adapter

IDS = torch.tensor([[5, 77, 130, 9, 200, 41]])
TEMPLATE = "{% for m in messages %}[{{ m.role }}]{{ m.content }}{% endfor %}"
BUNDLED = Path(__file__).parents[2] / "data" / "models" / "tiny-tutor"


@torch.no_grad()
def logits(model: torch.nn.Module) -> torch.Tensor:
    return model.eval()(input_ids=IDS).logits.float()


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return causal_base(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def checkpoint(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    model = AutoModelForCausalLM.from_pretrained(base)
    return adapter_checkpoint(tmp_path_factory.mktemp("checkpoint"), model, "CAUSAL_LM")


@pytest.fixture(scope="module")
def trained_logits(base: Path, checkpoint: Path) -> torch.Tensor:
    plain = AutoModelForCausalLM.from_pretrained(base)
    return logits(PeftModel.from_pretrained(plain, checkpoint))


def spec(base: Path, **changes: object) -> ModelSpec:
    return ModelSpec(model_name_or_path=str(base), **changes)


def test_an_adapter_gives_the_checkpoints_logits_bit_for_bit(
    base: Path, checkpoint: Path, trained_logits: torch.Tensor, tmp_path: Path
) -> None:
    report = export(checkpoint, spec(base), "causal", tmp_path / "out", merge=False, card=CARD)

    assert report.form == "adapter"
    assert report.largest_difference == 0
    plain = AutoModelForCausalLM.from_pretrained(base)
    loaded = PeftModel.from_pretrained(plain, tmp_path / "out")
    assert torch.equal(logits(loaded), trained_logits)


def test_a_merged_model_loads_without_peft(
    base: Path, checkpoint: Path, trained_logits: torch.Tensor, tmp_path: Path
) -> None:
    report = export(checkpoint, spec(base), "causal", tmp_path / "out", merge=True, card=CARD)

    assert (report.form, report.dtype) == ("merged", "float32")
    assert report.largest_difference <= report.tolerance
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    torch.testing.assert_close(logits(loaded), trained_logits, atol=1e-4, rtol=0)
    untrained = logits(AutoModelForCausalLM.from_pretrained(base))
    assert (untrained - trained_logits).abs().max() > 0.1


def test_an_export_holds_what_loading_needs_and_no_optimizer_state(
    base: Path, checkpoint: Path, tmp_path: Path
) -> None:
    whole = {"README.md", "config.json", "generation_config.json", "model.safetensors",
             "tokenizer.json", "tokenizer_config.json"}  # fmt: skip
    adapter = whole - {"config.json", "model.safetensors"}
    adapter |= {"adapter_config.json", "adapter_model.safetensors"}
    for merge, wanted in ((True, whole), (False, adapter)):
        to = tmp_path / str(merge)
        report = export(checkpoint, spec(base), "causal", to, merge=merge, card=CARD)
        assert set(report.files) == wanted == {path.name for path in to.iterdir()}
        assert report.bytes == sum(path.stat().st_size for path in to.iterdir())


@pytest.mark.parametrize("merge", [False, True])
def test_another_user_may_read_every_file(
    base: Path, checkpoint: Path, tmp_path: Path, merge: bool
) -> None:
    to = tmp_path / "out"
    export(checkpoint, spec(base), "causal", to, merge=merge, card=CARD)

    assert [path.name for path in to.iterdir() if path.stat().st_mode & 0o044 != 0o044] == []


def test_an_adapter_names_its_local_base_by_an_absolute_path(
    base: Path, checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(base.parent)
    named = ModelSpec(model_name_or_path=base.name)
    export(checkpoint, named, "causal", tmp_path / "out", merge=False, card=CARD)

    config = json.loads((tmp_path / "out" / "adapter_config.json").read_text(encoding="utf-8"))
    assert config["base_model_name_or_path"] == str(base)
    assert config["inference_mode"] is True


def test_a_hub_name_stays_as_it_is() -> None:
    assert base_reference(ModelSpec(model_name_or_path="Qwen/Qwen3-0.6B")) == "Qwen/Qwen3-0.6B"


def test_the_template_trained_with_and_the_generation_settings_travel_along(
    checkpoint: Path, tmp_path: Path
) -> None:
    base = causal_base(tmp_path / "base")
    GenerationConfig(do_sample=True, temperature=0.7, eos_token_id=256).save_pretrained(base)
    to = tmp_path / "out"
    export(checkpoint, spec(base), "causal", to, merge=False, card=CARD, chat_template=TEMPLATE)

    assert AutoTokenizer.from_pretrained(to).chat_template == TEMPLATE
    assert GenerationConfig.from_pretrained(to).temperature == 0.7


def chosen(folder: Path) -> Template:
    return choose_template(AutoTokenizer.from_pretrained(folder), None)


def test_a_template_file_of_any_name_is_exported_as_its_text(
    base: Path, checkpoint: Path, tmp_path: Path
) -> None:
    (tmp_path / "chat.txt").write_text(TEMPLATE, encoding="utf-8")
    to = tmp_path / "out"
    export(
        checkpoint, spec(base), "causal", to, merge=False, card=CARD,
        chat_template="chat.txt", working_folder=tmp_path,
    )  # fmt: skip
    assert AutoTokenizer.from_pretrained(to).chat_template == TEMPLATE

    (tmp_path / "chat.txt").unlink()
    with pytest.raises(SpecError, match="readable file"):
        export(
            checkpoint, spec(base), "causal", tmp_path / "late", merge=False, card=CARD,
            chat_template="chat.txt", working_folder=tmp_path,
        )  # fmt: skip
    assert not (tmp_path / "late").exists()


@pytest.fixture
def family_base(tmp_path: Path) -> Path:
    """A base without a template whose vocabulary looks like Qwen's."""
    base = causal_base(tmp_path / "family", vocab_size=260)
    tokenizer = byte_tokenizer()
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|im_start|>", "<|im_end|>"]})
    tokenizer.save_pretrained(base)
    return base


@pytest.fixture
def family_checkpoint(family_base: Path, tmp_path: Path) -> Path:
    model = AutoModelForCausalLM.from_pretrained(family_base)
    return adapter_checkpoint(tmp_path / "checkpoint", model, "CAUSAL_LM")


def test_a_template_that_training_took_from_trl_is_exported(
    family_base: Path, family_checkpoint: Path, tmp_path: Path
) -> None:
    to = tmp_path / "out"
    export(family_checkpoint, spec(family_base), "causal", to, merge=False, card=CARD)
    wanted = chosen(family_base)
    assert wanted.source == "trl"
    assert AutoTokenizer.from_pretrained(to).chat_template == wanted.text


def test_a_model_trained_on_plain_text_stays_one_through_exports(
    family_base: Path, family_checkpoint: Path, tmp_path: Path
) -> None:
    first, second, third = tmp_path / "first", tmp_path / "second", tmp_path / "third"
    export(
        family_checkpoint, spec(family_base), "causal", first, merge=True, card=CARD,
        chat_template="none",
    )  # fmt: skip
    assert AutoTokenizer.from_pretrained(first).chat_template is None
    assert chosen(first).source == "none"

    # The export is the next sweep's base: with nothing said it stays plain, with a template not.
    export(family_checkpoint, spec(first), "causal", second, merge=True, card=CARD)
    assert chosen(second).source == "none"
    export(
        family_checkpoint, spec(first), "causal", third, merge=True, card=CARD,
        chat_template=TEMPLATE,
    )  # fmt: skip
    assert chosen(third).text == TEMPLATE


def test_plain_text_survives_a_base_that_has_a_template(
    base: Path, checkpoint: Path, tmp_path: Path
) -> None:
    with_template = causal_base(tmp_path / "base")
    byte_tokenizer(TEMPLATE).save_pretrained(with_template)
    to = tmp_path / "out"
    export(
        checkpoint, spec(with_template), "causal", to, merge=False, card=CARD, chat_template="none"
    )
    assert chosen(to).text is None


def test_a_tokenizer_with_other_tokens_than_trainings_is_not_exported(
    base: Path, checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lose(tokenizer: PreTrainedTokenizerFast, template: Template) -> None:
        tokenizer.chat_template = None

    monkeypatch.setattr("easyds_tune.deploy.export.set_template", lose)
    with pytest.raises(ExportError, match="the tokens that training saw"):
        export(
            checkpoint, spec(base), "causal", tmp_path / "out", merge=False, card=CARD,
            chat_template=TEMPLATE,
        )  # fmt: skip
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("merge", [False, True])
def test_a_reward_model_keeps_its_head(base: Path, tmp_path: Path, merge: bool) -> None:
    trained = adapter_checkpoint(tmp_path / "checkpoint", reward_model(base), "SEQ_CLS")
    wanted = logits(PeftModel.from_pretrained(reward_model(base), trained))
    to = tmp_path / "out"
    export(trained, spec(base), "reward", to, merge=merge, card=CARD)

    if merge:
        loaded = AutoModelForSequenceClassification.from_pretrained(to)
    else:
        loaded = PeftModel.from_pretrained(reward_model(base), to)
    assert wanted.shape == (1, 1)
    torch.testing.assert_close(logits(loaded), wanted, atol=1e-4, rtol=0)


def test_a_merged_reward_model_scores_a_padded_batch(base: Path, tmp_path: Path) -> None:
    trained = adapter_checkpoint(tmp_path / "checkpoint", reward_model(base), "SEQ_CLS")
    export(trained, spec(base), "reward", tmp_path / "out", merge=True, card=CARD)

    loaded = AutoModelForSequenceClassification.from_pretrained(tmp_path / "out").eval()
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out")
    texts = ["short", "a longer text"]
    batch = tokenizer(texts, return_tensors="pt", padding=True)
    together = loaded(**batch).logits
    alone = torch.cat([loaded(**tokenizer(text, return_tensors="pt")).logits for text in texts])
    torch.testing.assert_close(together, alone, atol=1e-4, rtol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_model_trained_whole_is_copied(tmp_path: Path, dtype: torch.dtype) -> None:
    base = causal_base(tmp_path / "base", dtype)
    model = AutoModelForCausalLM.from_pretrained(base)
    with torch.no_grad():
        model.model.norm.weight += 0.5
    trained = checkpoint_of(tmp_path / "checkpoint", model)
    report = export(trained, spec(base), "causal", tmp_path / "out", merge=True, card=CARD)

    assert (report.form, report.largest_difference) == ("full", 0)
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    assert loaded.dtype == dtype
    assert torch.equal(logits(loaded), logits(model))


def test_a_bfloat16_base_is_merged_into_bfloat16(tmp_path: Path) -> None:
    base = causal_base(tmp_path / "base", torch.bfloat16)
    model = AutoModelForCausalLM.from_pretrained(base)
    trained = adapter_checkpoint(tmp_path / "checkpoint", model, "CAUSAL_LM")
    report = export(trained, spec(base), "causal", tmp_path / "out", merge=True, card=CARD)

    assert report.dtype == "bfloat16"
    assert 0 < report.largest_difference <= report.tolerance
    wide = spec(base, dtype="float32")
    report = export(trained, wide, "causal", tmp_path / "wide", merge=True, card=CARD)
    assert report.dtype == "float32"
    assert report.largest_difference < 1e-4


def test_an_adapter_that_rounding_would_swallow_is_not_merged(tmp_path: Path) -> None:
    base = causal_base(tmp_path / "base", torch.bfloat16)
    model = AutoModelForCausalLM.from_pretrained(base)
    trained = adapter_checkpoint(tmp_path / "checkpoint", model, "CAUSAL_LM", size=1e-5)

    with pytest.raises(ExportError, match="export the adapter without --merge"):
        export(trained, spec(base), "causal", tmp_path / "out", merge=True, card=CARD)
    assert not (tmp_path / "out").exists()
    export(trained, spec(base), "causal", tmp_path / "out", merge=False, card=CARD)


def test_weights_drawn_at_random_beside_the_adapter_are_noticed(tmp_path: Path) -> None:
    """Our trials save an encoder's fresh pooler with the adapter; one from elsewhere may not."""
    base = encoder_base(tmp_path / "base")
    with torch.random.fork_rng():
        torch.manual_seed(0)  # as easyds_tune.models.load draws fresh heads
        model = AutoModelForSequenceClassification.from_pretrained(base, num_labels=1)
    trained = adapter_checkpoint(tmp_path / "checkpoint", model, "SEQ_CLS")

    with pytest.raises(ExportError, match="nothing was kept"):
        export(trained, spec(base), "reward", tmp_path / "out", merge=False, card=CARD)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["base", "checkpoint"]
    report = export(trained, spec(base), "reward", tmp_path / "out", merge=True, card=CARD)
    assert report.largest_difference <= report.tolerance


def test_an_adapter_of_another_model_is_refused_and_leaves_nothing(
    checkpoint: Path, tmp_path: Path
) -> None:
    wider = causal_base(tmp_path / "wider", hidden_size=64)
    shallower = causal_base(tmp_path / "shallower", num_hidden_layers=1)
    to = tmp_path / "new" / "folder" / "out"
    for other in (wider, shallower):
        with pytest.raises(ExportError, match="does not fit its base"):
            export(checkpoint, spec(other), "causal", to, merge=False, card=CARD)
    assert not (tmp_path / "new").exists()


def test_weights_that_are_not_finite_are_never_exported(base: Path, tmp_path: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(base)
    trained = adapter_checkpoint(tmp_path / "checkpoint", model, "CAUSAL_LM", size=float("nan"))
    with pytest.raises(ExportError):
        export(trained, spec(base), "causal", tmp_path / "out", merge=False, card=CARD)
    assert not (tmp_path / "out").exists()


def test_a_damaged_checkpoint_is_refused_before_anything_is_written(
    base: Path, tmp_path: Path
) -> None:
    model = AutoModelForCausalLM.from_pretrained(base)
    trained = adapter_checkpoint(tmp_path / "checkpoint", model, "CAUSAL_LM")
    weights = trained / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])

    with pytest.raises(CheckpointError):
        export(trained, spec(base), "causal", tmp_path / "out", merge=False, card=CARD)
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint"]


def test_an_occupied_target_is_refused_and_left_alone(
    base: Path, checkpoint: Path, tmp_path: Path
) -> None:
    kept = tmp_path / "out" / "mine.txt"
    kept.parent.mkdir()
    kept.write_text("mine", encoding="utf-8")
    for to, what in ((kept.parent, "is not empty"), (kept, "is a file")):
        with pytest.raises(SpecError, match=what) as refusal:
            export(checkpoint, spec(base), "causal", to, merge=False, card=CARD)
        assert refusal.value.exit_code == 2
    assert kept.read_text(encoding="utf-8") == "mine"


def test_an_empty_folder_may_be_the_target_and_what_a_killed_export_left_is_deleted(
    base: Path, checkpoint: Path, tmp_path: Path
) -> None:
    (tmp_path / "out").mkdir()
    head, _, _ = draft_of(tmp_path / "out").name.rpartition("-")
    left = tmp_path / f"{head}-1-abcdefgh.tmp"  # of a process that had this one's number before
    left.mkdir()
    (left / "model.safetensors").write_bytes(b"half")
    report = export(checkpoint, spec(base), "causal", tmp_path / "out", merge=False, card=CARD)
    assert report.folder == tmp_path / "out"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_the_tokenizer_round_trips(base: Path, checkpoint: Path, tmp_path: Path) -> None:
    export(checkpoint, spec(base), "causal", tmp_path / "out", merge=False, card=CARD)
    loaded = AutoTokenizer.from_pretrained(tmp_path / "out")
    text = "栈和队列有什么区别？"
    assert loaded(text)["input_ids"] == byte_tokenizer()(text)["input_ids"]
    assert loaded.decode(loaded(text)["input_ids"]) == text


@pytest.mark.skipif(not BUNDLED.is_dir(), reason="data/models/tiny-tutor is not there")
@pytest.mark.parametrize("merge", [False, True])
def test_the_bundled_model_exports(tmp_path: Path, merge: bool) -> None:
    model = AutoModelForCausalLM.from_pretrained(BUNDLED)
    trained = adapter_checkpoint(tmp_path / "checkpoint", model, "CAUSAL_LM", size=0.02)
    report = export(trained, spec(BUNDLED), "causal", tmp_path / "out", merge=merge, card=CARD)
    assert report.largest_difference <= report.tolerance
    assert AutoTokenizer.from_pretrained(tmp_path / "out").chat_template


@pytest.fixture(scope="module")
def sft(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An adapter to start from, whose chats look other than the base's."""
    return sft_adapter(tmp_path_factory.mktemp("sft") / "export", base, template=TEMPLATE)


def stacked_checkpoint(base: Path, sft: Path, folder: Path) -> tuple[Path, torch.Tensor]:
    """A checkpoint of a policy that started from an adapter, and the live policy's logits."""
    fresh = spec(base, lora_r=4, lora_alpha=8, lora_target_modules=["q_proj", "o_proj"])
    policy = with_policy_adapter(AutoModelForCausalLM.from_pretrained(base), fresh, sft)
    moved(policy, 0.1)
    written = write_checkpoint(folder, "003", 30, lambda to: save_adapter(policy, to))
    return written.path, logits(policy)


@pytest.mark.parametrize("merge", [False, True])
def test_a_policy_that_started_from_an_adapter_stands_on_the_plain_base(
    base: Path, sft: Path, tmp_path: Path, merge: bool
) -> None:
    trained, wanted = stacked_checkpoint(base, sft, tmp_path / "checkpoint")
    to = tmp_path / "out"
    report = export(trained, spec(sft), "causal", to, merge=merge, card=CARD)

    assert report.form == ("merged" if merge else "adapter")
    plain = AutoModelForCausalLM.from_pretrained(to if merge else base)
    loaded = plain if merge else PeftModel.from_pretrained(plain, to)
    torch.testing.assert_close(logits(loaded), wanted, atol=1e-4 if merge else 5e-5, rtol=0)
    start = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), sft)
    assert (wanted - logits(start)).abs().max() > 0.1
    assert chosen(to).text == TEMPLATE
    card = (to / "README.md").read_text(encoding="utf-8")
    assert f"base_model: {base}" in card
    assert f"| Started from | the adapter {sft}, held in these weights |" in card
    if not merge:
        config = json.loads((to / "adapter_config.json").read_text(encoding="utf-8"))
        assert config["base_model_name_or_path"] == str(base)
        assert (config["r"], config["lora_alpha"]) == (7, 7)


def test_an_export_of_a_stacked_policy_is_a_start_again(
    base: Path, sft: Path, tmp_path: Path
) -> None:
    trained, wanted = stacked_checkpoint(base, sft, tmp_path / "checkpoint")
    export(trained, spec(sft), "causal", tmp_path / "first", merge=False, card=CARD)
    start = start_of(spec(tmp_path / "first"))
    assert start.base.model_name_or_path == str(base)
    policy = with_policy_adapter(
        AutoModelForCausalLM.from_pretrained(base), start.base, start.adapter
    )
    torch.testing.assert_close(logits(policy), wanted, atol=5e-5, rtol=0)


def test_a_start_that_lost_its_base_is_not_exported(
    base: Path, sft: Path, checkpoint: Path, tmp_path: Path
) -> None:
    lost = sft_adapter(tmp_path / "lost", base)
    edit_config(lost, base_model_name_or_path=str(tmp_path / "gone"))
    with pytest.raises(ModelError, match="gone does not load"):
        export(checkpoint, spec(lost), "causal", tmp_path / "out", merge=False, card=CARD)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("merge", [False, True])
def test_nothing_that_could_run_code_is_handed_over(
    base: Path, tmp_path: Path, merge: bool, trained_logits: torch.Tensor
) -> None:
    """Whatever lies among a checkpoint's weights, and listed in its manifest."""

    def save(unfinished: Path) -> None:
        for path in whole.iterdir():
            if path.is_file() and path.name != "manifest.json":
                shutil.copyfile(path, unfinished / path.name)
        for name in ("pytorch_model.bin", "adapter_model.safetensors.pkl", "optimizer.pt"):
            torch.save({"a": 1}, unfinished / name)
        (unfinished / "trainer").mkdir()
        torch.save({"a": 1}, unfinished / "trainer" / "state.pth")

    model = AutoModelForCausalLM.from_pretrained(base)
    whole = adapter_checkpoint(tmp_path / "whole", model, "CAUSAL_LM")
    checkpoint = write_checkpoint(tmp_path / "checkpoints", "003", 30, save).path
    out = tmp_path / "out"
    report = export(checkpoint, spec(base), "causal", out, merge=merge, card=CARD)
    endings = {path.suffix for path in out.rglob("*")}
    assert endings <= {".safetensors", ".json", ".jinja", ".md"}
    assert ".safetensors" in endings
    assert report.largest_difference <= report.tolerance


def test_a_base_whose_tokenizer_would_bring_a_pickle_is_not_exported(
    base: Path, checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = PreTrainedTokenizerFast.save_pretrained

    def with_a_pickle(self: PreTrainedTokenizerFast, folder: Path) -> None:
        write(self, folder)
        (Path(folder) / "vocab.pkl").write_bytes(b"")

    monkeypatch.setattr(PreTrainedTokenizerFast, "save_pretrained", with_a_pickle)
    with pytest.raises(ExportError, match=r"no pickles, and this one would hold vocab\.pkl"):
        export(checkpoint, spec(base), "causal", tmp_path / "out", merge=False, card=CARD)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("merge", [False, True])
def test_a_checkpoint_without_its_trainer_state_exports_alike(
    base: Path, checkpoint: Path, tmp_path: Path, merge: bool
) -> None:
    bare = tmp_path / "bare" / checkpoint.name
    shutil.copytree(checkpoint, bare)
    drop_trainer_state(bare)
    assert not (bare / "trainer").exists()
    for source, name in ((checkpoint, "one"), (bare, "other")):
        export(source, spec(base), "causal", tmp_path / name, merge=merge, card=CARD)
    (weights,) = (path.name for path in (tmp_path / "one").glob("*.safetensors"))
    assert (tmp_path / "one" / weights).read_bytes() == (tmp_path / "other" / weights).read_bytes()
