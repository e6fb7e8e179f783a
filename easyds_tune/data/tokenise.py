"""Records to token ids: what TRL's trainers read, and exactly the prompts that generation sees.

A reply's tokens follow its prompt's tokens. Where the tokenizer would merge characters across that
boundary the two are tokenised apart, so a prompt has the same ids in training and in generation.

Without a chat template the text is the messages' contents, each on a new line; a message that ends
in white space brings its own separator. A plain text stays as it is. No torch here.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from itertools import pairwise
from typing import Any, NamedTuple

from easyds_tune.data.records import (
    Conversation,
    Message,
    PlainText,
    PreferencePair,
    Prompt,
    assistant,
    user,
)
from easyds_tune.data.template import Template
from easyds_tune.errors import DataError, ModelError

IGNORED = -100
"""The label that TRL's and Transformers' losses skip."""

Ids = list[int]


class Marked(NamedTuple):
    """A text cut in pieces; `trains[i]` says whether piece i is the assistant's."""

    pieces: list[str]
    trains: list[bool]


class Encoder:
    """Turns records into ids with one tokenizer and one chat template."""

    def __init__(self, tokenizer: Any, template: Template) -> None:
        """Raises ModelError for a tokenizer that has no token to end a reply with."""
        self.tokenizer = tokenizer
        self.template = template
        head, tail = _special_tokens(tokenizer)
        self.markup = self._markup()
        """A chat as the template writes it, with private-use characters as contents."""
        self._reply_start, self._reply_end = self._reply_markup()
        # A template writes its own special tokens, so none are added to its text.
        self._head: Ids = [] if template.text is not None else head
        self._openers = {tokenizer.bos_token_id, tokenizer.cls_token_id}
        eos = tokenizer.eos_token_id
        self._end: Ids = tail or ([] if eos is None else [eos])
        if not self._end:
            raise ModelError(
                [
                    "the tokenizer must have an eos_token, or replies never end; "
                    "set it in its tokenizer_config.json"
                ]
            )
        self._template_ends = self._end[-1] in self._tokenise([self._reply_end])[0]

    # ---- one record -------------------------------------------------------------------------

    def prompt_ids(self, messages: Sequence[Message]) -> Ids:
        """Ids that generation starts from."""
        return self.prompts([messages])[0]

    def conversation(self, record: Conversation | PlainText) -> dict[str, Ids]:
        """`input_ids`, and `labels` that are IGNORED outside of the assistant's replies."""
        return self.conversations([record])[0]

    def pair(self, record: PreferencePair) -> dict[str, Ids]:
        """`prompt_ids`, and `chosen_ids` and `rejected_ids` with their end token."""
        return self.pairs([record])[0]

    def opening_length(self, ids: Ids) -> int:
        """Tokens that open every text (BOS or CLS), which a cut of the beginning keeps."""
        return int(bool(ids) and ids[0] in self._openers)

    @cached_property
    def reply_start_length(self) -> int:
        """Tokens that the template writes between a question and its reply."""
        return len(self._tokenise([self._reply_start])[0])

    def text(self, ids: Ids) -> str:
        """Ids as text, without special tokens."""
        return str(self.tokenizer.decode(ids, skip_special_tokens=True))

    # ---- many records -----------------------------------------------------------------------

    def prompts(self, chats: Sequence[Sequence[Message]]) -> list[Ids]:
        """`prompt_ids` of many chats, in order."""
        texts = self._render(chats, reply_next=True)
        return [self._head_before(ids) + ids for ids in self._tokenise(texts)]

    def conversations(self, records: Sequence[Conversation | PlainText]) -> list[dict[str, Ids]]:
        """`conversation` of many records, in order."""
        chats = [record.messages for record in records if isinstance(record, Conversation)]
        openings = iter(self._render([chat[:-1] for chat in chats], reply_next=True))
        wholes = iter(self._render(chats, reply_next=False))
        marked = [
            Marked([record.text], [True])
            if isinstance(record, PlainText)
            else self._mark(record, next(openings), next(wholes))
            for record in records
        ]
        encoded = []
        for (_, trains), pieces in zip(
            marked, self._pieces([m.pieces for m in marked]), strict=True
        ):
            input_ids = self._head_before(pieces[0])
            labels = [IGNORED] * len(input_ids)
            for ids, trained in zip(self._ended(pieces), trains, strict=True):
                input_ids += ids
                labels += ids if trained else [IGNORED] * len(ids)
            encoded.append({"input_ids": input_ids, "labels": labels})
        return encoded

    def pairs(self, records: Sequence[PreferencePair]) -> list[dict[str, Ids]]:
        """`pair` of many records, in order."""
        openings = self._render([record.prompt for record in records], reply_next=True)
        cuts: list[list[str]] = []
        for replies in ([r.chosen for r in records], [r.rejected for r in records]):
            chats = [
                (*record.prompt, assistant(reply))
                for record, reply in zip(records, replies, strict=True)
            ]
            wholes = self._render(chats, reply_next=False)
            cuts += [
                [opening, self._last_reply(opening, whole, reply)]
                for opening, whole, reply in zip(openings, wholes, replies, strict=True)
            ]
        # Both sides at once, so that each prompt is tokenised once.
        ended = [self._ended(pieces) for pieces in self._pieces(cuts)]
        return [
            {
                "prompt_ids": self._head_before(prompt) + prompt,
                "chosen_ids": chosen,
                "rejected_ids": rejected,
            }
            for (prompt, chosen), (_, rejected) in zip(
                ended[: len(records)], ended[len(records) :], strict=True
            )
        ]

    # ---- text -------------------------------------------------------------------------------

    def _render(self, chats: Sequence[Sequence[Message]], *, reply_next: bool) -> list[str]:
        """Each chat as text; with `reply_next` up to where the assistant's reply begins."""
        if self.template.text is None:
            return [_plain(chat, reply_next=reply_next) for chat in chats]
        if not chats:
            return []
        try:
            texts: list[str] = self.tokenizer.apply_chat_template(
                [list(chat) for chat in chats],
                chat_template=self.template.text,
                tokenize=False,
                add_generation_prompt=reply_next,
            )
            "".join(texts).encode()  # no tokenizer takes half a surrogate pair
        # A template may fail by Jinja's errors, or by those of whatever it computes.
        except Exception as error:
            raise DataError(
                [
                    f"the chat template (from {self.template.source}) refuses a record: "
                    f"{type(error).__name__}: {error!s:.300}; remove such records, or set "
                    "data.chat_template"
                ]
            ) from error
        return texts

    def _markup(self) -> str:
        """A chat whose contents are four private-use characters: all else is the template's."""
        chat = [user("\ue000"), assistant("\ue001"), user("\ue002"), assistant("\ue003")]
        # No template strips these characters, and no text of the markup holds them.
        return "" if self.template.text is None else self._render([chat], reply_next=False)[0]

    def _reply_markup(self) -> tuple[str, str]:
        """What the template writes between a question and its reply, and after a reply."""
        start = self.markup.partition("\ue000")[2].partition("\ue001")[0]
        return start, self.markup.partition("\ue003")[2]

    def _mark(self, record: Conversation, opening: str, whole: str) -> Marked:
        """Cut a rendered conversation at the assistant's replies.

        An earlier reply reaches from its content to the end of its turn, the last one from where
        generation would begin to the end of the text. A reply in `context` is not cut out, so its
        piece does not train, nor does its end token.
        """
        messages = record.messages
        spans = self._earlier_replies(messages[:-1], opening, record.context)
        cuts = [0, *(position for span in spans for position in span), len(opening)]
        pieces = [opening[start:end] for start, end in pairwise(cuts)]
        trains = [n % 2 == 1 for n in range(len(pieces))]
        return Marked(
            [*pieces, self._last_reply(opening, whole, messages[-1]["content"])], [*trains, True]
        )

    def _last_reply(self, opening: str, whole: str, content: str) -> str:
        """What follows the prompt in the rendered chat.

        A template may open a reply otherwise than it asks for one (with an empty thought, say);
        then it is the content and the turn's end, put after the prompt that generation sees.
        """
        if whole.startswith(opening):
            return whole[len(opening) :]
        return content.strip() + self._reply_end

    def _earlier_replies(
        self, messages: Sequence[Message], opening: str, context: Sequence[int]
    ) -> list[tuple[int, int]]:
        """Start and end of each reply in the text of a prompt, those in `context` left off."""
        spans = []
        cursor = 0
        for number, message in enumerate(messages):
            if self.template.text is None:
                cursor = len(_plain(messages[: number + 1], reply_next=False))
                if message["role"] == "assistant" and number not in context:
                    spans.append((cursor - len(message["content"]), cursor))
                continue
            # A template may strip a content; it may also leave a message out.
            content = message["content"].strip()
            is_reply = message["role"] == "assistant"
            markup = self._reply_start if is_reply else ""
            found = opening.find(markup + content, cursor)
            if found < 0:
                continue
            # The end of a turn may also be the beginning of the next reply's markup, so the search
            # goes on after the content.
            cursor = found + len(markup + content)
            if is_reply and number not in context:
                closed = opening.startswith(self._reply_end, cursor)
                end = cursor + len(self._reply_end) if closed else cursor
                spans.append((found + len(markup), end))
        return spans

    # ---- tokens -----------------------------------------------------------------------------

    def _pieces(self, cut_texts: Sequence[list[str]]) -> list[list[Ids]]:
        """Ids of each piece of each text, as tokenised in its context wherever that is possible."""
        # All texts up to each cut go to the tokenizer at once: it is fast in bulk only.
        growing = ["".join(cut[: n + 1]) for cut in cut_texts for n in range(len(cut))]
        encoded = iter(self._tokenise(growing))
        result = []
        for cut in cut_texts:
            before: Ids = []
            pieces = []
            for piece in cut:
                upto = next(encoded)
                if upto[: len(before)] == before:
                    pieces.append(upto[len(before) :])
                else:
                    pieces.append(self._tokenise([piece])[0])
                before = upto
            result.append(pieces)
        return result

    def _tokenise(self, texts: Sequence[str]) -> list[Ids]:
        """Ids of each text, without special tokens of the tokenizer's own; equal texts once."""
        distinct = list(dict.fromkeys(texts))
        if not distinct:
            return []
        if self.tokenizer.is_fast:
            # A third less time than the tokenizer's own call, which also computes offsets.
            backend = self.tokenizer.backend_tokenizer
            backend.no_truncation()
            backend.no_padding()
            encodings = backend.encode_batch_fast(distinct, add_special_tokens=False)
            ids = [encoding.ids for encoding in encodings]
        else:
            ids = self.tokenizer(distinct, add_special_tokens=False, verbose=False)["input_ids"]
        by_text = dict(zip(distinct, ids, strict=True))
        return [by_text[text] for text in texts]

    def _head_before(self, ids: Ids) -> Ids:
        """The tokenizer's own first tokens; none where the text begins with them already."""
        return [] if ids[: len(self._head)] == self._head else list(self._head)

    def _ended(self, pieces: list[Ids]) -> list[Ids]:
        """The pieces with an end token on the last one, unless it ends with one already.

        White space may follow that end, or whatever a template writes there.
        """
        last, end = pieces[-1], self._end[-1]
        if end in last:
            after = last[len(last) - last[::-1].index(end) :]
            if self._template_ends or not self.tokenizer.decode(after).strip():
                return pieces
        return [*pieces[:-1], last + self._end]


