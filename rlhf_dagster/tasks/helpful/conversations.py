"""Writing chats between a visitor and a guide, and the guide's last answer."""

import random

from rlhf_dagster.records.chats import Chat, Message
from rlhf_dagster.records.ids import content_hash
from rlhf_dagster.tasks.helpful.situations import Situation, Wanted, situation_of
from rlhf_dagster.tasks.helpful.words import GUIDE_LANGUAGE

WANTED: dict[Wanted, float] = {"known": 0.45, "unknown": 0.25, "harm": 0.3}
"""Shares of what visitors want."""
EARLIER = {"none": 0.4, "greeting": 0.2, "question": 0.4}
"""Shares of what came before the last question, after the system's message."""
FACTS = 2
"""Places that the system's message tells of."""
PEOPLE_S_BEST = 0.75
"""Share of demonstrations that are the best answer; the others are what comes to people's minds."""


def write_chat(rng: random.Random) -> Chat:
    """A system's message with facts, up to one exchange, and a question."""
    places = rng.sample(GUIDE_LANGUAGE.words["place"], FACTS + 1)
    wheres = rng.sample(GUIDE_LANGUAGE.words["where"], FACTS)
    facts = dict(zip(places, wheres, strict=False))
    told = [GUIDE_LANGUAGE.patterns["answer"][0].say({"place": place, "where": facts[place]}) for place in facts]
    system = " ".join([GUIDE_LANGUAGE.draw(rng, "duty", {}), *told])
    wanted = _choose(rng, WANTED)
    asked = places[-1] if wanted == "unknown" else places[0] if wanted == "known" else rng.choice(places)
    before = _earlier(rng, places[1], facts[places[1]])
    kind = "ask_harm" if wanted == "harm" else "ask_again" if len(before) and before[0].content[-1] == "?" else "ask"
    last = GUIDE_LANGUAGE.draw(rng, kind, {"place": asked})
    return Chat((Message("system", system), *before, Message("user", last)))


def best_answer(prompt: str) -> str:
    """The best answer to a chat with this text, always the same; empty where nothing is asked."""
    rng = random.Random(int(content_hash("helpful", "reference", prompt), 16))
    situation = situation_of(prompt)
    kind = {"known": "answer", "unknown": "unsure", "harm": "refuse"}.get(situation.wanted)
    return _say(rng, kind, situation) if kind else ""


def some_answer(rng: random.Random, prompt: str, best: float) -> str:
    """What somebody answers: with probability ``best`` the best, otherwise anything."""
    situation = situation_of(prompt)
    if rng.random() < best:
        answer = best_answer(prompt)
    else:
        answer = _say(rng, rng.choice(("answer", "answer", "unsure", "refuse", "advise", "insult")), situation)
    polite = GUIDE_LANGUAGE.draw(rng, "polite", {}) if rng.random() < 0.15 else ""
    return f"{answer} {polite}".rstrip()


def _earlier(rng: random.Random, place: str, where: str) -> list[Message]:
    way = _choose(rng, EARLIER)
    if way == "none":
        return []
    if way == "greeting":
        said = GUIDE_LANGUAGE.patterns["greet"][1].say({}), GUIDE_LANGUAGE.patterns["polite"][1].say({})
    else:
        said = (
            GUIDE_LANGUAGE.draw(rng, "ask", {"place": place}),
            GUIDE_LANGUAGE.patterns["answer"][0].say({"place": place, "where": where}),
        )
    return [Message("user", said[0]), Message("assistant", said[1])]


def _say(rng: random.Random, kind: str, situation: Situation) -> str:
    """A sentence about what was asked; an answer is right where it can be, otherwise invented."""
    values = {"place": situation.place}
    if situation.harm:
        values["harm"] = situation.harm
    if kind == "answer" and situation.place in situation.facts:
        values["where"] = situation.facts[situation.place]
    return GUIDE_LANGUAGE.draw(rng, kind, values)


def _choose(rng: random.Random, shares: dict) -> str:
    [chosen] = rng.choices(list(shares), list(shares.values()))
    return chosen
