"""The jobs of a loop. Between `collect_round` and `train_round`, and before `release_round`, people work."""

from typing import Any

import dagster as dg

from rlhf_dagster.automation.device_tags import job_tags
from rlhf_dagster.config.loop import LoopConfig
from rlhf_dagster.loop.candidate import policy_assets
from rlhf_dagster.records.loop_names import ALONE, LoopNames

PREPARE = ["prompts", "demonstration_batch", "demonstrations", "pretraining_text", "base_model", "sft_checkpoint"]
COLLECT = ["round_manifest", "completions", "preference_batch"]
LEARN = ["preference_labels", "label_quality", "preference_dataset", "reward_model", "reward_model_accuracy"]
LEARNED_BESIDE = "feedback"
HALF_MODELS = "reward_model_halves"
JUDGE = ["evaluation_completions", "eval_report", "evaluation_batch"]
RELEASE = ["human_evaluation", "promotion"]
ROUND_JOBS = ["collect_round", "train_round", "release_round"]
"""The jobs of a round, in their order."""


def job_assets(config: LoopConfig) -> dict[str, list[str]]:
    """The assets of each job, upstream first.

    Where no people are asked to judge the policy, `train_round` goes on to the promotion.
    """
    learn = [*LEARN, LEARNED_BESIDE] if config.learns_from_feedback else LEARN
    train = [*learn, HALF_MODELS, *policy_assets(config), *JUDGE]
    waits = config.evaluation.asks_people and not config.label_store.simulated_annotators
    return {
        "prepare": PREPARE,
        "collect_round": COLLECT,
        "train_round": train if waits else train + RELEASE,
        "release_round": RELEASE,
    }


DESCRIPTIONS = {
    "prepare": "Data, base model and SFT checkpoint: once, before the first round.",
    "collect_round": "Pin the behaviour policy, sample it, and send comparisons to the annotators.",
    "train_round": "Read the labels, train reward model and policy, report; a policy that fails the gate stops here.",
    "release_round": "Read the A/B judgments and move the champion, or say why not.",
}


def loop_jobs(config: LoopConfig, names: LoopNames = ALONE) -> list[Any]:
    return [
        dg.define_asset_job(
            names.own(name),
            selection=dg.AssetSelection.assets(*(dg.AssetKey(names.path(asset)) for asset in assets)),
            description=DESCRIPTIONS[name],
            tags={**job_tags(config, assets), **names.tag(config.name)},
        )
        for name, assets in job_assets(config).items()
    ]
