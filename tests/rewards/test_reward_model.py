"""A reward model's scores: its own text, its own padding, and refusals that say what to do."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BertConfig,
    BertForSequenceClassification,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen2ForSequenceClassification,
)

from easyds_tune.data.records import PreferencePair, assistant, user
from easyds_tune.data.template import choose_template
from easyds_tune.data.tokenise import Encoder
from easyds_tune.data.training_sets import reward_dataset
from easyds_tune.errors import ModelError
from easyds_tune.rewards.reward_model import RewardModel
from easyds_tune.spec.judge import RewardModelRewardSpec

CPU = torch.device("cpu")
STORIES = Path(__file__).parents[3] / "shared" / "models" / "stories260k"
TEMPLATE = (
    "{% for message in messages %}<{{ message.role }}>{{ message.content }}<end>{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)
SPECIAL = ["<pad>", "<end>", "<user>", "<assistant>", "[CLS]"]
PROMPTS = [
    (user("What is a queue?"),),
    (user("hi"), assistant("Hello."), user("What is 栈?")),
    (user("x"),),
]
REPLIES = ["What would you try first?", "", "It is a last-in first-out list, of course. " * 2]


def byte_tokenizer(
    template: str | None = TEMPLATE, *, encoder: bool = False
) -> PreTrainedTokenizerFast:
    """Bytes and a few special tokens; as an encoder's it puts [CLS] before every text."""
    symbols = [*SPECIAL, *sorted(pre_tokenizers.ByteLevel.alphabet())]
    core = Tokenizer(models.BPE({symbol: n for n, symbol in enumerate(symbols)}, []))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    if encoder:
        core.post_processor = processors.TemplateProcessing(
            single="[CLS] $A <end>", special_tokens=[("[CLS]", 4), ("<end>", 1)]
        )
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        eos_token="<end>",
        pad_token="<pad>",
        cls_token="[CLS]" if encoder else None,
        additional_special_tokens=SPECIAL[2:4],
        chat_template=template,
    )


