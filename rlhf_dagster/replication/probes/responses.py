"""Responses of models that a round does not sample, to the prompts that its report is about."""

from typing import Any

import pandas as pd

from rlhf_dagster.errors import UserError
from rlhf_dagster.loop.folder import LoopFolder
from rlhf_dagster.loop.sampling import as_prompts, sample_policy


def base_responses(loop: LoopFolder) -> dict[str, Any]:
    """One response of the base model to each test prompt of the last round: zero-shot.

    The lists `prompt_id`, `prompt`, `text` and `gold` are in the order of the prompts' ids.
    """
    base = loop.checkpoint("base_model")
    if base is None:
        raise UserError("The base model is not made; let the variant end after it.")
    asked = as_prompts(answered_prompts(loop))
    return judged(loop, sample_policy(loop, base, asked, seed=loop.config.stage_seed("probe of the base model")))


def answered_prompts(loop: LoopFolder) -> pd.DataFrame:
    """A row for each test prompt of the last round's evaluation, by the prompts' ids."""
    last = max(loop.rounds_with("evaluation_completions"), default="")
    completions = loop.table("evaluation_completions", last)
    if completions is None:
        raise UserError("No policy was evaluated; let the variant end after `evaluation_completions` or later.")
    return completions.drop_duplicates("prompt_id").sort_values("prompt_id").reset_index(drop=True)


def judged(loop: LoopFolder, samples: pd.DataFrame) -> dict[str, Any]:
    """Responses with the gold judge's score of each; models see neither."""
    gold = map(loop.task.gold_score, samples["prompt"], samples["text"])
    columns = {name: samples[name].astype(str).tolist() for name in ("prompt_id", "prompt", "text")}
    return columns | {"gold": [float(score) for score in gold]}
