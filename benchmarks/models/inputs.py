"""The tables and settings of a trial: prompts and responses of unequal lengths, in the words of the tiny models."""

import random
from dataclasses import dataclass
from pathlib import Path

from toy_language import demonstration_row, preference_row, prompt_row, split, write
from zoo.make import WORDS

from rlhf_dagster.config.training import ComputeSettings, SamplingSettings
from rlhf_dagster.records.schemas import DEMONSTRATIONS, PREFERENCES, PROMPTS

COMPUTE = ComputeSettings(threads=1, device="cpu")
SAMPLING = SamplingSettings(prompt_tokens=20, response_tokens=8, batch_size=16, fixed_length=False)
LONGEST = 48
"""Tokens of prompt and response, more than any of these texts has."""
ROWS = 8


@dataclass(frozen=True)
class Inputs:
    """The tables, and what is in them."""

    prompts: Path
    demonstrations: Path
    preferences: Path
    texts: list[str]
    """The prompts."""
    answers: list[str]
    """One given response to each prompt."""
    taught: list[tuple[str, str]]
    """Prompt and response of the `train` demonstrations."""
    held_out: list[tuple[str, str]]
    """Prompt and response of the `validation` demonstrations."""
    comparisons: list[tuple[str, str, str]]
    """Prompt, better and worse response of the `train` preferences."""


def make_inputs(folder: Path) -> Inputs:
    """Write the tables of a trial; they are the same each time."""
    rng = random.Random(0)
    texts = [_words(rng, 1 + row % 6) for row in range(ROWS)]
    answers = [_words(rng, 1 + row % 7) for row in range(ROWS)]
    others = [_words(rng, 1 + (row + 3) % 7) for row in range(ROWS)]
    pairs = list(zip(texts, answers, others, strict=True))
    demonstrations = [demonstration_row(row, text, answer) for row, (text, answer, _) in enumerate(pairs)]
    preferences = [
        preference_row(row, text, [better, worse]) | {"target": [1.0, 0.0]}
        for row, (text, better, worse) in enumerate(pairs)
    ]
    prompts = [prompt_row(row, text) for row, text in enumerate(texts)]
    return Inputs(
        prompts=write(folder, "prompts", prompts, PROMPTS),
        demonstrations=write(folder, "demonstrations", demonstrations, DEMONSTRATIONS),
        preferences=write(folder, "preferences", preferences, PREFERENCES),
        texts=texts,
        answers=answers,
        taught=[pair[:2] for row, pair in enumerate(pairs) if split(row) == "train"],
        held_out=[pair[:2] for row, pair in enumerate(pairs) if split(row) == "validation"],
        comparisons=[pair for row, pair in enumerate(pairs) if split(row) == "train"],
    )


def _words(rng: random.Random, count: int) -> str:
    return " ".join(rng.choice(WORDS) for _ in range(count))
