"""The descriptive task as the loop sees it."""

import random
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rlhf_dagster.records.ids import split_of
from rlhf_dagster.tasks.descriptive.annotators import KINDS_OF_ONLOOKERS, Onlooker, make_onlookers
from rlhf_dagster.tasks.descriptive.gold import descriptive_score
from rlhf_dagster.tasks.descriptive.words import PLACES, STORY_LANGUAGE
from rlhf_dagster.tasks.drawing import distinct, split_rng

LONGEST_OPENING, SHORTEST_CONTINUATION = 20, 24
"""Tokens of a prompt at most, and of a demonstration's response at least."""
SHARES = (0.2, 0.5, 0.8)
"""Shares of descriptive sentences; each story has one of them, so that some are more descriptive than others."""


class DescriptiveTask:
    """Continue a story; people prefer physically descriptive continuations (Ziegler et al. 2019, section 3.1).

    Texts are lower-case tokens separated by spaces. A prompt is 9 to 20 tokens of one or two sentences, a
    demonstration's response at least 24.
    """

    name = "descriptive"
    settings: Mapping[str, Any] = {}
    """The defaults, which are for texts of this size."""

    def prompts(self, n: int, seed: int, split: str) -> list[str]:
        """``n`` distinct prompts of one split; a longer list begins with the shorter one of the same seed."""
        return distinct(n, (prompt for prompt, _ in _stories("prompts", seed, split)))

    def demonstrations(self, n: int, seed: int, split: str) -> list[tuple[str, str]]:
        """``n`` distinct pairs of prompt and response, as descriptive as stories are on average."""
        return distinct(n, _stories("demonstrations", seed, split))

    def pretraining_text(self, n: int, seed: int, split: str) -> list[str]:
        """``n`` distinct stories."""
        return distinct(n, (" ".join(story) for story in _stories("pretraining_text", seed, split)))

    def gold_score(self, prompt: str, response: str) -> float:
        return descriptive_score(prompt, response)

    @property
    def annotator_kinds(self) -> Sequence[str]:
        return KINDS_OF_ONLOOKERS

    def annotators(self, seed: int) -> list[Onlooker]:
        """Twelve people who were told what a description is."""
        return make_onlookers(KINDS_OF_ONLOOKERS[0], seed)

    def annotators_of_kind(self, kind: str, seed: int) -> list[Onlooker]:
        """Twelve people with clear or with vague instructions."""
        return make_onlookers(kind, seed)


def _stories(purpose: str, seed: int, split: str) -> Iterator[tuple[str, str]]:
    return _endless(split_rng("descriptive", purpose, split, seed), split)


def _endless(rng: random.Random, split: str) -> Iterator[tuple[str, str]]:
    """Endless pairs of a beginning that is in ``split``, and how the story goes on."""
    while True:
        place, used, share = rng.choice(list(PLACES)), set[str](), rng.choice(SHARES)
        opening = STORY_LANGUAGE.draw(rng, f"{place} opening", {}, used)
        if rng.random() < 0.3:
            opening = f"{opening} {_sentence(rng, place, share, used)}"
        if len(opening.split()) > LONGEST_OPENING or split_of(opening, validation=0.1, test=0.1) != split:
            continue
        said: list[str] = []
        while len(" ".join(said).split()) < SHORTEST_CONTINUATION:
            said.append(_sentence(rng, place, share, used))
        yield opening, " ".join(said)


def _sentence(rng: random.Random, place: str, share: float, used: set[str]) -> str:
    kind = "seen" if rng.random() < share else "plain"
    return STORY_LANGUAGE.draw(rng, f"{place} {kind}", {}, used)


DESCRIPTIVE = DescriptiveTask()
