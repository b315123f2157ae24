"""The sentiment task as the loop sees it."""

import itertools
from collections.abc import Iterator
from typing import TypeVar

from rlhf_dagster.errors import UserError
from rlhf_dagster.tasks.base import SPLITS
from rlhf_dagster.tasks.sentiment import gold
from rlhf_dagster.tasks.sentiment.annotators import Annotator, make_annotators
from rlhf_dagster.tasks.sentiment.reviews import MIN_RESPONSE, Review, stream

_Item = TypeVar("_Item", str, tuple[str, str])


class SentimentTask:
    """Continue the beginning of a review; people prefer positive continuations (Ziegler et al. 2019, section 3.1).

    Texts are lower-case tokens separated by spaces, punctuation included. A prompt is 8 to 20 tokens of whole
    sentences, a demonstration's response at least 24, a pretraining text mostly 45 to 64.
    """

    name = "sentiment"

    def prompts(self, n: int, seed: int, split: str) -> list[str]:
        """``n`` distinct prompts of one split; a longer list begins with the shorter one of the same seed."""
        return _distinct(n, (" ".join(review.prompt) for review in _reviews("prompts", seed, split)))

    def demonstrations(self, n: int, seed: int, split: str) -> list[tuple[str, str]]:
        """``n`` distinct pairs of prompt and response. Their moods are mixed as in all texts: they teach the format."""
        reviews = _reviews("demonstrations", seed, split)
        return _distinct(n, ((" ".join(review.prompt), review.write(MIN_RESPONSE)) for review in reviews))

    def pretraining_text(self, n: int, seed: int, split: str) -> list[str]:
        """``n`` distinct reviews; a few of them repeat a sentence or stray from their domain."""
        return _distinct(n, (review.write_raw() for review in _reviews("pretraining_text", seed, split)))

    def gold_score(self, prompt: str, response: str) -> float:
        return gold.gold_score(prompt, response)

    def annotators(self, seed: int) -> list[Annotator]:
        """Twelve simulated annotators."""
        return make_annotators(seed)


def _reviews(purpose: str, seed: int, split: str) -> Iterator[Review]:
    if split not in SPLITS:
        raise UserError(f"`{split}` is not a split; use one of: {', '.join(SPLITS)}.")
    return stream(purpose, seed, split)


def _distinct(n: int, items: Iterator[_Item]) -> list[_Item]:
    if n < 0:
        raise UserError(f"Cannot draw {n} texts; ask for 0 or more.")
    seen: set[_Item] = set()
    fresh = (item for item in items if not (item in seen or seen.add(item)))  # type: ignore[func-returns-value]
    return list(itertools.islice(fresh, n))


TASK = SentimentTask()


def sample_prompts(n: int, seed: int) -> list[str]:
    """``n`` distinct prompts of the test split, which no prompt, demonstration or text of another split begins with."""
    return TASK.prompts(n, seed, "test")
