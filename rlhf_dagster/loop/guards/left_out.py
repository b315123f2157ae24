"""What a loop is given and does not use, as sentences with counts: of its data once, and of each round's labels."""

from collections.abc import Iterator
from typing import Any

import pandas as pd

from rlhf_dagster.common.sealed import unseal
from rlhf_dagster.config.arms import TRAINED
from rlhf_dagster.config.evaluation import judgments_for
from rlhf_dagster.config.loop import LoopConfig
from rlhf_dagster.errors import UserError
from rlhf_dagster.evaluation.held_out_text import held_out_documents
from rlhf_dagster.labeling.not_trained_on import not_trained_on_sentence
from rlhf_dagster.lineage.model_folders import MANIFEST
from rlhf_dagster.lineage.models import Checkpoint
from rlhf_dagster.loop.folder import LoopFolder
from rlhf_dagster.training.texts.cuts import COUNTED

LEFT_OUT_OF_TEST = "left_out_of_test"
LEARNING = ("reward_model", *(arm.asset for arm in TRAINED.values()))
"""The assets of a round whose models learn from its labels."""


def prompt_notices(config: LoopConfig, prompts: pd.DataFrame) -> list[str]:
    """Of a table PROMPTS: a split that is empty though the settings want it, and judgments that it has no room for."""
    return [notice for notice in (prompt_split_notice(config, prompts), precision_notice(config, prompts)) if notice]


def prompt_split_notice(config: LoopConfig, prompts: pd.DataFrame) -> str:
    """That no prompt is in the validation split though the settings want it; empty where that is not so."""
    if not (config.data.validation and _is_empty(prompts, "validation")):
        return ""
    return f"None of {len(prompts):,} prompts is in the validation split (data.validation)."


def precision_notice(config: LoopConfig, prompts: pd.DataFrame) -> str:
    """That the test split has no room for as many judgments as the settings want; empty where it has."""
    test, wanted = int((prompts["split"] == "test").sum()), judgments_for(config.evaluation.precision)
    if config.evaluation.human_judgments is not None or test >= wanted:
        return ""
    return (
        f"evaluation.precision {config.evaluation.precision:g} takes {wanted:,} prompts, and the test split has "
        f"{test:,}: intervals of win rates by people will be wider."
    )


def demonstration_notices(demonstrations: pd.DataFrame, of_test: int) -> list[str]:
    """Of a table DEMONSTRATIONS; ``of_test`` were left out of it."""
    notices = []
    if of_test:
        notices.append(f"{of_test:,} demonstrations are of the test split, by their prompt or user, and are left out.")
    return [*notices, *filter(None, [demonstration_split_notice(demonstrations)])]


def demonstration_split_notice(demonstrations: pd.DataFrame) -> str:
    """That no demonstration is kept from training; empty where one is."""
    if not _is_empty(demonstrations, "validation"):
        return ""
    return "No demonstration is in the validation split: SFT has no loss on texts that it is not trained on."


def pretraining_notices(pretraining_text: pd.DataFrame, demonstrations: pd.DataFrame) -> list[str]:
    """Of a table PRETRAINING_TEXT: why the alignment tax will not be measured on it, where that is known."""
    return [why] if (why := held_out_documents(pretraining_text, demonstrations).unmeasured) else []


def preference_notices(config: LoopConfig, preferences: pd.DataFrame) -> list[str]:
    """Of a table PREFERENCES: a split that is empty though the settings want it."""
    if config.labeling.validation and _is_empty(preferences, "validation"):
        return [f"None of {len(preferences):,} labels is in the validation split (labeling.validation)."]
    return []


def data_notices(loop: LoopFolder) -> list[str]:
    """What is left out of a loop's prompts, demonstrations and pretraining text, and cut in SFT, as far as made."""
    prompts, text = loop.table("prompts"), loop.table("pretraining_text")
    demonstrations = loop.table("demonstrations")
    found = [] if prompts is None else prompt_notices(loop.config, prompts)
    if demonstrations is not None:
        of_test = (loop.json("demonstrations") or {}).get(LEFT_OUT_OF_TEST, 0)
        found += demonstration_notices(demonstrations, of_test)
    if text is not None and demonstrations is not None:
        found += pretraining_notices(text, demonstrations)
    return [*found, *_warnings_of(loop, "sft_checkpoint")]


def left_out_of_round(loop: LoopFolder, round_key: str) -> dict[str, Any]:
    """Counts of what a round's trainings did not learn from; empty before it has a data set of preferences.

    ``trained_on`` labels, ``not_trained_on`` by reason, and by asset what was cut, as far as made.
    """
    stated = loop.json("preference_dataset", round_key) or {}
    if "not_trained_on" not in stated:  # not there yet, or of version 0.1
        return {}
    counts = {asset: _cuts_of(loop, asset, round_key) for asset in LEARNING}
    found = {"trained_on": stated["trained_on"], "not_trained_on": stated["not_trained_on"]}
    return found | {asset: cuts for asset, cuts in counts.items() if cuts}


def left_out_sentences(left_out: dict[str, Any]) -> Iterator[str]:
    """:func:`left_out_of_round` for people."""
    if not left_out:
        return
    yield not_trained_on_sentence(left_out["trained_on"], left_out["not_trained_on"])
    for asset in LEARNING:
        counts = [f"{count:,} {name.replace('_', ' ')}" for name, count in left_out.get(asset, {}).items()]
        if counts:
            yield f"{asset} has {', '.join(counts)}."


def _is_empty(frame: pd.DataFrame, split: str) -> bool:
    return not (frame["split"] == split).any()


def _warnings_of(loop: LoopFolder, asset: str) -> list[str]:
    return list(manifest_of(loop, asset).get("warnings", ()))


def _cuts_of(loop: LoopFolder, asset: str, round_key: str) -> dict[str, int]:
    metrics = manifest_of(loop, asset, round_key).get("metrics", {})
    return {name: int(metrics[name]) for name in COUNTED if metrics.get(name)}


def manifest_of(loop: LoopFolder, asset: str, round_key: str = "") -> dict[str, Any]:
    """The manifest of the model of an asset, without fetching its weights; empty where it cannot be read."""
    model: Checkpoint | None = loop.checkpoint(asset, round_key)
    key = f"{model.path}/{MANIFEST}" if model else ""
    found = loop.store.get(key) if model else None
    try:
        return unseal(found.data, key) if found else {}
    except UserError:  # `rlhf check` tells of it
        return {}
