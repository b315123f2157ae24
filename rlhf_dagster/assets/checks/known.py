"""All checks that stop nothing, by asset."""

from rlhf_dagster.assets.checks.declare import AssetLooks
from rlhf_dagster.loop.checks.data import (
    demonstrations_are_whole,
    demonstrations_fill_splits,
    prompts_are_distinct,
    prompts_are_enough,
    prompts_fill_splits,
)
from rlhf_dagster.loop.checks.labels import (
    annotators_are_steady,
    few_are_quarantined,
    gold_answers_are_right,
    labels_are_fresh,
    labels_fill_splits,
    no_side_is_preferred,
    people_agree,
)
from rlhf_dagster.loop.checks.models import is_calibrated, reward_models_agree

LOOKS = (
    AssetLooks("prompts", (prompts_are_enough, prompts_are_distinct, prompts_fill_splits), by_round=False),
    AssetLooks("demonstrations", (demonstrations_fill_splits,), by_round=False),
    AssetLooks("sft_checkpoint", (demonstrations_are_whole,), by_round=False),
    AssetLooks(
        "label_quality",
        (
            people_agree,
            gold_answers_are_right,
            no_side_is_preferred,
            annotators_are_steady,
            few_are_quarantined,
            labels_are_fresh,
        ),
    ),
    AssetLooks("preference_dataset", (labels_fill_splits,)),
    AssetLooks("reward_model_accuracy", (is_calibrated,)),
    AssetLooks("eval_report", (reward_models_agree,)),
)
"""A check is named for the function that looks."""