def config(num_labels: int = 1) -> Qwen2Config:
    return Qwen2Config(
        vocab_size=261,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=256,
        initializer_range=0.3,
        eos_token_id=1,
        pad_token_id=0,
        num_labels=num_labels,
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A reward model as the rm algorithm saves one: weights and tokenizer."""
    folder = tmp_path_factory.mktemp("reward")
    torch.manual_seed(0)
    Qwen2ForSequenceClassification(config()).save_pretrained(folder)
    byte_tokenizer().save_pretrained(folder)
    return folder


def load(folder: Path, max_length: int = 256, **options: int) -> RewardModel:
    spec = RewardModelRewardSpec(model_name_or_path=str(folder), max_length=max_length)
    return RewardModel(spec, CPU, **options)


def test_a_score_is_the_models_output_for_that_text_alone(folder: Path) -> None:
    reward = load(folder)
    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    expected = [
        model(torch.tensor([ids])).logits.item() for ids in reward.input_ids(PROMPTS, REPLIES)
    ]
    scores = reward.score(PROMPTS, REPLIES)
    assert scores.shape == (3,)
    assert scores.dtype == torch.float32
    assert len(set(expected)) == 3
    torch.testing.assert_close(scores, torch.tensor(expected), atol=1e-5, rtol=1e-5)


def test_the_text_is_the_prompt_the_reply_and_the_end_token_in_the_models_template(
    folder: Path,
) -> None:
    (ids,) = load(folder).input_ids(PROMPTS[2:], ["no"])
    assert AutoTokenizer.from_pretrained(folder).decode(ids) == "<user>x<end><assistant>no<end>"


@pytest.mark.parametrize("template", [TEMPLATE, None])
def test_texts_are_put_together_as_the_rm_algorithm_trains_on_them(
    tmp_path: Path, folder: Path, template: str | None
) -> None:
    AutoModelForSequenceClassification.from_pretrained(folder).save_pretrained(tmp_path)
    tokenizer = byte_tokenizer(template)
    tokenizer.save_pretrained(tmp_path)
    pairs = [
        PreferencePair(prompt, reply, "worse")
        for prompt, reply in zip(PROMPTS, REPLIES, strict=True)
    ]
    encoder = Encoder(tokenizer, choose_template(tokenizer, None))
    trained_on = reward_dataset(pairs, encoder).dataset["chosen_ids"]
    assert load(tmp_path).input_ids(PROMPTS, REPLIES) == list(trained_on)


@pytest.mark.skipif(not STORIES.is_dir(), reason=f"no shared model at {STORIES}")
def test_a_policy_of_another_tokenizer_is_scored_on_its_text(tmp_path: Path) -> None:
    own = AutoTokenizer.from_pretrained(STORIES)
    own.pad_token = own.eos_token
    own.save_pretrained(tmp_path)
    model = AutoModelForSequenceClassification.from_pretrained(STORIES, num_labels=1)
    model.config.pad_token_id = own.pad_token_id
    model.save_pretrained(tmp_path)
    reply = "Lily saw a big dog."
    written = byte_tokenizer()(reply)["input_ids"]  # what a policy of bytes writes
    text = byte_tokenizer().decode(written)
    reward = load(tmp_path)
    (read,) = reward.input_ids([(user("Once upon a time"),)], [text])
    assert own.decode(read).endswith(reply + own.eos_token)
    assert max(read) < len(own)
    assert len(read) < len(written)
    assert reward.score([(user("Once upon a time"),)], [text]).isfinite().all()


def test_the_batch_a_text_sits_in_changes_nothing_but_rounding(folder: Path) -> None:
    one, many = (load(folder, batch_size=size).score(PROMPTS, REPLIES) for size in (1, 3))
    torch.testing.assert_close(one, many, atol=1e-5, rtol=1e-5)


def test_a_text_that_is_too_long_loses_its_beginning(folder: Path) -> None:
    whole = load(folder).input_ids(PROMPTS, REPLIES)
    assert load(folder, max_length=20).input_ids(PROMPTS, REPLIES) == [ids[-20:] for ids in whole]


def test_no_more_is_read_than_the_model_has_positions_for(folder: Path) -> None:
    reward = load(folder, max_length=100_000)
    (ids,) = reward.input_ids(PROMPTS[:1], ["long " * 200])
    assert len(ids) == 256
    assert reward.score(PROMPTS[:1], ["long " * 200]).isfinite().all()


def test_an_encoder_keeps_its_first_token_when_the_text_is_cut(tmp_path: Path) -> None:
    byte_tokenizer(None, encoder=True).save_pretrained(tmp_path)
    bert = BertConfig(
        vocab_size=261,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=64,
        num_labels=1,
        pad_token_id=0,
    )
    BertForSequenceClassification(bert).save_pretrained(tmp_path)
    reward = load(tmp_path, max_length=10)
    short, long = reward.input_ids([(user("q"),)] * 2, ["a", "abcdefghijkl"])
    assert short[0] == long[0] == 4
    assert short[-1] == long[-1] == 1
    assert len(short) < len(long) == 10
    assert reward.score([(user("q"),)], ["a"]).shape == (1,)


def test_an_adapter_folder_is_a_reward_model_too(tmp_path: Path) -> None:
    base, adapter = tmp_path / "base", tmp_path / "adapter"
    torch.manual_seed(0)
    Qwen2ForCausalLM(config()).save_pretrained(base)
    byte_tokenizer().save_pretrained(base)
    lora = LoraConfig(r=4, target_modules=["q_proj"], task_type="SEQ_CLS", init_lora_weights=False)
    classifier = AutoModelForSequenceClassification.from_pretrained(base, num_labels=1)
    trained = get_peft_model(classifier, lora).eval()
    trained.save_pretrained(adapter)

    random_state = torch.get_rng_state()
    reward = load(adapter)
    assert torch.equal(torch.get_rng_state(), random_state)
    expected = [
        trained(torch.tensor([ids])).logits.item() for ids in reward.input_ids(PROMPTS, REPLIES)
    ]
    torch.testing.assert_close(
        reward.score(PROMPTS, REPLIES), torch.tensor(expected), atol=1e-5, rtol=1e-5
    )


def test_a_language_models_adapter_is_refused(tmp_path: Path) -> None:
    base, adapter = tmp_path / "base", tmp_path / "adapter"
    Qwen2ForCausalLM(config()).save_pretrained(base)
    model = Qwen2ForCausalLM.from_pretrained(base)
    get_peft_model(model, LoraConfig(task_type="CAUSAL_LM")).save_pretrained(adapter)
    with pytest.raises(ModelError, match="task type SEQ_CLS, got CAUSAL_LM; give one"):
        load(adapter)


def test_a_classifier_with_several_outputs_is_refused(tmp_path: Path) -> None:
    Qwen2ForSequenceClassification(config(num_labels=3)).save_pretrained(tmp_path)
    byte_tokenizer().save_pretrained(tmp_path)
    with pytest.raises(ModelError, match="exactly one output, got 3; give a model"):
        load(tmp_path)


def test_a_language_model_is_refused_since_its_scores_would_be_random(tmp_path: Path) -> None:
    Qwen2ForCausalLM(config()).save_pretrained(tmp_path)
    byte_tokenizer().save_pretrained(tmp_path)
    with pytest.raises(ModelError, match=r"score\.weight would be random; train it"):
        load(tmp_path)


def test_a_tilde_is_the_home_folder(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(folder.parent))
    reward = load(Path("~") / folder.name)
    assert torch.equal(reward.score(PROMPTS, REPLIES), load(folder).score(PROMPTS, REPLIES))


def test_a_missing_folder_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="nowhere: the reward model does not load"):
        load(tmp_path / "nowhere")
