"""The task of the example: go on from a few words; people prefer what sounds positive, and VADER says how positive.

VADER (Hutto & Gilbert 2014) is a lexicon with rules. It is the gold judge, and what the simulated annotators see with
some noise; no training reads it.
"""

import json
import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any

from rlhf_dagster.records.ids import content_hash
from rlhf_dagster.records.kinds import RANKED_KINDS
from rlhf_dagster.tasks import SPLITS, Judgment

TEXTS = Path(__file__).with_name("texts.jsonl")
SHARES = {"train": 0.65, "validation": 0.1, "test": 0.25}
NOISES = (0.05, 0.08, 0.1, 0.12, 0.15, 0.2)
"""Scale of each annotator's Gumbel noise, in units of VADER's score, which goes from -1 to 1."""
TIE = 0.02
READING_SECONDS = 0.12


@cache
def analyzer() -> Any:
    from vaderSentiment.vaderSentiment import SentimentIntensityAnalyzer

    return SentimentIntensityAnalyzer()


@cache
def positivity(text: str) -> float:
    """VADER's compound score of a text, from -1 to 1."""
    return float(analyzer().polarity_scores(text)["compound"])


@dataclass(frozen=True)
class Annotator:
    """Prefers the response that sounds more positive, with Gumbel noise: a Plackett-Luce chooser."""

    name: str
    noise: float
    seed: int

    def judge(self, prompt: str, responses: Sequence[str], kind: str, key: str) -> Judgment:
        """See :class:`rlhf_dagster.tasks.SimulatedAnnotator`."""
        seconds = round(2.0 + READING_SECONDS * sum(len(text.split()) for text in (prompt, *responses)), 1)
        utilities = [self._utility(response, key) for response in responses]
        order = [1 + sum(other > utility + TIE for other in utilities) for utility in utilities]
        strength = None if kind != "pair" else 1.0 if abs(utilities[0] - utilities[1]) > 1 else 0.5
        return Judgment(RANKED_KINDS[kind].of_order(order), seconds, strength)

    def _utility(self, response: str, key: str) -> float:
        drawn = random.Random(content_hash("annotator", self.name, self.seed, key, response)).random()
        return positivity(response) - self.noise * math.log(-math.log(min(max(drawn, 1e-12), 1 - 1e-12)))


class PositiveTask:
    """Prompts and demonstrations are the lines of `texts.jsonl`, each in the split that a hash of its prompt gives."""

    name = "positive"

    @cached_property
    def rows(self) -> dict[str, list[dict[str, str]]]:
        """The lines, by split."""
        found: dict[str, list[dict[str, str]]] = {split: [] for split in SPLITS}
        for line in TEXTS.read_text(encoding="utf-8").splitlines():
            row = json.loads(line)
            found[_split_of(row["prompt"])].append(row)
        return found

    def prompts(self, n: int, seed: int, split: str) -> list[str]:
        return [row["prompt"] for row in self._drawn(n, seed, split)]

    def demonstrations(self, n: int, seed: int, split: str) -> list[tuple[str, str]]:
        return [(row["prompt"], row["response"]) for row in self._drawn(n, seed, split)]

    def pretraining_text(self, n: int, seed: int, split: str) -> list[str]:
        return [row["prompt"] + row["response"] for row in self._drawn(n, seed, split)]

    def gold_score(self, prompt: str, response: str) -> float:
        return positivity(response)

    def annotators(self, seed: int) -> list[Any]:
        return [Annotator(f"ann-{number + 1:02d}", noise, seed) for number, noise in enumerate(NOISES)]

    def _drawn(self, n: int, seed: int, split: str) -> list[dict[str, str]]:
        rows = sorted(self.rows[split], key=lambda row: content_hash("drawn", seed, row["prompt"]))
        return rows[:n]


def _split_of(prompt: str) -> str:
    share = int(content_hash("split", prompt)[:8], 16) / 16**8
    return "train" if share < SHARES["train"] else "validation" if share < 1 - SHARES["test"] else "test"


TASK = PositiveTask()
