"""The summaries task as the loop sees it, in two forms."""

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rlhf_dagster.records.ids import split_of
from rlhf_dagster.tasks.base import Truthfulness
from rlhf_dagster.tasks.drawing import distinct, split_rng
from rlhf_dagster.tasks.summaries.annotators import KINDS_OF_READERS, Reader, make_readers
from rlhf_dagster.tasks.summaries.facts import begins_with_preamble, events_of, summary_facts, text_in
from rlhf_dagster.tasks.summaries.gold import summary_value
from rlhf_dagster.tasks.summaries.writing import (
    NEWS_ARTICLES,
    POSTS,
    Form,
    prompt_for,
    reference_of,
    write_document,
    write_text,
)


@dataclass(frozen=True, eq=False)
class SummariesTask:
    """Summarise texts about who did what with whose thing, where and when (Ziegler et al. 2019, section 3.2).

    Texts are lower-case tokens separated by spaces. A prompt is a text and `tl;dr`; a demonstration's response tells
    the key facts or some of them in other words, 4 to 10 tokens for each event. A document of the pretraining text is a
    text with a reader's reply, which tells all of them, or a prompt with its author's own summary, a third of which are
    as good as demonstrations.
    """

    form: Form
    settings: Mapping[str, Any]

    @property
    def name(self) -> str:
        return self.form.name

    def prompts(self, n: int, seed: int, split: str) -> list[str]:
        """``n`` distinct prompts of one split; a longer list begins with the shorter one of the same seed."""
        return distinct(n, self._stream(split_rng(self.name, "prompts", split, seed), split))

    def demonstrations(self, n: int, seed: int, split: str) -> list[tuple[str, str]]:
        """``n`` distinct pairs of prompt and reference."""
        prompts = self._stream(split_rng(self.name, "demonstrations", split, seed), split)
        return distinct(n, ((prompt, reference_of(prompt, self.form)) for prompt in prompts))

    def pretraining_text(self, n: int, seed: int, split: str) -> list[str]:
        """``n`` distinct texts with replies or with their authors' summaries."""
        rng = split_rng(self.name, "pretraining_text", split, seed)
        prompts = self._stream(rng, split)
        return distinct(n, (write_document(rng, prompt, self.form) for prompt in prompts))

    def source(self, prompt: str) -> str:
        return text_in(prompt)

    def has_preamble(self, prompt: str) -> bool:
        """Whether the text begins with a sentence that says nothing about its events, and is no aside either."""
        return begins_with_preamble(text_in(prompt))

    def references(self, prompt: str) -> Sequence[str]:
        reference = reference_of(prompt, self.form)
        return [reference] if reference else []

    def truthfulness(self, prompt: str, response: str) -> Truthfulness:
        """Of the key slots of all events of the text."""
        seen, events = summary_facts(prompt, response), events_of(text_in(prompt))
        keys = {(index, slot) for index in range(len(events)) for slot in self.form.key_slots}
        return Truthfulness(len(keys), len(keys & seen.covered), seen.false)

    def gold_score(self, prompt: str, response: str) -> float:
        """Mostly -6 to 5; any strings, higher is better."""
        return summary_value(summary_facts(prompt, response))

    @property
    def annotator_kinds(self) -> Sequence[str]:
        return KINDS_OF_READERS

    def annotators(self, seed: int) -> list[Reader]:
        """Twelve people who check what a summary says."""
        return make_readers(KINDS_OF_READERS[0], seed)

    def annotators_of_kind(self, kind: str, seed: int) -> list[Reader]:
        """Twelve people who check, or who take what is copied for accurate."""
        return make_readers(kind, seed)

    def _stream(self, rng: random.Random, split: str) -> Iterator[str]:
        while True:
            prompt = prompt_for(write_text(rng, self.form))
            if split_of(prompt, validation=0.1, test=0.1) == split:
                yield prompt


_COMMON: dict[str, Any] = {
    "data": {"prompts": 6000, "demonstrations": 1500, "pretraining_texts": 12_000},
    "base_model": {"tiny": {"width": 64, "steps": 3600, "batch_size": 16, "context": 72}},
    "sampling": {"prompt_tokens": 36, "response_tokens": 12, "fixed_length": False, "temperature": 0.7},
    "sft": {"max_tokens": 48, "epochs": 4, "batch_size": 32, "learning_rate": 0.001},
    # A longer summary says more of the facts: people prefer the longest response on 70% of comparisons, and a reward
    # model as good as their noise allows is not above that rule.
    "reward_model": {"max_tokens": 52, "accept_chance": True},
    "ppo": {"kl_coef": 0.05, "kl_target": None},
}
_LONGER: dict[str, Any] = _COMMON | {
    "base_model": {"tiny": _COMMON["base_model"]["tiny"] | {"context": 96}},
    "sampling": _COMMON["sampling"] | {"prompt_tokens": 50, "response_tokens": 14},
    "sft": _COMMON["sft"] | {"max_tokens": 64},
    "reward_model": _COMMON["reward_model"] | {"max_tokens": 68},
}
SUMMARIES = SummariesTask(POSTS, _COMMON)
ARTICLES = SummariesTask(NEWS_ARTICLES, _LONGER)
