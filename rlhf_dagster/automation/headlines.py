"""What is said of an asset when it is made: a few of its numbers, in a line."""

from collections.abc import Mapping

import dagster as dg

from rlhf_dagster.config.arms import ARMS
from rlhf_dagster.training.texts.cuts import COUNTED

HEADLINES: dict[str, list[str]] = {
    "prompts": ["dagster/row_count"],
    "demonstration_batch": ["prompts"],
    "demonstrations": ["dagster/row_count", "left_out_of_test"],
    "pretraining_text": ["dagster/row_count", "words"],
    "base_model": ["model_id", "loss"],
    "sft_checkpoint": ["model_id", "validation_loss"],
    "round_manifest": ["behaviour_policy"],
    "completions": ["dagster/row_count", "prompts", "distinct_share"],
    "preference_batch": ["comparisons", "labels_wanted", "already_there"],
    "preference_labels": ["usable_labels", "annotators", "quarantined"],
    "label_quality": ["alpha", "agreement"],
    "preference_dataset": [
        "train_labels",
        "validation_labels",
        "held_out_annotators_labels",
        "not_trained_on",
        "why_not",
    ],
    "feedback": ["liked", "disliked", "left_out_of_test"],
    "reward_model": ["model_id", "loss_train", "accuracy_validation"],
    "reward_model_accuracy": ["accuracy_validation", "accuracy_held_out_annotators"],
    "reward_model_halves": ["unmeasured", "accuracy_a", "accuracy_b"],
    **{arm.asset: list(arm.headline) for arm in ARMS if arm.asset},
    "policy_choice": ["arm", "policy_id", "prompts"],
    "evaluation_completions": ["prompts"],
    "eval_report": ["vs_sft_reward_model", "vs_sft_gold_judge", "kl_nats", "reward_drift"],
    "evaluation_batch": ["comparisons"],
    "human_evaluation": ["judgments", "win_rate_vs_sft", "win_rate_vs_behaviour"],
    "promotion": ["promoted", "outcome", "champion", "alarms", "removed_models"],
}
_NAMES = {
    "unmeasured": "none:",
    "why_not": "which are",
    "accuracy_a": "accuracy of half A",
    "accuracy_b": "of half B",
    "dagster/row_count": "rows",
    "vs_sft_reward_model": "win rate vs SFT by reward model",
    "vs_sft_gold_judge": "by gold judge",
}


def asset_line(asset: str, metadata: Mapping[str, dg.MetadataValue]) -> str:
    """The numbers of an asset that come first, with what was cut in its texts."""
    shown = (name for name in (*HEADLINES.get(asset, []), *COUNTED) if name in metadata)
    return ", ".join(
        f"{_NAMES.get(name, name).replace('_', ' ')} {_plain(metadata[name], name in COUNTED)}" for name in shown
    )


def _plain(value: dg.MetadataValue, is_count: bool = False) -> str:
    plain = value.value
    if is_count and isinstance(plain, float):
        return f"{plain:,.0f}"
    if isinstance(plain, bool):
        return "yes" if plain else "no"
    return f"{plain:.3f}" if isinstance(plain, float) else f"{plain:,}" if isinstance(plain, int) else str(plain)
