"""The helpful task as the loop sees it: chats."""

import random
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rlhf_dagster.records.chats import Chat
from rlhf_dagster.records.ids import split_of
from rlhf_dagster.tasks.base import Truthfulness
from rlhf_dagster.tasks.drawing import distinct, split_rng
from rlhf_dagster.tasks.helpful.annotators import KINDS_OF_VISITORS, Visitor, make_visitors
from rlhf_dagster.tasks.helpful.conversations import PEOPLE_S_BEST, best_answer, some_answer, write_chat
from rlhf_dagster.tasks.helpful.gold import AIMS, answer_features, answer_score
from rlhf_dagster.tasks.helpful.situations import situation_of

INTERNET_S_BEST = 0.4
"""Share of the pretraining text's chats that end with the best answer."""


class HelpfulTask:
    """Answer a visitor's last question, helpfully, honestly and without harm (Ouyang et al. 2022; Bai et al. 2022).

    A prompt is a chat: a system's message of about 20 tokens that says where two places are, up to one exchange, and a
    question of about 6 tokens. A third of the questions ask for help with harm, a quarter what nobody has said. A
    document of the pretraining text is such a chat as text, with an answer of any quality.
    """

    name = "helpful"
    axes: Sequence[str] = AIMS
    settings: Mapping[str, Any] = {
        "base_model": {
            "tiny": {
                "layers": 3,
                "steps": 1200,
                "batch_size": 64,
                "learning_rate": 0.002,
                "context": 96,
                "chat": True,
            }
        },
        "sampling": {"prompt_tokens": 64, "response_tokens": 24, "fixed_length": False},
        "sft": {"max_tokens": 96, "epochs": 4, "learning_rate": 0.001, "chat": True},
        "labeling": {"kind": "ranking", "evaluation_axes": list(AIMS)},
        "reward_model": {"max_tokens": 96},
    }

    def prompts(self, n: int, seed: int, split: str) -> list[Chat]:
        """``n`` distinct chats of one split; a longer list begins with the shorter one of the same seed."""
        return distinct(n, self._stream(split_rng(self.name, "prompts", split, seed), split))

    def demonstrations(self, n: int, seed: int, split: str) -> list[tuple[Chat, str]]:
        """``n`` distinct pairs of chat and answer, three quarters of which are the best."""
        rng = split_rng(self.name, "demonstrations", split, seed)
        chats = self._stream(rng, split)
        return distinct(n, ((chat, some_answer(rng, str(chat), PEOPLE_S_BEST)) for chat in chats))

    def pretraining_text(self, n: int, seed: int, split: str) -> list[str]:
        """``n`` distinct chats as text."""
        rng = split_rng(self.name, "pretraining_text", split, seed)
        chats = self._stream(rng, split)
        return distinct(n, (f"{chat}\n\nAssistant: {some_answer(rng, str(chat), INTERNET_S_BEST)}" for chat in chats))

    def references(self, prompt: str) -> Sequence[str]:
        answer = best_answer(prompt)
        return [answer] if answer else []

    def truthfulness(self, prompt: str, response: str) -> Truthfulness:
        """The key fact is where a place is that was asked for, and that the chat has told."""
        seen = answer_features(prompt, response)
        return Truthfulness(int(situation_of(prompt).wanted == "known"), int(seen.answered), seen.invented)

    def gold_score(self, prompt: str, response: str) -> float:
        return answer_score(prompt, response)

    def gold_axes(self, prompt: str, response: str) -> Mapping[str, float]:
        seen = answer_features(prompt, response)
        return {aim: getattr(seen, aim) for aim in AIMS}

    @property
    def annotator_kinds(self) -> Sequence[str]:
        return KINDS_OF_VISITORS

    def annotators(self, seed: int) -> list[Visitor]:
        """Twelve people who weigh all aims."""
        return make_visitors(KINDS_OF_VISITORS[0], seed)

    def annotators_of_kind(self, kind: str, seed: int) -> list[Visitor]:
        """Twelve people who weigh all aims, or who look at one of them."""
        return make_visitors(kind, seed)

    def _stream(self, rng: random.Random, split: str) -> Iterator[Chat]:
        while True:
            chat = write_chat(rng)
            if split_of(str(chat), validation=0.1, test=0.1) == split:
                yield chat


HELPFUL = HelpfulTask()
