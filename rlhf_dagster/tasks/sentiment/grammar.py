"""The grammar of the reviews: sentence patterns with slots, and sampling a sentence from it.

A pattern is a string of tokens and ``{slots}``. A slot is filled with words or by a rule that names other slots; no
rule is recursive and none is empty. In a polar pattern ``{+slot}`` has the pattern's own polarity and ``{-slot}`` the
opposite one: each pattern is written once and serves both polarities, which mirror each other.
"""

import random
from collections.abc import Sequence
from functools import cache

from rlhf_dagster.tasks.sentiment.vocabulary import (
    COMMON,
    DOMAINS,
    FUNCTION_WORDS,
    NEGATIVE,
    NEGATIVE_COMPANY,
    POSITIVE,
    POSITIVE_COMPANY,
    Domain,
)

Symbols = tuple[str, ...]
"""Tokens and slots; a slot keeps its braces."""

DOMAIN_BY_NAME = {domain.name: domain for domain in DOMAINS}
SENTENCE_ENDS = frozenset({".", "!", "?"})

POLAR_PATTERNS = (
    "the {aspect} was {+adj} .",
    "the {aspect} was {+adj} and {+adj} .",
    "{+comment} , the {aspects} were {+adj} .",
    "the {person} was {+adj} and the {aspects} were {+adj} .",
    "i thought that the {aspect} was {+adj} and {+weak_adj} .",
    "{friend} said that the {aspects} were {+adj} .",
    "it was a {+adj} {thing} with {+adj} {aspects} .",
    "we {+verb} the {+adj} {aspect} and the {aspects} .",
    "{friend} {+verb} the {aspect} from the first minute and {+reaction} .",
    "what a {+adj} {thing} !",
    "the {aspect} was {+adj} , and i {+verb} the {aspects} .",
    "the {aspect} was not {-weak_adj} at all , so we {+reaction} .",
    "the {aspects} were hardly {-weak_adj} .",
    "there was nothing {-weak_adj} about the {aspect} .",
    "{friend} never {-weak_verb} the {aspects} .",
    "{friend} was {+feeling} with the {+adj} {aspect} .",
    "this {thing} was a {+adj} {+noun} {whole} .",
    "the {aspect} was so {+adj} that we {+reaction} .",
    "{+comment} , the {aspects} were {+manner} {made} .",
    "we left {+feeling} and talked about the {+adj} {aspect} .",
    "the {aspect} , the {aspects} and the {person} were {+adj} .",
    "the {+adj} {person} left us {+feeling} , and we {+reaction} .",
    "in the end we were {+feeling} with the {+adj} {aspects} .",
    "{+comment} , {friend} called the {thing} a {+noun} .",
    "even the {aspect} was {+adj} , which {friend} {+verb} .",
)
POSITIVE_PATTERNS = (
    "i would recommend this {thing} to {friend} .",
    "the {aspect} was worth the {cost} .",
    "we found no {fault} with the {aspect} .",
)
NEGATIVE_PATTERNS = (
    "i would not recommend this {thing} to {friend} .",
    "the {aspect} was a waste of {cost} .",
    "we found a {fault} with the {aspect} .",
)
MIXED_PATTERNS = (
    "the {aspect} was {+adj} , but the {aspects} were {-adj} .",
    "i {+verb} the {aspect} , but {friend} {-verb} it .",
    "although the {aspects} were {+adj} , the {person} was {-adj} .",
    "{friend} {+verb} the {aspects} but not the {aspect} .",
)
FACT_PATTERNS = (
    "we paid {number} euros for it {when} .",
    "we talked about the {thing} on the way home .",
    "{friend} told us about this {thing} {when} .",
    "the {aspect} was {plain} and the {aspects} were {plain} .",
    "there were {number} {plain} {aspects} .",
    "i wrote this review {when} with {friend} .",
    "it rained when we {tried} the {thing} .",
    "{friend} knew the {person} from school .",
)
OPENING_PATTERNS = (
    "we {tried} this {thing} {when} .",
    "{friend} and i {tried} a {plain} {thing} {when} .",
    "we {tried} a {plain} {thing} {when} with {friend} .",
    "after {number} {unit} i finally {tried} this {plain} {thing} .",
    "{friend} {tried} this {plain} {thing} {when} .",
    "this is my review of a {plain} {thing} .",
)
POLAR_OPENING_PATTERNS = (
    "{when} we {tried} a {+adj} {thing} with {friend} .",
    "this was a {+adj} {thing} .",
    "{friend} and i {+verb} this {plain} {thing} {when} .",
    "{friend} {tried} this {plain} {thing} {when} and {+verb} it .",
)


def _adjective_rule(sign: str) -> tuple[tuple[float, str], ...]:
    weak, strong = "{" + sign + "weak_adj}", "{" + sign + "strong_adj}"
    graded = (2, "{booster} " + weak), (1, "{downtoner} " + weak), (1, "{maximiser} " + strong)
    return ((3, weak), (3, strong), *graded)


