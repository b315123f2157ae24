"""The sentiment task as the loop sees it."""

from rlhf_dagster.tasks.drawing import distinct
from rlhf_dagster.tasks.sentiment import gold
from rlhf_dagster.tasks.sentiment.annotators import Annotator, make_annotators
from rlhf_dagster.tasks.sentiment.reviews import MIN_RESPONSE, stream


class SentimentTask:
    """Continue the beginning of a review; people prefer positive continuations (Ziegler et al. 2019, section 3.1).

    Texts are lower-case tokens separated by spaces, punctuation included. A prompt is 8 to 20 tokens of whole
    sentences, a demonstration's response at least 24, a pretraining text mostly 45 to 64.
    """

    name = "sentiment"

    def prompts(self, n: int, seed: int, split: str) -> list[str]:
        """``n`` distinct prompts of one split; a longer list begins with the shorter one of the same seed."""
        return distinct(n, (" ".join(review.prompt) for review in stream("prompts", seed, split)))

    def demonstrations(self, n: int, seed: int, split: str) -> list[tuple[str, str]]:
        """``n`` distinct pairs of prompt and response. Their moods are mixed as in all texts: they teach the format."""
        reviews = stream("demonstrations", seed, split)
        return distinct(n, ((" ".join(review.prompt), review.write(MIN_RESPONSE)) for review in reviews))

    def pretraining_text(self, n: int, seed: int, split: str) -> list[str]:
        """``n`` distinct reviews; a few of them repeat a sentence or stray from their domain."""
        return distinct(n, (review.write_raw() for review in stream("pretraining_text", seed, split)))

    def gold_score(self, prompt: str, response: str) -> float:
        return gold.gold_score(prompt, response)

    def annotators(self, seed: int) -> list[Annotator]:
        """Twelve simulated annotators."""
        return make_annotators(seed)


TASK = SentimentTask()


def sample_prompts(n: int, seed: int) -> list[str]:
    """``n`` distinct prompts of the test split, which no prompt, demonstration or text of another split begins with."""
    return TASK.prompts(n, seed, "test")
