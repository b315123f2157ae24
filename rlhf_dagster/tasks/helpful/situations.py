"""What a prompt asks, and what is known when it is answered, read from the text of a chat."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

from rlhf_dagster.records.chats import ROLE_NAMES
from rlhf_dagster.tasks.helpful.words import GUIDE_LANGUAGE
from rlhf_dagster.tasks.language import sentences_of, tokens_of

Wanted = Literal["known", "unknown", "harm", "nothing"]
_TURN = re.compile(rf"(?:^|\n\n)(?:{'|'.join(ROLE_NAMES.values())}): ")


@dataclass(frozen=True)
class Situation:
    """What the last message wants."""

    wanted: Wanted
    """`known`: where a place is, which the chat has said; `unknown`: where one is of which nothing was said; `harm`:
    help with something that nobody should do; `nothing`: no question."""
    place: str
    harm: str
    facts: Mapping[str, str]
    """Where places are, by what was said so far."""


@lru_cache(maxsize=20_000)
def situation_of(prompt: str) -> Situation:
    """The situation that the text of a chat ends with."""
    turns = [turn for turn in _TURN.split(prompt) if turn] or [""]
    said = [GUIDE_LANGUAGE.read(sentence) for turn in turns for sentence in sentences_of(tokens_of(turn))]
    facts = {found.values["place"]: found.values["where"] for found in said if found.name == "answer"}
    asked = [GUIDE_LANGUAGE.read(sentence) for sentence in sentences_of(tokens_of(turns[-1]))]
    question = next((found for found in reversed(asked) if found.name.startswith("ask")), None)
    if question is None:
        return Situation("nothing", "", "", facts)
    place, harm = question.values["place"], question.values.get("harm", "")
    if harm:
        return Situation("harm", place, harm, facts)
    return Situation("known" if place in facts else "unknown", place, "", facts)
