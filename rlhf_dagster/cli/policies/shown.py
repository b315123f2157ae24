"""Texts of a policy, as a terminal can show them."""

import unicodedata
from collections.abc import Iterator

from rlhf_dagster.config.training import SamplingSettings
from rlhf_dagster.loop.inference.answers import PolicyAnswer, PolicyAnswers

_KEPT = "\n\t"
_NO_CONTROL = "\u25a1"


def printable(text: str) -> str:
    """``text`` with a white square for each control character: a policy must not steer the terminal."""
    return "".join(_NO_CONTROL if unicodedata.category(one) == "Cc" and one not in _KEPT else one for one in text)


def notes_on(found: PolicyAnswers, sampling: SamplingSettings) -> Iterator[str]:
    """What was not read of the prompt, and where an answer was cut off."""
    if found.unread:
        yield (
            f"The first {found.unread:,} tokens of the prompt were not read: sampling.prompt_tokens is "
            f"{sampling.prompt_tokens}."
        )
    cut = sum(is_cut(answer, sampling) for answer in found.answers)
    if cut:
        many = "The answer was" if len(found.answers) == 1 else f"{cut} of {len(found.answers)} answers were"
        yield f"{many} cut off after {sampling.response_tokens} tokens (sampling.response_tokens)."


def is_cut(answer: PolicyAnswer, sampling: SamplingSettings) -> bool:
    """Whether an answer would have gone on; where all have one length, none is cut."""
    return answer.finish_reason == "length" and not sampling.fixed_length
