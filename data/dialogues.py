"""The grammar of the demo: how students ask and how a tutor replies, from `curriculum.txt`.

Standard library only, and deterministic given a `random.Random`. `make_data.py` writes the bundled
files with it, `make_models.py` draws more dialogues from it, the tests draw held-out ones.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

CURRICULUM = Path(__file__).with_name("curriculum.txt")
FIELDS = 7

# Who asks, and how each opens the turn; "" is a student who comes straight to the point.
LEVELS: dict[str, tuple[str, ...]] = {
    "零基础": ("我是新手，", "刚学编程，", "零基础求教，", "第一次接触这个，"),
    "上课": ("老师，", "老师您好，", "上课没听懂，", "作业里问到，"),
    "复习": ("复习到这里，", "书上看过一遍，", "又忘了，", "整理笔记时想问，"),
    "备考": ("快考试了，", "考研复习，", "期末要考，", "做真题遇到，"),
    "刷题": ("刷题时遇到，", "准备竞赛，", "写代码卡住了，", "调试时发现，"),
    "面试": ("面试被问到，", "工作中碰到，", "同事问我，", "看源码时想到，"),
    "无": ("",),
}

# What stands behind the question; "{belief}" is the mistaken belief of the knowledge point.
MOODS: dict[str, tuple[str, ...]] = {
    "只问": ("", "", "谢谢。", "请讲讲。", "请老师指点。"),
    "误解": (
        "我觉得{belief}。",
        "我以为{belief}。",
        "是不是{belief}？",
        "我记得{belief}，对吗？",
        "难道不是{belief}？",
        "同学说{belief}。",
    ),
    "卡住": (
        "想了很久没想通。",
        "完全没有头绪。",
        "我画了图还是不懂。",
        "总是弄混。",
        "越看越糊涂。",
    ),
    "求答案": (
        "直接告诉我答案吧。",
        "能直接说结果吗？",
        "只要答案就行。",
        "我赶时间，给个结论。",
        "别绕弯子。",
    ),
    "猜测": ("我只会背结论。", "我猜和次序有关。", "感觉懂了一半。", "好像跟大小有关系。"),
}

# How a tutor takes up the turn before guiding, by the student's mood.
TAKE_UP: dict[str, tuple[str, ...]] = {
    "只问": (
        "这个问题问得好。",
        "我们一起来看。",
        "好，慢慢来。",
        "问到点子上了。",
        "很高兴你问这个。",
    ),
    "误解": (
        "你的想法值得检验。",
        "很多同学也这样想。",
        "先别急着下结论。",
        "这个猜想我们来试试。",
        "敢于猜想很好。",
        "我们用例子验证一下。",
    ),
    "卡住": ("别着急。", "卡住很正常。", "一步一步来。", "换个角度试试。", "没关系，先放松。"),
    "求答案": (
        "答案你自己能找到。",
        "先别急着要答案。",
        "自己推出来记得更牢。",
        "我陪你推一遍。",
        "差一步就到了。",
    ),
    "猜测": (
        "你已经走了一半。",
        "这个方向不错。",
        "说明你在思考。",
        "很好，接着想。",
        "把想法说完整。",
    ),
}
FOR_LEVEL: dict[str, tuple[str, ...]] = {
    "零基础": ("从生活里的例子开始，", "不用懂代码，", "先看最简单的，"),
    "上课": ("回到课上的例子，", "结合今天的课，", "合上书，"),
    "复习": ("别翻书，", "凭记忆，", "换一种记法，"),
    "备考": ("考前弄懂道理更要紧，", "考场上也能推，", "先不背，"),
    "刷题": ("先用小数据，", "在纸上模拟，", "先不写代码，"),
    "面试": ("面试更看重思路，", "用自己的话讲，", "从原理出发，"),
    "无": ("",),
}
LEADS = ("", "", "先", "不妨", "可以先", "试着", "请你", "你来")
ASKS = ("", "", "那么", "你看", "想一想", "说说看", "你发现")

VAGUE = (
    "多看看书，你觉得呢？",
    "这个要靠自己多想，懂了吗？",
    "再想一想，你有什么看法？",
    "书上都有，你看了没有？",
    "这个问题很重要，你说是不是？",
    "认真听课就会了，对不对？",
    "多做几道题就明白了，好吗？",
    "你先自己查一查，可以吗？",
    "这个不难，你怎么看？",
    "慢慢就懂了，还有别的问题吗？",
)
GIVE_OPEN = ("", "", "答案是：", "很简单，", "直接说吧，", "记住：", "结论是：", "告诉你吧，")
GIVE_WRONG = ("你想错了，", "不对，", "错了，")
GIVE_CLOSE = ("", "", "", "背下来就行。", "记住就好。", "考试照写。", "不用多想。")
LEAK_ASK = ("明白了吗？", "对不对？", "懂了吧？", "是这样吧？", "你记住了吗？")


@dataclass(frozen=True, slots=True)
class Point:
    """One knowledge point. `answer_keys`: a reply with any of them has given the answer away."""

    number: int
    topic: str
    kind: str
    questions: tuple[str, ...]
    answer_keys: tuple[str, ...]
    statements: tuple[str, ...]
    hints: tuple[str, ...]
    guiding_questions: tuple[str, ...]
    belief: str


@dataclass(frozen=True, slots=True)
class Turn:
    """One student turn: its text and the combination (point, level, mood) that it was made from."""

    text: str
    point: Point
    level: str
    mood: str


def load_curriculum(path: Path = CURRICULUM) -> list[Point]:
    """The knowledge points in file order; raises ValueError naming each line that breaks a rule."""
    points: list[Point] = []
    problems: list[str] = []
    topic = ""
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        if line.startswith("## "):
            topic = line[3:].strip()
        elif line and not line.startswith("#"):
            fields = line.split("|")
            if len(fields) != FIELDS:
                problems.append(f"line {number}: {FIELDS} fields are needed, got {len(fields)}")
                continue
            kind, *parts, belief = fields
            point = Point(len(points), topic, kind, *(tuple(p.split(";")) for p in parts), belief)
            problems += [f"line {number}: {problem}" for problem in broken_rules(point)]
            points.append(point)
    if problems:
        raise ValueError(f"{path.name}: " + "; ".join(problems))
    return points


def broken_rules(point: Point) -> Iterator[str]:
    """A statement must give the answer; a hint and a guiding question must not."""
    for statement in point.statements:
        if not reveals(statement, point.answer_keys):
            yield f"the answer {statement!r} holds none of {point.answer_keys}"
    for text in (*point.hints, *point.guiding_questions):
        if reveals(text, point.answer_keys):
            yield f"the hint or question {text!r} holds one of {point.answer_keys}"


def reveals(reply: str, answer_keys: Sequence[str]) -> bool:
    """Whether the reply contains one of the phrases that give the answer away."""
    return any(key in reply for key in answer_keys)


def guides(reply: str, answer_keys: Sequence[str]) -> bool:
    """The rule check of the demo: the reply ends by asking, and does not give the answer away.

    It says nothing of whether the hint fits the question: a vague reply passes.
    """
    return reply.rstrip().endswith(("？", "?")) and not reveals(reply, answer_keys)


def held_out_combination(point: Point) -> tuple[str, str]:
    """The (level, mood) in which this point is asked by the judge, and never in training."""
    levels, moods = list(LEVELS), list(MOODS)
    return levels[point.number % len(levels)], moods[(point.number // 2) % len(moods)]


def compose_turn(rng: random.Random, point: Point, level: str, mood: str) -> Turn:
    """What a student of this level and mood says about the point, about 10 to 45 characters."""
    opening = rng.choice(LEVELS[level])
    behind = rng.choice(MOODS[mood]).format(belief=point.belief)
    question = rng.choice(point.questions) + "？"
    # A belief may come before the question as well as after it.
    if mood == "误解" and behind.endswith("。") and rng.random() < 0.4:
        text = f"{opening}{behind}{question}"
    else:
        text = f"{opening}{question}{behind}"
    return Turn(text, point, level, mood)


def training_turn(rng: random.Random, points: Sequence[Point]) -> Turn:
    """A random turn outside the combinations that are kept for the judge."""
    while True:
        point = rng.choice(points)
        level, mood = rng.choice(list(LEVELS)), rng.choice(list(MOODS))
        if (level, mood) != held_out_combination(point):
            return compose_turn(rng, point, level, mood)


def held_out_turn(rng: random.Random, point: Point) -> Turn:
    """A turn in the combination that training never sees for this point."""
    return compose_turn(rng, point, *held_out_combination(point))


def guiding_reply(rng: random.Random, turn: Turn, about: Point | None = None) -> str:
    """Takes the student up, gives a concrete hint and ends with a question; 20 to 60 characters.

    about: the point that the hint belongs to; another than the turn's own makes it off-topic.
    """
    point = about or turn.point
    take_up = rng.choice(TAKE_UP[turn.mood])
    for_level = rng.choice(FOR_LEVEL[turn.level]) if rng.random() < 0.4 else ""
    lead = "" if for_level else rng.choice(LEADS)
    hint = rng.choice(point.hints)
    first, second = rng.sample(point.guiding_questions, 2)
    form = rng.random()
    if form < 0.15:
        return f"{take_up}{first}？{lead}{hint}，再说说{second}？"
    if form < 0.45:
        ask = rng.choice(ASKS)
        return f"{take_up}{for_level}{lead}{hint}。{ask}{'，' if ask else ''}{first}？"
    return f"{take_up}{for_level}{lead}{hint}，{first}？"


def giving_reply(rng: random.Random, turn: Turn) -> str:
    """States the answer outright."""
    wrong = turn.mood == "误解" and rng.random() < 0.5
    opening = rng.choice(GIVE_WRONG if wrong else GIVE_OPEN)
    return f"{opening}{rng.choice(turn.point.statements)}。{rng.choice(GIVE_CLOSE)}"


def leaking_reply(rng: random.Random, turn: Turn) -> str:
    """Begins as a hint, then lets the answer slip."""
    point = turn.point
    take_up = rng.choice(TAKE_UP[turn.mood])
    statement = rng.choice(point.statements)
    if rng.random() < 0.5:
        return f"{take_up}{rng.choice(LEADS)}{rng.choice(point.hints)}，其实{statement}。"
    return f"{take_up}{statement}，{rng.choice(LEAK_ASK)}"


def vague_reply(rng: random.Random, turn: Turn) -> str:
    """Asks something, but helps nobody."""
    take_up = rng.choice(TAKE_UP[turn.mood]) if rng.random() < 0.6 else ""
    return take_up + rng.choice(VAGUE)


def off_topic_reply(rng: random.Random, turn: Turn, points: Sequence[Point]) -> str:
    """Guides well, on another topic."""
    others = [point for point in points if point.topic != turn.point.topic]
    return guiding_reply(rng, turn, about=rng.choice(others))


def broken_reply(rng: random.Random, turn: Turn, points: Sequence[Point]) -> str:
    """Breaks off, says one thing three times, or runs on into another topic's reply."""
    reply = guiding_reply(rng, turn)
    way = rng.random()
    if way < 0.3:
        return reply[: rng.randint(len(reply) // 3, len(reply) - 4)]
    if way < 0.6:
        hint = rng.choice(turn.point.hints)
        return f"{rng.choice(TAKE_UP[turn.mood])}{hint}，{hint}，{hint}。"
    other = off_topic_reply(rng, turn, points)
    return reply[: rng.randint(10, len(reply) - 8)] + other[-rng.randint(8, 15) :]
