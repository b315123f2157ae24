"""Responses of models that no round samples, to the prompts that reports are about."""

import pandas as pd

from rlhf_dagster.errors import UserError
from rlhf_dagster.lineage.models import Checkpoint
from rlhf_dagster.loop.folder import LoopFolder
from rlhf_dagster.loop.sampling import draw_prompts, sample_policy
from rlhf_dagster.records.round_keys import round_key


def zero_shot(loop: LoopFolder) -> list[dict[str, str]]:
    """One response of the base model to each prompt that the first round's policy is judged on.

    Rows with `prompt_id`, `prompt` and `text`.
    """
    sampled = sample_policy(loop, made_model(loop, "base_model"), test_prompts(loop), seed=_seed(loop, "zero-shot"))
    return [{name: str(row[name]) for name in ("prompt_id", "prompt", "text")} for row in sampled.to_dict("records")]


def test_prompts(loop: LoopFolder, most: int | None = None) -> pd.DataFrame:
    """The prompts that the first round's evaluation draws (schema PROMPTS), all of them or ``most``."""
    prompts = loop.table("prompts")
    if prompts is None:
        raise UserError(f"{loop.root}: its prompts are not made; let the variant end later.")
    test, wanted = prompts[prompts["split"] == "test"], loop.config.evaluation.prompts
    drawn = draw_prompts(test, wanted, loop.config.stage_seed("evaluation", round_key(1)))
    return drawn.head(most or wanted)


def made_model(loop: LoopFolder, asset: str, key: str = "") -> Checkpoint:
    """The model of an asset; raises UserError before it is made."""
    found = loop.checkpoint(asset, key)
    if found is None:
        raise UserError(f"{loop.root}: {asset} is not made; let the variant end later.")
    return found


def _seed(loop: LoopFolder, what: str) -> int:
    return loop.config.stage_seed(f"probe {what}")
