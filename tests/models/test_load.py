"""A base loads as asked, its fresh weights always alike, or an error says why not."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from transformers import AutoConfig, AutoModelForSequenceClassification

from easyds_tune.errors import ModelError
from easyds_tune.models.load import (
    context_length,
    load_model,
    load_skeleton,
    load_tokenizer,
    load_with_fresh,
    resolve_dtype,
)
from easyds_tune.spec.model import ModelSpec
from tests.models.small_models import bert, byte_tokenizer, deberta, qwen

CPU = torch.device("cpu")
STORIES = Path(__file__).parents[3] / "shared" / "models" / "stories260k"


def spec(folder: Path, **changes: object) -> ModelSpec:
    return ModelSpec(model_name_or_path=str(folder), **changes)


def test_auto_is_float32_without_a_gpu() -> None:
    assert resolve_dtype("auto", CPU) == torch.float32
    assert resolve_dtype("bfloat16", CPU) == torch.bfloat16


def test_a_language_model_has_no_fresh_weights(tmp_path: Path) -> None:
    model, fresh = load_with_fresh(spec(qwen(tmp_path)), "causal", CPU)
    assert fresh == ()
    assert not model.training
    assert model.dtype == torch.float32
    assert context_length(model) == 512


@pytest.mark.parametrize(
    ("make", "wanted"),
    [
        (qwen, ("score",)),
        (deberta, ("classifier", "pooler.dense")),
        (bert, ("bert.pooler.dense", "classifier")),
    ],
)
def test_what_no_file_holds_is_named_and_drawn_alike(
    tmp_path: Path, make: object, wanted: tuple[str, ...]
) -> None:
    base = spec(make(tmp_path))  # type: ignore[operator]
    torch.manual_seed(1)
    model, fresh = load_with_fresh(base, "reward", CPU)
    torch.manual_seed(2)
    again = load_model(base, "reward", CPU)

    assert fresh == wanted
    assert model.config.num_labels == 1
    for name, weight in again.state_dict().items():
        assert torch.equal(model.state_dict()[name], weight), name
    for name in fresh:
        assert model.get_submodule(name).weight.std() > 0


def test_loading_leaves_the_global_random_state_alone(tmp_path: Path) -> None:
    base = spec(deberta(tmp_path))
    torch.manual_seed(5)
    wanted = torch.rand(3)
    torch.manual_seed(5)
    load_model(base, "reward", CPU)
    assert torch.equal(torch.rand(3), wanted)


def test_the_dtype_of_the_spec_holds(tmp_path: Path) -> None:
    assert load_model(spec(qwen(tmp_path), dtype="bfloat16"), "causal", CPU).dtype == torch.bfloat16


def test_a_skeleton_has_names_and_shapes_but_no_weights(tmp_path: Path) -> None:
    skeleton = load_skeleton(spec(qwen(tmp_path)), "reward")
    assert {weight.device.type for weight in skeleton.parameters()} == {"meta"}
    assert skeleton.score.weight.shape == (1, 32)


def test_a_tilde_is_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    qwen(tmp_path / "models" / "mine")
    monkeypatch.setenv("HOME", str(tmp_path))
    base = spec(Path("~/models/mine"))
    assert load_tokenizer(base.model_name_or_path).eos_token_id == 2
    assert load_skeleton(base, "causal").config.hidden_size == 32
    assert load_model(base, "causal", CPU).config.hidden_size == 32


def test_a_missing_model_is_named(tmp_path: Path) -> None:
    nowhere = tmp_path / "nowhere"
    for load in (
        lambda: load_model(spec(nowhere), "causal", CPU),
        lambda: load_skeleton(spec(nowhere), "causal"),
        lambda: load_tokenizer(str(nowhere)),
    ):
        with pytest.raises(ModelError) as error:
            load()
        (problem,) = error.value.problems
        assert problem.startswith(f"{nowhere}: ")
        assert "does not load" in problem


def test_damaged_weights_are_named(tmp_path: Path) -> None:
    weights = qwen(tmp_path) / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:100])
    with pytest.raises(ModelError, match="does not load"):
        load_model(spec(tmp_path), "causal", CPU)


def test_a_tokenizer_without_an_end_is_refused(tmp_path: Path) -> None:
    tokenizer = byte_tokenizer()
    tokenizer.save_pretrained(tmp_path)
    path = tmp_path / "tokenizer_config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps(config | {"eos_token": None}), encoding="utf-8")
    with pytest.raises(ModelError, match="no eos_token; replies could never end"):
        load_tokenizer(str(tmp_path))


def test_a_tokenizer_without_padding_pads_with_its_end(tmp_path: Path) -> None:
    byte_tokenizer().save_pretrained(tmp_path)
    path = tmp_path / "tokenizer_config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps(config | {"pad_token": None}), encoding="utf-8")
    tokenizer = load_tokenizer(str(tmp_path))
    assert tokenizer.pad_token_id == tokenizer.eos_token_id == 2


@pytest.mark.skipif(not STORIES.is_dir(), reason="../shared/models/stories260k is not there")
def test_a_real_llama_loads() -> None:
    model, fresh = load_with_fresh(spec(STORIES), "causal", CPU)
    assert fresh == ()
    assert load_tokenizer(str(STORIES)).eos_token_id is not None
    assert model(input_ids=torch.tensor([[1, 2, 3]])).logits.isfinite().all()


# ---- positions --------------------------------------------------------------------------------

SMALL = {
    "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2,
    "vocab_size": 40,
}  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "settings", "tokens"),
    [
        ("bert", {"max_position_embeddings": 66}, 66),
        ("roberta", {"max_position_embeddings": 66, "pad_token_id": 1}, 64),
        ("xlm-roberta", {"max_position_embeddings": 66, "pad_token_id": 1}, 64),
        ("camembert", {"max_position_embeddings": 66, "pad_token_id": 1}, 64),
        ("mpnet", {"max_position_embeddings": 66, "pad_token_id": 1}, 64),
        ("roberta", {"max_position_embeddings": 66, "pad_token_id": 0}, 65),
        ("gpt2", {"n_positions": 66}, 66),
        ("opt", {"max_position_embeddings": 66, "ffn_dim": 16, "word_embed_proj_dim": 16}, 66),
        ("mpt", {"max_seq_len": 66, "d_model": 16, "n_heads": 2, "n_layers": 1}, 66),
        ("bloom", {"n_head": 2}, None),
    ],
)
def test_a_model_takes_as_many_tokens_as_it_has_places_for(
    kind: str, settings: dict[str, int], tokens: int | None
) -> None:
    config = AutoConfig.for_model(kind, **SMALL, **settings)
    with torch.device("meta"):
        model = AutoModelForSequenceClassification.from_config(config)
    assert context_length(model) == tokens
