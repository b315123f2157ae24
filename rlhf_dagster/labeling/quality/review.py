"""The rule that says whose work somebody should look at. It decides nothing: filtering is the user's choice."""

from dataclasses import dataclass
from typing import Any

MIN_FOR_REVIEW = 20
"""Fewer judgments than this say too little about a person."""
MIN_MEASURED = 5
"""The same for gold questions and repeats, which are few; their intervals allow for that."""
TOO_FAST = 1 / 3
"""Share of the usual time below which a person's median time is worth a look."""
CONSISTENT = 0.6
"""Share of equal answers to repeated comparisons below which a person's work is worth a look."""
UNTOUCHED = 0.5
"""Share of rankings left in the order shown above which a person's work is worth a look."""

_Rate = dict[str, Any] | None


@dataclass(frozen=True)
class AnnotatorFigures:
    """What is known of one annotator; rates have ``value``, ``low``, ``high`` and ``n``, or are None."""

    labels: int
    pace: float
    """Median time as a share of everybody's."""
    agreement: _Rate
    others_agreement: _Rate
    first_position: _Rate
    """How often the first response shown was chosen; ``chance`` is the share without a preference for a side."""
    others_first: _Rate
    gold: _Rate
    others_gold: _Rate
    consistency: _Rate
    untouched: _Rate


def review(found: AnnotatorFigures) -> str:
    """Why somebody should look at an annotator's work; empty if nothing stands out.

    Where a share is compared with that of others, their intervals must not overlap: the others' share is an estimate
    too, and with few annotators no better known than the one that is looked at.
    """
    sentences = [*_agreement(found), *_known_answers(found), *_habits(found)]
    return " ".join(sentences)


def _agreement(found: AnnotatorFigures) -> list[str]:
    own, others = found.agreement, found.others_agreement
    if not own or not others or own["n"] < MIN_FOR_REVIEW or own["high"] >= others["low"]:
        return []
    return [f"Agrees with others on {own['value']:.0%}, they among themselves on {others['value']:.0%}."]


def _known_answers(found: AnnotatorFigures) -> list[str]:
    sentences = []
    own, others = found.gold, found.others_gold
    if own and others and own["n"] >= MIN_MEASURED and own["high"] < others["low"]:
        sentences.append(f"Right on {own['value']:.0%} of {own['n']} gold questions, others on {others['value']:.0%}.")
    again = found.consistency
    if again and again["n"] >= MIN_MEASURED and again["high"] < CONSISTENT:
        sentences.append(f"Gave the same answer to {again['value']:.0%} of {again['n']} repeated comparisons.")
    return sentences


def _habits(found: AnnotatorFigures) -> list[str]:
    sentences = []
    first, untouched = found.first_position, found.untouched
    if first and first["n"] >= MIN_FOR_REVIEW and _prefers_a_side(first, found.others_first):
        sentences.append(
            f"Chose the first response shown in {first['value']:.0%}, where chance is {first['chance']:.0%}."
        )
    if untouched and untouched["n"] >= MIN_MEASURED and untouched["low"] > UNTOUCHED:
        sentences.append(f"Left {untouched['value']:.0%} of {untouched['n']} rankings in the order shown.")
    if found.labels >= MIN_FOR_REVIEW and found.pace < TOO_FAST:
        sentences.append(f"Takes {found.pace:.0%} of the usual time.")
    return sentences


def _prefers_a_side(first: dict[str, Any], others: _Rate) -> bool:
    """Whether a share of first responses is neither chance nor that of others.

    Others who judge in the same orders choose the first response as often where it is the better one more often, as
    where one policy's responses are always shown first.
    """
    chance = first["low"] <= first["chance"] <= first["high"]
    return not chance and (others is None or _apart(first, others))


def _apart(one: dict[str, Any], other: dict[str, Any]) -> bool:
    return bool(one["high"] < other["low"] or other["high"] < one["low"])
