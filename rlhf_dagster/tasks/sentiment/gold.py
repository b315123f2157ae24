"""The gold judge: how good a continuation of a review is, where positive is what people want.

A score is a gently saturating sum of graded sentiment words, less for repetition, broken grammar and leaving the
domain. Negation, degree words and `but` are treated in the way of VADER (Hutto & Gilbert 2014, section 3.3 and its
reference code), with this task's own constants.
"""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

from rlhf_dagster.tasks.scoring import grammar_error, saturate
from rlhf_dagster.tasks.sentiment.grammar import SENTENCE_ENDS
from rlhf_dagster.tasks.sentiment.recogniser import recognise
from rlhf_dagster.tasks.sentiment.vocabulary import DOMAINS, FUNCTION_WORDS, MODIFIERS, NEGATORS, STRENGTHS

NEGATION = -0.74
"""Factor on a negated word (VADER's N_SCALAR): `not bad` is less than `good`."""
NEGATION_WINDOW = 3
"""How many tokens before a sentiment word a negator may stand and still negate it, within the clause."""
AT_ALL = 1.3
"""Factor on a negated word that `at all` follows."""
BEFORE_BUT, AFTER_BUT = 0.75, 1.25
"""What follows `but` weighs more than what precedes it."""
BROKEN = 0.5
"""Weight of sentiment in a sentence that the grammar cannot produce."""
CLAUSE_BREAKS = frozenset({",", "and", "but"}) | SENTENCE_ENDS

REPETITION_WEIGHT, GRAMMAR_WEIGHT, OFF_TOPIC_WEIGHT = 1.0, 1.0, 0.5

_TOKEN = re.compile(r"\w+(?:'\w+)?|[^\w\s]")
_ALL_DOMAINS = frozenset(domain.name for domain in DOMAINS)


@dataclass(frozen=True)
class Features:
    """What the gold judge and the simulated annotators see in a response."""

    sentiment: float
    """Signed, after saturation; 0 is neutral."""
    repetition: float
    """0.25 for each content word said again, 1 for each sentence said again (the prompt's sentences included)."""
    errors: float
    """For each sentence that the grammar cannot produce, 0.5 and 0.12 for each token from the first wrong one on."""
    off_topic: float
    """Sentences that fit no domain the prompt can be about."""
    words: frozenset[str]
    """The content words."""


def gold_score(prompt: str, response: str) -> float:
    """How good ``response`` is as a continuation of ``prompt``; any strings, higher is better, mostly -8 to 5."""
    seen = features(prompt, response)
    penalty = REPETITION_WEIGHT * seen.repetition + GRAMMAR_WEIGHT * seen.errors + OFF_TOPIC_WEIGHT * seen.off_topic
    return seen.sentiment - penalty


@lru_cache(maxsize=50_000)
def features(prompt: str, response: str) -> Features:
    """The features of one response; letter case and spacing do not matter."""
    context, tokens = tokenize(prompt), tokenize(response)
    before, said = split_sentences(context), split_sentences(tokens)
    whole = [_opened(before) + said[0], *said[1:]] if said else []
    readings = [recognise(sentence) for sentence in whole]
    errors = [
        grammar_error(len(sentence), reading.legal_tokens) for sentence, reading in zip(whole, readings, strict=True)
    ]
    topic = _topic(before)
    counts = Counter(token for token in tokens if token[0].isalnum() and token not in FUNCTION_WORDS)
    return Features(
        sentiment=saturate(_sentiment(said, errors)),
        repetition=0.25 * (counts.total() - len(counts)) + _repeated(before, said),
        errors=sum(errors) if said else grammar_error(1, 0),
        off_topic=float(sum(not reading.domains & topic for reading in readings)),
        words=frozenset(counts),
    )


def tokenize(text: str) -> list[str]:
    """Lower-case words and single punctuation marks."""
    return _TOKEN.findall(text.lower())


def split_sentences(tokens: Sequence[str]) -> list[tuple[str, ...]]:
    """Runs of tokens that end with their end mark; the last one may lack it."""
    ends = [index + 1 for index, token in enumerate(tokens) if token in SENTENCE_ENDS]
    bounds = [0, *ends] if ends and ends[-1] == len(tokens) else [0, *ends, len(tokens)]
    return [tuple(tokens[start:end]) for start, end in pairwise(bounds) if end > start]


def sentence_sentiment(sentence: Sequence[str]) -> list[tuple[str, float]]:
    """Each sentiment word of a sentence with its value in context."""
    but = sentence.index("but") if "but" in sentence else None
    values = []
    for index, token in enumerate(sentence):
        if token not in STRENGTHS:
            continue
        value = STRENGTHS[token] * MODIFIERS.get(sentence[index - 1] if index else "", 1.0)
        if _negated(sentence, index):
            value *= NEGATION * (AT_ALL if tuple(sentence[index + 1 : index + 3]) == ("at", "all") else 1.0)
        if but is not None:
            value *= BEFORE_BUT if index < but else AFTER_BUT
        values.append((token, value))
    return values


def _negated(sentence: Sequence[str], index: int) -> bool:
    for token in reversed(sentence[max(0, index - NEGATION_WINDOW) : index]):
        if token in CLAUSE_BREAKS:
            return False
        if token in NEGATORS:
            return True
    return False


def _sentiment(said: Sequence[tuple[str, ...]], errors: Sequence[float]) -> float:
    """Sum over sentences; the second use of a word counts half, the third a quarter, and so on."""
    uses: Counter[str] = Counter()
    total = 0.0
    for sentence, error in zip(said, errors, strict=True):
        for word, value in sentence_sentiment(sentence):
            total += value * 0.5 ** uses[word] * (BROKEN if error else 1.0)
            uses[word] += 1
    return total


def _opened(before: Sequence[tuple[str, ...]]) -> tuple[str, ...]:
    """The sentence within which the prompt stops, for the response to finish; nothing if it cannot be finished."""
    last = before[-1] if before else (".",)
    return () if last[-1] in SENTENCE_ENDS or recognise(last).legal_tokens < len(last) else last


def _repeated(before: Sequence[tuple[str, ...]], said: Sequence[tuple[str, ...]]) -> int:
    return len(said) - len(set(said) - set(before))


def _topic(before: Sequence[tuple[str, ...]]) -> frozenset[str]:
    """Domains that every legal sentence of the prompt can be about; all of them where it does not say."""
    topic = _ALL_DOMAINS
    for sentence in before:
        topic = (topic & recognise(sentence).domains) or topic
    return topic
