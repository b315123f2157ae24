"""Whole reviews: a domain, an opening, and sentences whose mood is a Markov chain."""

import random
from collections.abc import Iterator

from rlhf_dagster.errors import UserError
from rlhf_dagster.records.ids import split_of
from rlhf_dagster.tasks.drawing import split_rng
from rlhf_dagster.tasks.sentiment.grammar import SENTENCE_ENDS, sample_sentence
from rlhf_dagster.tasks.sentiment.vocabulary import DOMAINS

MIN_PROMPT, MAX_PROMPT = 8, 20
"""Length of a prompt, in tokens."""
MIN_RESPONSE = 24
"""Shortest response of a demonstration, in tokens."""
TEXT_TARGETS = (45, 56)
"""A text ends with the sentence that reaches a length drawn from this range, in tokens."""

MOODS = ("positive", "negative", "mixed")
STAY = 0.7
"""Probability that the next sentence keeps the mood; otherwise it takes one of the two others."""
POLAR_OPENING = 0.4
FACT_SHARE = {"positive": 0.15, "negative": 0.15, "mixed": 0.5}
REPEATED_SENTENCE = 0.1
FOREIGN_SENTENCE = 0.1
"""Shares of raw texts with one sentence said twice, and with one sentence about another domain."""


def prompt_of(text: str) -> str:
    """The prompt that a text begins with: its shortest run of whole sentences with at least 8 tokens.

    Raises :class:`UserError` where that run does not exist or has more than 20 tokens.
    """
    tokens = text.split()
    for index, token in enumerate(tokens[:MAX_PROMPT]):
        if token in SENTENCE_ENDS and index + 1 >= MIN_PROMPT:
            return " ".join(tokens[: index + 1])
    raise UserError(
        f"`{text[:60]}` does not begin with whole sentences of {MIN_PROMPT} to {MAX_PROMPT} tokens; "
        "separate tokens by spaces and end each sentence with its own full stop."
    )


def split_of_prompt(prompt: str) -> str:
    """The split that a prompt, and every text that begins with it, belongs to."""
    return split_of(prompt, validation=0.1, test=0.1)


def stream(purpose: str, seed: int, split: str) -> Iterator["Review"]:
    """Endless reviews whose prompts are in ``split``, each started but not yet written."""
    return _stream(split_rng("sentiment", purpose, split, seed), split)


def _stream(rng: random.Random, split: str) -> Iterator["Review"]:
    while True:
        review = Review(rng)
        if len(review.prompt) <= MAX_PROMPT and split_of_prompt(" ".join(review.prompt)) == split:
            yield review


class Review:
    """A review being written. ``prompt`` and ``response`` are tokens."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._domain = rng.choice(DOMAINS)
        self._mood = rng.choice(MOODS)
        self._used: set[str] = set()
        self._last: list[str] = []
        self.prompt = self._opening()
        while len(self.prompt) < MIN_PROMPT:
            self.prompt += self._sentence()
        self.response: list[str] = []

    def write(self, tokens: int) -> str:
        """Go on in whole sentences until the response has at least ``tokens`` tokens."""
        while len(self.response) < tokens:
            self.response += self._sentence()
        return " ".join(self.response)

    def write_raw(self) -> str:
        """The whole text, unedited: a few repeat a sentence or stray from their domain somewhere after the prompt."""
        target = self._rng.randint(*TEXT_TARGETS) - len(self.prompt)
        accident, position = self._rng.random(), self._rng.randrange(1, target)
        self.write(position)
        if accident < REPEATED_SENTENCE:
            self.response += self._last
        elif accident < REPEATED_SENTENCE + FOREIGN_SENTENCE:
            self.response += sample_sentence(self._rng, self._rng.choice(DOMAINS), self._kind(), self._used)
        self.write(target)
        return " ".join(self.prompt + self.response)

    def _opening(self) -> list[str]:
        polar = self._mood != "mixed" and self._rng.random() < POLAR_OPENING
        return sample_sentence(self._rng, self._domain, f"{self._mood}_opening" if polar else "opening", self._used)

    def _sentence(self) -> list[str]:
        if self._rng.random() >= STAY:
            self._mood = self._rng.choice([mood for mood in MOODS if mood != self._mood])
        self._last = sample_sentence(self._rng, self._domain, self._kind(), self._used)
        return self._last

    def _kind(self) -> str:
        return "fact" if self._rng.random() < FACT_SHARE[self._mood] else self._mood
