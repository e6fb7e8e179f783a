"""Take secrets out of text before anyone keeps or shows it. Standard library only."""

from __future__ import annotations

import os
import re
import urllib.parse
from collections.abc import Iterator
from typing import Any

_SECRET_NAME = re.compile(
    r"(^|_)(api_?key|key|token|secret|password|passwd|pat|credentials?)s?(_|$)", re.IGNORECASE
)
"""How the names of environment variables read that hold secrets."""
_SHORTEST, _SHORTEST_IN_SPECS = 8, 16
"""Characters from which the value of such a variable is taken for a secret; a spec is refused only
for a longer one, which is no word that stands there by chance."""

_KEYS = {
    "a Hugging Face token": (r"\bhf_[A-Za-z0-9]{20,}", "HF_TOKEN"),
    "an OpenAI key": (
        r"\bsk-(?=[\w-]*\d)(?=[\w-]*[A-Z])[A-Za-z0-9_-]{20,}",
        "OPENAI_API_KEY",
    ),
    "an Anthropic key": (r"\bsk-ant-[A-Za-z0-9_-]{20,}", "ANTHROPIC_API_KEY"),
    "a Weights & Biases key": (r"\bwandb_v\d_[A-Za-z0-9_]{20,}", "WANDB_API_KEY"),
    "a GitHub token": (r"\b(?:gh[pousr]_[A-Za-z0-9]{20,}|github_pat_\w{20,})", "GITHUB_TOKEN"),
    "a GitLab token": (r"\bglpat-[A-Za-z0-9_-]{20,}", "GITLAB_TOKEN"),
    "an AWS key": (r"\b(?:AKIA|ASIA)[0-9A-Z]{16}\b", "AWS_ACCESS_KEY_ID"),
    "a Google key": (r"\bAIza[A-Za-z0-9_-]{35}", "GOOGLE_API_KEY"),
    "a Slack token": (r"\bxox[abprs]-[A-Za-z0-9-]{10,}", "SLACK_TOKEN"),
}
"""What it is -> its shape, and the environment variable that it belongs into."""
_IN_URLS = {
    # A password, or a token in its place, before the host.
    re.compile(r"(\bhttps?://)[^\s/?#@'\"<>]+@", re.IGNORECASE): r"\1***@",
    re.compile(r"(\b[A-Za-z][A-Za-z0-9+.-]*://[^\s/?#@:'\"<>]*:)[^\s/?#@'\"<>]+@"): r"\1***@",
    # A signature or token among the parameters.
    re.compile(
        r"([?&;][\w.-]*(?:token|key|secret|password|signature|credential|sig)=)[^\s&;#'\"<>]+",
        re.IGNORECASE,
    ): r"\1***",
    re.compile(r"(\b(?:bearer|authorization:\s*basic)\s+)(?=\S*\d)[A-Za-z0-9+/=._~-]{16,}",
               re.IGNORECASE): r"\1***",
}  # fmt: skip
_NAMED = frozenset(
    ("api_key", "apikey", "hub_token", "hf_token", "access_token", "auth_token", "use_auth_token",
     "token", "password", "secret")
)  # fmt: skip
"""Names of settings that hold secrets, where a spec takes any name."""


def redact(text: str, *, is_spec: bool = False) -> str:
    """The text with `<NAME>` for the value of each secret environment variable, and without keys
    of well-known shapes and passwords and signatures in URLs.

    is_spec: what is read again must not change where a short secret is a word of it by chance.
    """
    for name, form in _environment(_SHORTEST_IN_SPECS if is_spec else _SHORTEST):
        text = text.replace(form, f"<{name}>")
    for shape, variable in _KEYS.values():
        text = re.sub(shape, f"<{variable}>", text)
    for pattern, instead in _IN_URLS.items():
        text = pattern.sub(instead, text)
    return text


def key_problems(raw: Any) -> list[str]:
    """What in a spec looks like a key, with where to put it instead; never the key itself."""
    return list(dict.fromkeys(_problems(raw, "", set())))


def without_keys(raw: Any) -> Any:
    """The same mapping, list or text with every text redacted."""
    return _redacted(raw, {})


def _problems(raw: Any, path: str, seen: set[int]) -> Iterator[str]:
    # YAML's aliases make of a file a graph, with circles if it likes.
    if isinstance(raw, str):
        yield from _in_text(raw, path)
    elif id(raw) in seen:
        return
    elif isinstance(raw, dict):
        seen.add(id(raw))
        for key, value in raw.items():
            place = redact(f"{path}.{key}" if path else str(key))
            yield from _in_text(str(key), place)
            if str(key).lower() in _NAMED and isinstance(value, str) and value:
                yield (
                    f"{place}: must not be written here, where everyone who reads the results "
                    f"would see it; remove it and set {str(key).upper()} in the environment"
                )
            else:
                yield from _problems(value, place, seen)
    elif isinstance(raw, list | tuple):
        seen.add(id(raw))
        for number, value in enumerate(raw):
            yield from _problems(value, f"{path}.{number}", seen)


def _redacted(raw: Any, done: dict[int, Any]) -> Any:
    if isinstance(raw, str):
        return redact(raw)
    if id(raw) in done:
        return done[id(raw)]
    if isinstance(raw, dict):
        done[id(raw)] = mapping = {}
        for key, value in raw.items():
            hidden = isinstance(value, str) and str(key).lower() in _NAMED
            mapping[_redacted(key, done)] = "***" if hidden else _redacted(value, done)
        return mapping
    if isinstance(raw, list | tuple):
        done[id(raw)] = items = []
        items += [_redacted(value, done) for value in raw]
        return items
    return raw


def _in_text(text: str, path: str) -> list[str]:
    for name, form in _environment(_SHORTEST_IN_SPECS):
        if form in text:
            return [
                f"{path}: must not hold a key, and holds the value of {name}; remove it, "
                f"{name} is read from the environment"
            ]
    for what, (shape, variable) in _KEYS.items():
        if re.search(shape, text):
            return [
                f"{path}: must not hold a key, and this looks like {what}; remove it and set "
                f"{variable} in the environment instead"
            ]
    if "://" in text and any(pattern.search(text) for pattern in _IN_URLS):
        return [
            f"{path}: must not hold a key, and this looks like a URL with a password or token; "
            "remove that part and set HF_TOKEN in the environment instead"
        ]
    return []


def _environment(shortest: int) -> Iterator[tuple[str, str]]:
    """(name, form) of the secrets in the environment in every form they are written, longest first.

    shortest: characters that a secret has at least. A path is none, since
    GOOGLE_APPLICATION_CREDENTIALS names a file, and neither is a number.
    """
    found = {
        form: name
        for name, value in os.environ.items()
        if len(value) >= shortest and _SECRET_NAME.search(name)
        if not value.startswith("/") and not value.isdigit()
        for form in (value, repr(value)[1:-1], urllib.parse.quote(value, safe=""))
    }
    yield from ((found[form], form) for form in sorted(found, key=len, reverse=True))
