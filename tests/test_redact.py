"""Keys of any shape go, and what only looks like one stays."""

from __future__ import annotations

import pytest

from easyds_tune.redact import key_problems, redact, without_keys

HUB = "hf_" + "aB3dE5gH7jK9" * 3
OPENAI = "sk-proj-" + "aB3dE5gH7jK9" * 3


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_API_KEY", "0123456789abcdef0123456789abcdef01234567")
    monkeypatch.setenv("MY_PASSWORD", "se cret/\n+")
    monkeypatch.setenv("SOME_TOKEN", "short")
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", "/keys/google.json")
    monkeypatch.setenv("TOKENIZERS_PARALLELISM", "false-but-long")
    monkeypatch.setenv("TOKEN_LIMIT", "1000000000")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("wandb: 0123456789abcdef0123456789abcdef01234567!", "wandb: <WANDB_API_KEY>!"),
        ("tried se cret/\n+ once", "tried <MY_PASSWORD> once"),
        (repr(["se cret/\n+"]), "['<MY_PASSWORD>']"),
        ("?q=se%20cret%2F%0A%2B", "?q=<MY_PASSWORD>"),
        (f"401 for {HUB}", "401 for <HF_TOKEN>"),
        (f"key '{OPENAI}'", "key '<OPENAI_API_KEY>'"),
        ("https://user:pw@hub.example/x", "https://***@hub.example/x"),
        ("https://sometoken@hub.example/x", "https://***@hub.example/x"),
        ("s3://id:secret@bucket/x", "s3://id:***@bucket/x"),
        (
            "https://x.example/a?X-Amz-Signature=abc&Expires=1&access_token=d e",
            "https://x.example/a?X-Amz-Signature=***&Expires=1&access_token=*** e",
        ),
        ("Authorization: Bearer abc123abc123abc123", "Authorization: Bearer ***"),
    ],
)
def test_secrets_go(text: str, shown: str) -> None:
    assert redact(text) == shown


@pytest.mark.parametrize(
    "text",
    [
        "hf_checkpoints/sk-learn-a-long-name-of-a-folder and a short token",
        "/keys/google.json false-but-long 1000000000",
        "git+ssh://git@github.com/a/b https://hub.example/a@b?page=2",
        "basic configuration-of-everything, bearer of good-news-everybody",
        "d" * 40,
    ],
)
def test_what_is_no_secret_stays(text: str) -> None:
    assert redact(text) == text


def test_a_spec_is_told_where_a_key_belongs() -> None:
    raw = {
        "model": {"model_name_or_path": f"https://me:{HUB}@hub.example/m"},
        "data": {"train": ["a.jsonl", "https://me:pw@hub.example/b.jsonl"]},
        "deepspeed": {"wandb": {"api_key": "anything"}},
        "name": "0123456789abcdef0123456789abcdef01234567",
        OPENAI: 1,
    }
    problems = key_problems(raw)
    remove = "remove it and set"
    assert problems == [
        f"model.model_name_or_path: must not hold a key, and this looks like a Hugging Face token; "
        f"{remove} HF_TOKEN in the environment instead",
        "data.train.1: must not hold a key, and this looks like a URL with a password or token; "
        "remove that part and set HF_TOKEN in the environment instead",
        "deepspeed.wandb.api_key: must not be written here, where everyone who reads the results "
        f"would see it; {remove} API_KEY in the environment",
        "name: must not hold a key, and holds the value of WANDB_API_KEY; remove it, "
        "WANDB_API_KEY is read from the environment",
        "<OPENAI_API_KEY>: must not hold a key, and this looks like an OpenAI key; "
        f"{remove} OPENAI_API_KEY in the environment instead",
    ]
    told = str(without_keys(raw)) + str(problems)
    for secret in (HUB, OPENAI, "me:pw", "anything", "0123456789abcdef"):
        assert secret not in told
    assert without_keys(without_keys(raw)) == without_keys(raw)


def test_in_a_spec_a_short_secret_is_no_secret() -> None:
    """A word that stands there by chance: what is read again must be what was written."""
    assert redact("tried se cret/\n+ once", is_spec=True) == "tried se cret/\n+ once"
    assert redact(f"401 for {HUB}", is_spec=True) == "401 for <HF_TOKEN>"
    assert redact("0123456789abcdef0123456789abcdef01234567", is_spec=True) == "<WANDB_API_KEY>"


def test_a_graph_with_circles_is_walked_once() -> None:
    raw: dict[str, object] = {"a": [HUB]}
    raw["b"] = raw
    level: object = [HUB]
    for _ in range(60):  # a billion laughs
        level = [level, level]
    raw["c"] = level
    assert key_problems(raw)[0].startswith("a.0: must not hold a key")
    assert HUB not in str(without_keys(raw)["a"])
