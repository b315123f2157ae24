"""Group `reward`: the reward model, how well it predicts people, and two models on halves of its labels."""

import json
from pathlib import Path
from typing import Any

import dagster as dg
import pandas as pd

from rlhf_dagster.assets.define import JSON, MODEL, loop_asset, round_check, stage_progress
from rlhf_dagster.assets.launch import for_this_run, launch_config
from rlhf_dagster.assets.metadata import markdown_table, model_result, numbers
from rlhf_dagster.config.training import RewardModelSettings
from rlhf_dagster.evaluation.chance import not_above_chance
from rlhf_dagster.lineage.models import Checkpoint
from rlhf_dagster.loop.evaluation import measure_reward_model
from rlhf_dagster.loop.folder import LoopFolder
from rlhf_dagster.loop.guards.chance import chance_refusal, require_measurable
from rlhf_dagster.loop.halves import train_halves
from rlhf_dagster.loop.trainings.reward_model import make_reward_model
from rlhf_dagster.records.ids import content_hash
from rlhf_dagster.resources.compute import Compute

RATES = ("accuracy", "length_baseline", "brevity_baseline")
_RewardModelLaunch = launch_config(RewardModelSettings)


@loop_asset("reward", by_round=True, gpu=True, **MODEL)
def reward_model(
    context: dg.AssetExecutionContext,
    config: _RewardModelLaunch,  # type: ignore[valid-type]
    loop: dg.ResourceParam[LoopFolder],
    compute: Compute,
    sft_checkpoint: Checkpoint,
    preference_dataset: Path,
    prompts: Path,
) -> dg.MaterializeResult[Checkpoint]:
    """Predicts which response people prefer. Trained from the SFT checkpoint on all labels so far.

    Its scores have mean 0 and deviation 1 on samples of the SFT policy (`reference_mean`, `reference_std`), or with
    `reward_model.normalisation: demonstrations` mean 0 on those. A `loss` is the cross-entropy of the choice in nats,
    an `accuracy` the share of labels whose best response it scores highest. `equal_comparisons` are left out, and
    `cut_responses` read in part, because they are longer than what is read.
    """
    require_measurable(loop, preference_dataset)
    settings, progress = for_this_run(loop.config.reward_model, config), stage_progress(context)
    result = make_reward_model(
        compute.on(loop),
        context.partition_key,
        settings,
        sft=sft_checkpoint,
        preferences=preference_dataset,
        prompts=prompts,
        progress=progress,
    )
    return model_result(result)


# After the accuracy: where PPO does not start, two more reward models are of no use.
@loop_asset("reward", by_round=True, gpu=True, deps=["reward_model_accuracy"], **JSON)
def reward_model_halves(
    context: dg.AssetExecutionContext,
    config: _RewardModelLaunch,  # type: ignore[valid-type]
    loop: dg.ResourceParam[LoopFolder],
    compute: Compute,
    sft_checkpoint: Checkpoint,
    preference_dataset: Path,
    prompts: Path,
) -> dg.MaterializeResult[dict[str, Any]]:
    """Two reward models, each trained like `reward_model` on half of its labels: the over-optimisation alarm.

    The halves hold different prompts. Both models see what a policy has really gained; where they disagree, the
    policy exploits errors that a reward model has learned from its labels. Not trained where `gate.max_reward_drift` is
    null, or where a half would hold too few comparisons.
    """
    halves = train_halves(
        compute.on(loop),
        context.partition_key,
        for_this_run(loop.config.reward_model, config),
        sft=sft_checkpoint,
        preferences=preference_dataset,
        prompts=prompts,
        progress=stage_progress(context),
    )
    metadata: dict[str, Any] = {"unmeasured": halves.unmeasured} if halves.unmeasured else {}
    for name, model in zip("ab", halves.models, strict=False):
        accuracy = model.metrics.get("accuracy_validation")
        metadata[f"model_id_{name}"] = model.checkpoint.model_id
        metadata |= numbers({f"comparisons_{name}": model.metrics["comparisons"], f"accuracy_{name}": accuracy})
    return dg.MaterializeResult(value=halves.as_dict(), metadata=metadata)


