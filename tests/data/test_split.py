from __future__ import annotations

from easyds_tune.data.records import (
    Conversation,
    PlainText,
    PreferencePair,
    Prompt,
    assistant,
    prompt_key,
    prompt_of,
    user,
)
from easyds_tune.data.split import remove_overlap, split_held_out


def pairs(prompts: int, each: int = 1) -> list[PreferencePair]:
    return [
        PreferencePair((user(f"q{n}"),), f"good {k}", "bad")
        for n in range(prompts)
        for k in range(each)
    ]


def test_the_asked_share_of_prompts_is_held_out() -> None:
    train, held = split_held_out(pairs(50), 0.1)
    assert (len(train), len(held)) == (45, 5)
    assert split_held_out(pairs(50), 0.0)[1] == []
    assert len(split_held_out(pairs(3), 0.1)[1]) == 1
    assert len(split_held_out(pairs(1), 0.5)[0]) == 1


def test_pairs_of_one_prompt_stay_together() -> None:
    train, held = split_held_out(pairs(20, each=3), 0.25)
    sides = [{prompt_key(prompt_of(record)) for record in side} for side in (train, held)]
    assert not sides[0] & sides[1]
    assert len(held) == 15


def test_a_conversation_and_what_continues_it_are_on_one_side() -> None:
    chats = []
    for n in range(12):
        turns = (user(f"q{n}"), assistant("a"), user("and then?"), assistant("b"))
        system = {"role": "system", "content": f"s{n}"}
        chats += [Conversation(turns), Conversation(turns[:2]), Conversation((system, *turns))]
    train, held = split_held_out(chats, 0.25)
    assert (len(train), len(held)) == (27, 9)
    assert remove_overlap(train, held) == (held, 0)


def test_a_conversation_that_the_assistant_opens_counts_by_the_users_first_question() -> None:
    chats = [Conversation((assistant("Welcome"), user(f"q{n}"), assistant("a"))) for n in range(10)]
    assert len(split_held_out(chats, 0.3)[1]) == 3


def test_the_split_depends_on_content_and_seed_and_not_on_order() -> None:
    records = pairs(40)
    held = {record.prompt[0]["content"] for record in split_held_out(records, 0.2)[1]}
    again = {record.prompt[0]["content"] for record in split_held_out(records[::-1], 0.2)[1]}
    other = {record.prompt[0]["content"] for record in split_held_out(records, 0.2, seed=1)[1]}
    assert held == again
    assert held != other


def test_judge_prompts_that_training_asks_are_removed_and_counted() -> None:
    chat = Conversation((user("first"), assistant("a"), user("second"), assistant("b")))
    train = [chat, PreferencePair((user("third"),), "x", "y"), PlainText("fourth")]
    prompts = [
        Prompt((user(" ｆirst "),)),
        Prompt((user("first"), assistant("a"), user("second"))),
        Prompt((user("second"),)),
        Prompt((user("third"),)),
        Prompt((user("fourth"),)),
        Prompt((user("fifth"),)),
    ]
    kept, removed = remove_overlap(train, prompts)
    assert kept == [prompts[2], prompts[5]]
    assert removed == 4
