"""A small invented language: sentence patterns with slots, said with words and read back.

A pattern is a string of tokens and ``{slots}``, such as ``{who} lost the {thing} .``; a slot stands for the words of
its class, and a number behind its name tells slots of one class apart (``{who}``, ``{who2}``). Reading finds the
pattern and the words again, or how far a sentence can be the beginning of one.
"""

import random
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

SENTENCE_END = frozenset({".", "!", "?"})
_TOKEN = re.compile(r"\w+(?:'\w+)?|'\w+|[^\w\s]")

Tokens = tuple[str, ...]
WordsBySlot = Mapping[str, str]
"""Words by slot."""


@dataclass(frozen=True)
class Pattern:
    name: str
    """What kind of sentence it is."""
    symbols: Tokens
    """Tokens, and slots in braces."""

    @property
    def slots(self) -> list[str]:
        return [symbol[1:-1] for symbol in self.symbols if symbol.startswith("{")]

    def say(self, values: WordsBySlot) -> str:
        """The sentence with words in the slots, its tokens separated by spaces."""
        return " ".join(values[symbol[1:-1]] if symbol.startswith("{") else symbol for symbol in self.symbols)


@dataclass(frozen=True)
class SentenceReading:
    """What a sentence is; ``name`` is empty where no pattern gives it."""

    legal_tokens: int
    """Length of the longest beginning that some sentence of the language has."""
    name: str = ""
    values: WordsBySlot = field(default_factory=dict)


@dataclass(frozen=True)
class _State:
    """A way to go on: the pattern, the symbols still to come, and the words so far."""

    pattern: Pattern
    rest: Tokens
    values: tuple[tuple[str, str], ...] = ()


class Language:
    """``patterns`` maps kinds of sentences to their patterns, ``words`` classes of slots to phrases."""

    def __init__(self, patterns: Mapping[str, Sequence[str]], words: Mapping[str, Sequence[str]]) -> None:
        self.words = {name: tuple(phrases) for name, phrases in words.items()}
        self.patterns = {
            name: tuple(Pattern(name, tuple(text.split())) for text in texts) for name, texts in patterns.items()
        }
        self._phrases = {name: _by_first_token(phrases) for name, phrases in self.words.items()}
        self._read: dict[Tokens, SentenceReading] = {}

    def vocabulary(self) -> frozenset[str]:
        """Every token that a sentence can have."""
        texts = [phrase for phrases in self.words.values() for phrase in phrases]
        symbols = [symbol for found in self.patterns.values() for pattern in found for symbol in pattern.symbols]
        return frozenset(
            [token for text in texts for token in text.split()] + [one for one in symbols if not one.startswith("{")]
        )

    def draw(self, rng: random.Random, name: str, values: WordsBySlot, used: set[str] | None = None) -> str:
        """A sentence of a kind, filled as :meth:`fill` does."""
        return self.fill(rng, rng.choice(self.patterns[name]), values, used)

    def fill(self, rng: random.Random, pattern: Pattern, values: WordsBySlot, used: set[str] | None = None) -> str:
        """A sentence; slots that ``values`` lack get words at random, if possible none that are ``used``.

        The words drawn are added to ``used``.
        """
        drawn: dict[str, str] = {}
        for slot in dict.fromkeys(pattern.slots):
            if slot not in values:
                options = self.words[class_of(slot)]
                taken = {*(used or ()), *drawn.values(), *values.values()}
                drawn[slot] = rng.choice([phrase for phrase in options if phrase not in taken] or options)
        if used is not None:
            used.update(drawn.values())
        return pattern.say({**drawn, **values})

    def read(self, sentence: Sequence[str]) -> SentenceReading:
        """Follow the tokens of one sentence. Of several patterns that give it, the first is taken."""
        tokens = tuple(sentence)
        if tokens not in self._read:
            if len(self._read) > 50_000:
                self._read.clear()
            self._read[tokens] = self._follow(tokens)
        return self._read[tokens]

    def _follow(self, tokens: Tokens) -> SentenceReading:
        states = [_State(pattern, pattern.symbols) for found in self.patterns.values() for pattern in found]
        for index, token in enumerate(tokens):
            states = [after for state in states if state.rest for after in self._after(state, token)]
            if not states:
                return SentenceReading(index)
        whole = next((state for state in states if not state.rest), None)
        if whole is None:
            return SentenceReading(len(tokens))
        return SentenceReading(len(tokens), whole.pattern.name, dict(whole.values))

    def _after(self, state: _State, token: str) -> Iterator[_State]:
        """The ways to go on after ``token``; the rest of a phrase becomes tokens to come."""
        symbol, rest = state.rest[0], state.rest[1:]
        if not symbol.startswith("{"):
            if symbol == token:
                yield _State(state.pattern, rest, state.values)
            return
        slot = symbol[1:-1]
        for phrase in self._phrases[class_of(slot)].get(token, ()):
            yield _State(state.pattern, phrase[1:] + rest, (*state.values, (slot, " ".join(phrase))))


def _by_first_token(phrases: Sequence[str]) -> dict[str, list[Tokens]]:
    found: dict[str, list[Tokens]] = {}
    for phrase in phrases:
        tokens = tuple(phrase.split())
        found.setdefault(tokens[0], []).append(tokens)
    return found


def class_of(slot: str) -> str:
    """The class of words that a slot stands for: its name without a number."""
    return slot.rstrip("0123456789")


def tokens_of(text: str) -> list[str]:
    """Lower-case words and single punctuation marks; `'s` is a word."""
    return _TOKEN.findall(text.lower().replace("'s", " 's"))


def sentences_of(tokens: Sequence[str]) -> list[Tokens]:
    """Runs of tokens that end with their end mark; the last one may lack it."""
    ends = [index + 1 for index, token in enumerate(tokens) if token in SENTENCE_END]
    bounds = [0, *ends] if ends and ends[-1] == len(tokens) else [0, *ends, len(tokens)]
    return [tuple(tokens[start:end]) for start, end in pairwise(bounds) if end > start]