@loop_asset("reward", by_round=True, gpu=True, **JSON)
def reward_model_accuracy(
    loop: dg.ResourceParam[LoopFolder],
    compute: Compute,
    reward_model: Checkpoint,
    preference_dataset: pd.DataFrame,
) -> dg.MaterializeResult[dict[str, Any]]:
    """How often the reward model picks what people picked, on labels it never saw, beside what needs no model.

    `validation` holds comparisons that are not trained on, `held_out_annotators` labels of people who never are,
    `unseen` both. `longest_wins` and `shortest_wins` are the accuracies of preferring the longest and the shortest
    response; chance is one over the number of responses. `accuracy_by` groups the labels of both splits by kind, round,
    strength, length and annotator; `calibration` compares probabilities predicted on `validation` with the share of
    predictions that came true.
    """
    accuracy = measure_reward_model(compute.on(loop), reward_model, preference_dataset)
    splits = accuracy["splits"] | {"unseen": accuracy["unseen"]}
    measured = {split: figures for split, figures in splits.items() if figures["accuracy"]}
    metadata: dict[str, Any] = {}
    for split, figures in measured.items():
        own, longest, shortest = (figures[name]["value"] for name in RATES)
        shown = {"accuracy": own, "longest_wins": longest, "shortest_wins": shortest}
        shown["calibration_error"] = figures["calibration_error"]
        metadata |= numbers({f"{name}_{split}": value for name, value in shown.items()})
    rows = [_accuracy_row("split", split, figures) for split, figures in measured.items()]
    groups = [
        _accuracy_row("labels", f"{group}: {name}", figures)
        for group in ("kinds", "rounds", "strengths", "length_differences", "annotators")
        for name, figures in accuracy[group].items()
        if figures["accuracy"]
    ]
    tables = {
        "accuracy": markdown_table(rows),
        "accuracy_by": markdown_table(groups),
        "calibration": markdown_table([_bin_row(one) for one in accuracy["calibration"].get("validation", [])]),
    }
    return dg.MaterializeResult(
        value=accuracy,
        metadata={**tables, **metadata},
        data_version=dg.DataVersion(content_hash("accuracy", json.dumps(accuracy, sort_keys=True))),
    )


@round_check("reward_model_accuracy")
def better_than_guessing(
    context: dg.AssetCheckExecutionContext, loop: dg.ResourceParam[LoopFolder], reward_model_accuracy: dict[str, Any]
) -> dg.AssetCheckResult:
    """Whether labels that the reward model never saw tell it from chance and from picking by length: PPO needs it."""
    refusal = chance_refusal(loop, context.partition_key, reward_model_accuracy)
    found = not_above_chance(reward_model_accuracy)
    accepted = f"Accepted by `reward_model.accept_chance`: {found}." if found else "It is above chance and lengths."
    return dg.AssetCheckResult(passed=not refusal, description=refusal or accepted)


def _bin_row(calibration_bin: dict[str, Any]) -> dict[str, Any]:
    share = calibration_bin["accuracy"]
    return {
        "predicted": calibration_bin["confidence"],
        "came true": share["value"],
        "95% interval": f"{share['low']:.3f} to {share['high']:.3f}",
        "n": share["n"],
    }


def _accuracy_row(head: str, name: str, figures: dict[str, Any]) -> dict[str, Any]:
    own = figures["accuracy"]
    return {
        head: name,
        "accuracy": own["value"],
        "95% interval": f"{own['low']:.3f} to {own['high']:.3f}",
        "n": own["n"],
        "longest wins": figures["length_baseline"]["value"],
        "shortest wins": figures["brevity_baseline"]["value"],
        "chance": figures["chance"],
    }
