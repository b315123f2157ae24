"""What a text says happened, and how much of it a summary says, leaves out or gets wrong."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

from rlhf_dagster.tasks.language import SentenceReading, Tokens, sentences_of, tokens_of
from rlhf_dagster.tasks.scoring import grammar_error
from rlhf_dagster.tasks.summaries.words import EVENT_SLOTS, MAIN, SUMMARY_LANGUAGE, SYNONYMS, TLDR

Event = Mapping[str, str]
"""Words by slot; what was done is the word of the texts, not that of the summaries."""
UNFINISHED = 0.5
"""Error of a sentence that is right as far as it goes."""
_PLAIN = {synonym: word for word, synonym in SYNONYMS.items()}


@dataclass(frozen=True)
class SummaryFacts:
    """What a judge sees in a summary who reads it beside its text."""

    covered: frozenset[tuple[int, str]]
    """Slots of events that it says rightly: index of the event in the text, and the slot."""
    false: int
    """Slots that it says wrongly, of the event that each sentence fits best; and other sentences that it invents."""
    copied: int
    """Sentences that stand in the text word for word."""
    asides: int
    """Sentences that say nothing about an event."""
    repeated: int
    """Sentences that say nothing new about the events."""
    errors: float
    """:func:`~rlhf_dagster.tasks.scoring.grammar_error` of each sentence, and UNFINISHED for one that lacks its end."""
    tokens: int
    sentences: int


def text_in(prompt: str) -> str:
    """The text in a prompt, without what asks for the summary."""
    return prompt.removesuffix(TLDR).rstrip()


def begins_with_preamble(text: str) -> bool:
    """Whether the first sentence of a text is a preamble, such as `hi all , sorry for the long post .`"""
    sentences = sentences_of(tokens_of(text))
    return bool(sentences) and SUMMARY_LANGUAGE.read(sentences[0]).name == "preamble"


@lru_cache(maxsize=20_000)
def events_of(text: str) -> tuple[Event, ...]:
    """The events of a text, in the order of their main sentences. A detail belongs to the event with its thing."""
    readings = [SUMMARY_LANGUAGE.read(sentence) for sentence in sentences_of(tokens_of(text))]
    events = [dict(reading.values) for reading in readings if reading.name in MAIN]
    for reading in readings:
        for event in events if reading.name.startswith("detail") else []:
            if event["thing"] == reading.values["thing"]:
                event.update(reading.values)
    return tuple(events)


@lru_cache(maxsize=50_000)
def summary_facts(prompt: str, response: str) -> SummaryFacts:
    """Read ``response`` beside the text in ``prompt``; any strings."""
    text = text_in(prompt)
    events, there = events_of(text), set(sentences_of(tokens_of(text)))
    sentences = sentences_of(tokens_of(response))
    readings = [SUMMARY_LANGUAGE.read(sentence) for sentence in sentences]
    covered: set[tuple[int, str]] = set()
    false = asides = repeated = 0
    for sentence, reading in zip(sentences, readings, strict=True):
        right, wrong = _compared(reading, sentence in there, events)
        asides += bool(reading.name) and not right and not wrong
        repeated += bool(right) and right <= covered
        covered |= right
        false += wrong
    return SummaryFacts(
        covered=frozenset(covered),
        false=false,
        copied=sum(sentence in there for sentence in sentences),
        asides=asides,
        repeated=repeated,
        errors=sum(map(_error, sentences, readings)) if sentences else 1.0,
        tokens=sum(map(len, sentences)),
        sentences=len(sentences),
    )


def _compared(reading: SentenceReading, is_copied: bool, events: Sequence[Event]) -> tuple[set[tuple[int, str]], int]:
    """The slots that a sentence says rightly, and how many things it says wrongly."""
    said = {slot: _PLAIN.get(word, word) for slot, word in reading.values.items() if slot in EVENT_SLOTS}
    if not said:
        return set(), int(bool(reading.values) and not is_copied)
    agreeing = [{slot for slot, word in said.items() if event.get(slot) == word} for event in events] or [set()]
    best = max(range(len(agreeing)), key=lambda index: len(agreeing[index]))
    return {(best, slot) for slot in agreeing[best]}, len(said) - len(agreeing[best])


def _error(sentence: Tokens, reading: SentenceReading) -> float:
    return 0.0 if reading.name else grammar_error(len(sentence), reading.legal_tokens) or UNFINISHED