RULES: dict[str, tuple[tuple[float, str], ...]] = {
    "when": ((2, "on {day}"), (1, "last {period}"), (1, "in {month}"), (0.5, "this morning")),
    "pos_adj": _adjective_rule("pos_"),
    "neg_adj": _adjective_rule("neg_"),
}
"""Slot -> weighted alternatives, each a pattern; a rule comes before words of the same slot."""


def _polar_slots() -> dict[str, tuple[str, ...]]:
    slots = {}
    for sign, words in (("pos_", POSITIVE), ("neg_", NEGATIVE)):
        for slot, (weak, strong) in words.items():
            slots[f"{sign}weak_{slot}"] = tuple(weak.split())
            slots[f"{sign}strong_{slot}"] = tuple(strong.split())
            slots[f"{sign}{slot}"] = (*weak.split(), *strong.split())
    for sign, company in (("pos_", POSITIVE_COMPANY), ("neg_", NEGATIVE_COMPANY)):
        slots |= {sign + slot: fillers for slot, fillers in company.items()}
    return slots


_SHARED_SLOTS = COMMON | _polar_slots()


def _as(polarity: str, patterns: Sequence[str]) -> tuple[str, ...]:
    same, opposite = ("pos_", "neg_") if polarity == "positive" else ("neg_", "pos_")
    return tuple(pattern.replace("{+", "{" + same).replace("{-", "{" + opposite) for pattern in patterns)


_PATTERNS = {
    "opening": OPENING_PATTERNS,
    "positive_opening": _as("positive", POLAR_OPENING_PATTERNS),
    "negative_opening": _as("negative", POLAR_OPENING_PATTERNS),
    "positive": _as("positive", POLAR_PATTERNS) + POSITIVE_PATTERNS,
    "negative": _as("negative", POLAR_PATTERNS) + NEGATIVE_PATTERNS,
    "mixed": _as("positive", MIXED_PATTERNS) + _as("negative", MIXED_PATTERNS),
    "fact": FACT_PATTERNS,
}
KINDS = tuple(_PATTERNS)


@cache
def patterns(domain: str, kind: str) -> tuple[Symbols, ...]:
    """The sentence patterns of one kind (one of :data:`KINDS`) in one domain."""
    own = DOMAIN_BY_NAME[domain].facts if kind == "fact" else ()
    # A domain's own facts count twice: there are few of them and they are what makes it a domain.
    return tuple(tuple(pattern.split()) for pattern in _PATTERNS[kind] + own * 2)


@cache
def alternatives(domain: str, slot: str) -> tuple[tuple[Symbols, ...], tuple[float, ...]]:
    """What may stand in a slot, with relative frequencies."""
    name = slot.strip("{}")
    if name in RULES:
        return tuple(tuple(pattern.split()) for _, pattern in RULES[name]), tuple(weight for weight, _ in RULES[name])
    fillers = DOMAIN_BY_NAME[domain].words.get(name) or _SHARED_SLOTS[name]
    return tuple(tuple(filler.split()) for filler in fillers), (1.0,) * len(fillers)


def is_slot(symbol: str) -> bool:
    return symbol.startswith("{")


def article(word: str) -> str:
    """``a`` or ``an``; the vocabulary has no word whose first letter misleads."""
    return "an" if word[:1] in "aeiou" else "a"


def sample_sentence(rng: random.Random, domain: Domain, kind: str, used: set[str]) -> list[str]:
    """The tokens of one sentence. Words in ``used`` are avoided where there is a choice; the new ones are added."""
    tokens: list[str] = []
    pending = list(reversed(rng.choice(patterns(domain.name, kind))))
    while pending:
        symbol = pending.pop()
        if is_slot(symbol):
            pending.extend(reversed(_choose(rng, domain.name, symbol, used)))
        else:
            tokens.append(symbol)
    for index, following in enumerate(tokens[1:]):
        if tokens[index] == "a":
            tokens[index] = article(following)
    return tokens


def _choose(rng: random.Random, domain: str, slot: str, used: set[str]) -> Symbols:
    options, weights = alternatives(domain, slot)
    choice = rng.choices(options, weights)[0]
    if not used.isdisjoint(choice):
        fresh = [option for option in options if used.isdisjoint(option)]
        choice = rng.choice(fresh) if fresh else choice
    used.update(token for token in choice if not is_slot(token) and token not in FUNCTION_WORDS)
    return choice


@cache
def vocabulary() -> frozenset[str]:
    """Every token that the grammar can produce."""
    tokens = {"an"}
    for domain in DOMAINS:
        pending = [symbol for kind in KINDS for pattern in patterns(domain.name, kind) for symbol in pattern]
        seen: set[str] = set()
        while pending:
            symbol = pending.pop()
            if symbol in seen:
                continue
            seen.add(symbol)
            if is_slot(symbol):
                pending.extend(part for option in alternatives(domain.name, symbol)[0] for part in option)
        tokens |= {symbol for symbol in seen if not is_slot(symbol)}
    return frozenset(tokens)
