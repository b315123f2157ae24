"""Group `reward`: the reward model."""

from pathlib import Path
from typing import Any

import dagster as dg
import pandas as pd

from rlhf_dagster.assets.define import JSON, MODEL, loop_asset, markdown_table, model_result, numbers, stage_progress
from rlhf_dagster.assets.launch import RewardModelLaunch, for_this_run
from rlhf_dagster.loop_folder import LoopFolder
from rlhf_dagster.models import Checkpoint
from rlhf_dagster.stages.evaluation import measure_reward_model
from rlhf_dagster.stages.models import train_reward_model


@loop_asset("reward", by_round=True, gpu=True, **MODEL)
def reward_model(
    context: dg.AssetExecutionContext,
    config: RewardModelLaunch,  # type: ignore[valid-type]
    loop: dg.ResourceParam[LoopFolder],
    sft_checkpoint: Checkpoint,
    preference_dataset: Path,
    prompts: Path,
) -> dg.MaterializeResult[Checkpoint]:
    """Predicts which response people prefer. Trained from the SFT checkpoint on all labels so far.

    Its scores have mean 0 and deviation 1 on samples of the SFT policy (`reference_mean`, `reference_std`). A `loss` is
    the cross-entropy of the choice in nats, an `accuracy` the share of labels whose best response it scores highest.
    """
    settings, progress = for_this_run(loop.config.reward_model, config), stage_progress(context)
    result = train_reward_model(
        loop,
        context.partition_key,
        settings,
        sft=sft_checkpoint,
        preferences=preference_dataset,
        prompts=prompts,
        progress=progress,
    )
    return model_result(result)


@loop_asset("reward", by_round=True, gpu=True, **JSON)
def reward_model_accuracy(
    loop: dg.ResourceParam[LoopFolder],
    reward_model: Checkpoint,
    preference_dataset: pd.DataFrame,
) -> dg.MaterializeResult[dict[str, Any]]:
    """How often the reward model picks what people picked, on labels it never saw, beside two baselines.

    `validation` holds comparisons of their own, `held_out_annotators` people whose labels are never trained on.
    `longest_wins` is the accuracy of preferring the longest response; chance is one over the number of responses.
    """
    accuracy = measure_reward_model(loop, reward_model, preference_dataset)
    rows: list[dict[str, Any]] = []
    metadata: dict[str, Any] = {}
    for split, figures in accuracy["splits"].items():
        own, length = figures["accuracy"], figures["length_baseline"]
        metadata |= numbers({f"accuracy_{split}": own["value"], f"longest_wins_{split}": length["value"]})
        rows.append(
            {
                "split": split,
                "accuracy": own["value"],
                "95% interval": f"{own['low']:.3f} to {own['high']:.3f}",
                "n": own["n"],
                "longest wins": length["value"],
                "chance": figures["chance"],
            }
        )
    return dg.MaterializeResult(value=accuracy, metadata={"accuracy": markdown_table(rows), **metadata})
