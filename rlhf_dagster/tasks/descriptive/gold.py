"""The gold judge: how physically descriptive a continuation is.

A score is a gently saturating sum over words that name what a sense notices, less for repetition, broken grammar and
leaving the place of the story.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

from rlhf_dagster.tasks.descriptive.words import PLACES, SENSES, STORY_LANGUAGE, STRENGTH_OF
from rlhf_dagster.tasks.language import Tokens, sentences_of, tokens_of
from rlhf_dagster.tasks.scoring import grammar_error, saturate

MIDDLE_OF_STORIES = 2.5
"""Taken from every score, so that an average continuation has about 0."""
BROKEN_SENTENCE = 0.5
"""Weight of what is noticed in a sentence that the grammar cannot produce."""
REPEATED_WORD = 0.25
"""For each sense word or thing said again; a sentence said again counts 1."""
OFF_PLACE = 0.5
"""For each sentence that is about another place."""
_THINGS = {thing: place for place, things in PLACES.items() for thing in things.split()}


@dataclass(frozen=True)
class StoryFeatures:
    """What the gold judge and the simulated annotators see in a continuation."""

    noticed: Mapping[str, float]
    """By sense, the strengths of its words; the second use of a word counts half, the third a quarter."""
    repetition: float
    errors: float
    off_place: int
    """Sentences with a thing of another place than the prompt's."""
    moods: int
    """Words for what people feel, which are no physical description."""


def descriptive_score(prompt: str, response: str) -> float:
    """How descriptive ``response`` is; any strings, higher is better, mostly -5 to 4."""
    seen = story_features(prompt, response)
    value = saturate(sum(seen.noticed.values()))
    return value - seen.repetition - seen.errors - OFF_PLACE * seen.off_place - MIDDLE_OF_STORIES


@lru_cache(maxsize=50_000)
def story_features(prompt: str, response: str) -> StoryFeatures:
    """The features of one continuation; letter case and spacing do not matter."""
    before, said = sentences_of(tokens_of(prompt)), sentences_of(tokens_of(response))
    errors = [grammar_error(len(sentence), STORY_LANGUAGE.read(sentence).legal_tokens) for sentence in said]
    words = Counter(token for sentence in said for token in sentence)
    telling = {word: uses for word, uses in words.items() if word in STRENGTH_OF or word in _THINGS}
    place = next((token for sentence in before for token in sentence if token in PLACES), "")
    return StoryFeatures(
        noticed=_noticed(said, errors),
        repetition=REPEATED_WORD * sum(uses - 1 for uses in telling.values()) + _said_again(before, said),
        errors=sum(errors) if said else grammar_error(1, 0),
        off_place=sum(bool(_places(sentence) - {place}) for sentence in said) if place else 0,
        moods=sum(words[mood] for mood in STORY_LANGUAGE.words["mood"]),
    )


def _noticed(said: list[Tokens], errors: list[float]) -> dict[str, float]:
    uses: Counter[str] = Counter()
    found = dict.fromkeys(SENSES, 0.0)
    for sentence, error in zip(said, errors, strict=True):
        for word in sentence:
            if word in STRENGTH_OF:
                sense, strength = STRENGTH_OF[word]
                found[sense] += strength * 0.5 ** uses[word] * (BROKEN_SENTENCE if error else 1.0)
                uses[word] += 1
    return found


def _said_again(before: list[Tokens], said: list[Tokens]) -> int:
    return len(said) - len(set(said) - set(before))


def _places(sentence: Tokens) -> set[str]:
    return {_THINGS.get(token, token) for token in sentence if token in _THINGS or token in PLACES}
