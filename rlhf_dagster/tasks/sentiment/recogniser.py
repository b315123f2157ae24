"""How far a sentence follows the grammar, and which domains it can be about.

A top-down parser that keeps all readings at once. A reading is a domain and the symbols still to come; since the
grammar has no recursion the readings stay few, and each step is remembered.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, lru_cache

from rlhf_dagster.tasks.sentiment.grammar import KINDS, Symbols, alternatives, article, is_slot, patterns
from rlhf_dagster.tasks.sentiment.vocabulary import DOMAINS

_Readings = frozenset[tuple[str, Symbols]]


@dataclass(frozen=True)
class Recognition:
    legal_tokens: int
    """Length of the longest beginning that some sentence of the grammar has."""
    domains: frozenset[str]
    """Domains that can produce that beginning."""


def recognise(sentence: Sequence[str]) -> Recognition:
    """Follow the tokens of one sentence; a cut sentence is legal throughout if it can be completed."""
    readings = _start()
    for index, token in enumerate(sentence):
        following = _step(readings, "a" if token == "an" else token)  # noqa: S105
        previous = sentence[index - 1] if index else ""
        if not following or (previous in ("a", "an") and article(token) != previous):
            return Recognition(index, _domains(readings))
        readings = following
    return Recognition(len(sentence), _domains(readings))


@cache
def _start() -> _Readings:
    return frozenset(
        (domain.name, pattern) for domain in DOMAINS for kind in KINDS for pattern in patterns(domain.name, kind)
    )


@lru_cache(maxsize=100_000)
def _step(readings: _Readings, token: str) -> _Readings:
    return frozenset(
        (domain, rest + symbols[1:])
        for domain, symbols in readings
        if symbols
        for rest in _after(domain, symbols[0], token)
    )


@lru_cache(maxsize=100_000)
def _after(domain: str, symbol: str, token: str) -> tuple[Symbols, ...]:
    """What is left of ``symbol`` once it has produced ``token``, in every way it can."""
    if not is_slot(symbol):
        return ((),) if symbol == token else ()
    options, _ = alternatives(domain, symbol)
    return tuple(rest + option[1:] for option in options for rest in _after(domain, option[0], token))


def _domains(readings: _Readings) -> frozenset[str]:
    return frozenset(domain for domain, _ in readings)