def check_room(
    prompts: Sequence[Prompt], encoder: Encoder, max_new_tokens: int, context_length: int
) -> list[str]:
    """One problem for each prompt that leaves no room for `max_new_tokens` in the context."""
    lengths = map(len, encoder.prompts([prompt.messages for prompt in prompts]))
    return [
        f"prompt {number} ({prompt.messages[-1]['content']!r:.40}) must leave room for a reply: "
        f"{length} tokens + max_new_tokens {max_new_tokens} > context {context_length}; "
        "shorten the prompt or lower max_new_tokens"
        for number, (prompt, length) in enumerate(zip(prompts, lengths, strict=True), start=1)
        if length + max_new_tokens > context_length
    ]


def _plain(chat: Sequence[Message], *, reply_next: bool) -> str:
    """Contents on lines of their own, with `reply_next` up to where the reply's line begins."""
    parts = [message["content"] for message in chat]
    *before, last = [part if part[-1:].isspace() else f"{part}\n" for part in parts] or [""]
    return "".join(before) + (last if reply_next else "".join(parts[-1:]))


def _special_tokens(tokenizer: Any) -> tuple[Ids, Ids]:
    """The ids that the tokenizer puts before and after a text of its own accord."""
    bare = tokenizer("a", add_special_tokens=False)["input_ids"]
    dressed = tokenizer("a")["input_ids"]
    for start in range(len(dressed) - len(bare) + 1):
        if dressed[start : start + len(bare)] == bare:
            return dressed[:start], dressed[start + len(bare) :]
    return [], []
