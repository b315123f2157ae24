"""Group `evaluation`: the report, and the judgments of people."""

from typing import Any

import dagster as dg
import pandas as pd

from rlhf_dagster.assets.define import JSON, after_policies, loop_asset, round_check, stage_progress
from rlhf_dagster.assets.metadata import (
    label_store_link,
    markdown_table,
    numbers,
    page_shown,
    table_result,
    win_rates_table,
)
from rlhf_dagster.assets.report_metadata import report_metadata
from rlhf_dagster.common.sealed import seal_page
from rlhf_dagster.evaluation.gate import rules_as_dicts
from rlhf_dagster.evaluation.held_out_text import held_out_documents
from rlhf_dagster.evaluation.win_rate import BEHAVIOUR, REWARD_MODEL, find_win_rate
from rlhf_dagster.lineage.models import Checkpoint
from rlhf_dagster.loop.arms.beside import measure_arms, sample_arms
from rlhf_dagster.loop.candidate import round_candidate, round_choice
from rlhf_dagster.loop.evaluation import decide, evaluate_round, read_human_evaluation
from rlhf_dagster.loop.folder import LoopFolder
from rlhf_dagster.loop.labels import send_evaluation_batch
from rlhf_dagster.loop.sampling import sample_evaluation
from rlhf_dagster.resources.compute import Compute
from rlhf_dagster.training.texts.cuts import Cuts

_SAMPLES_SHOWN = 3
"""Prompts of which the UI shows the responses; the report shows more."""


@after_policies("evaluation", gpu=True)
def evaluation_completions(
    context: dg.AssetExecutionContext,
    loop: dg.ResourceParam[LoopFolder],
    compute: Compute,
    round_manifest: dict[str, str],
    sft_checkpoint: Checkpoint,
    reward_model: Checkpoint,
    prompts: pd.DataFrame,
) -> dg.MaterializeResult[pd.DataFrame]:
    """One response of the new policy, of SFT and of the behaviour policy for each test prompt.

    The new policy is that of `release.arm`. With `arms` or `evaluation.best_of_n` also one response of each of those.
    """
    here = compute.on(loop)
    cuts = Cuts()
    policy = round_candidate(loop, round_manifest["round"]).policy
    frame = sample_evaluation(here, round_manifest, policy, sft_checkpoint, prompts, cuts)
    arms = sample_arms(here, round_manifest["round"], frame, sft_checkpoint, reward_model)
    frame = pd.concat([frame, *arms], ignore_index=True)
    return table_result(
        frame,
        ["completion_id", "text", "role"],
        prompts=int(frame["prompt_id"].nunique()),
        behaviour_policy=round_manifest["behaviour_policy"],
        samples=markdown_table(_side_by_side(frame)),
        **numbers(cuts.metrics()),
    )


def _side_by_side(completions: pd.DataFrame) -> list[dict[str, str]]:
    """The first prompts with the response of each role, for those who cannot open the report."""
    shown = completions[completions["prompt_id"].isin(completions["prompt_id"].unique()[:_SAMPLES_SHOWN])]
    return [
        {"prompt": str(rows["prompt"].iloc[0]), **dict(zip(rows["role"], rows["text"], strict=True))}
        for _, rows in shown.groupby("prompt_id", sort=False)
    ]


@after_policies("evaluation", gpu=True, deps=["preference_dataset"], **JSON)
def eval_report(
    loop: dg.ResourceParam[LoopFolder],
    compute: Compute,
    round_manifest: dict[str, str],
    evaluation_completions: pd.DataFrame,
    reward_model: Checkpoint,
    reward_model_halves: dict[str, Any],
    sft_checkpoint: Checkpoint,
    pretraining_text: pd.DataFrame,
    demonstrations: pd.DataFrame,
    reward_model_accuracy: dict[str, Any],
    label_quality: dict[str, Any],
) -> dg.MaterializeResult[dict[str, Any]]:
    """Is the new policy better, and at what distance from SFT? Measured on test prompts, and written as an HTML page.

    The page of `report` has more: samples side by side, training curves, and the labels behind the policy.
    `vs_<opponent>_<judge>` are win rates (a tie counts half) against the SFT policy and the behaviour policy of the
    round; `kl_nats` is the mean sequence KL to SFT, `perplexity_ratio` the perplexity on held-out pretraining text over
    SFT's (the alignment tax), and `reward_drift` the largest difference between the win rates against SFT by the reward
    model and by the two trained on halves of the labels. `alarms` names the rules of the gate that stand in the way.
    `arms` compares other ways to learn from the same labels; `<arm>_vs_<judge>` are their win rates against SFT.
    """
    candidate = round_candidate(loop, round_manifest["round"])
    found = evaluate_round(
        compute.on(loop),
        round_manifest,
        evaluation_completions,
        reward_model,
        candidate,
        reward_model_accuracy,
        label_quality,
        sft=sft_checkpoint,
        held_out=held_out_documents(pretraining_text, demonstrations),
        halves=reward_model_halves,
        arms=measure_arms(compute.on(loop), evaluation_completions, reward_model, candidate.arm),
        choice=round_choice(loop, round_manifest["round"]),
    )
    key = loop.asset_key("eval_report", round_manifest["round"], "html")
    loop.store.put(key, seal_page(found.page))
    shown = {"report": page_shown(loop, key, found.markdown), **report_metadata(found.report)}
    return dg.MaterializeResult(value=found.report, metadata=shown)


@round_check("eval_report")
def may_be_promoted(loop: dg.ResourceParam[LoopFolder], eval_report: dict[str, Any]) -> dg.AssetCheckResult:
    """The promotion gate on what machines can measure; nobody is asked to judge a policy that fails it."""
    decision = decide(loop, eval_report, None)
    description = " ".join(decision.reasons) or "Every automatic rule of the gate is switched off."
    rate = find_win_rate(eval_report["win_rates"], (REWARD_MODEL,), BEHAVIOUR) or {}
    figures = {
        "win_rate_vs_behaviour": rate.get("value"),
        "lower_end_of_interval": rate.get("low"),
        "kl_nats": eval_report["policies"]["policy"]["kl"]["value"],
    }
    return dg.AssetCheckResult(
        passed=decision.passed,
        description=description,
        metadata={
            "outcome": decision.outcome,
            "rules": markdown_table(rules_as_dicts(decision.rules)),
            **numbers(figures),
        },
    )


@loop_asset("evaluation", by_round=True)
def evaluation_batch(
    context: dg.AssetExecutionContext,
    loop: dg.ResourceParam[LoopFolder],
    evaluation_completions: pd.DataFrame,
    eval_report: dict[str, Any],
) -> dg.MaterializeResult[pd.DataFrame]:
    """A/B comparisons of the new policy against SFT and against the behaviour policy, sent to the label store.

    It asks the gate itself: run alone after a failed check, it asks nobody to judge.
    """
    early = decide(loop, eval_report, None)
    if not early.passed:
        raise dg.Failure(f"{eval_report['policy_id']} is not worth judging: {' '.join(early.reasons)}")
    batch = send_evaluation_batch(loop, context.partition_key, evaluation_completions, stage_progress(context))
    return table_result(
        batch.comparisons,
        ["comparison_id", "display_order"],
        comparisons=len(batch.comparisons),
        **label_store_link(loop, context.partition_key, "evaluation"),
    )


@loop_asset("evaluation", by_round=True, **JSON)
def human_evaluation(
    context: dg.AssetExecutionContext,
    loop: dg.ResourceParam[LoopFolder],
    evaluation_completions: pd.DataFrame,
    evaluation_batch: pd.DataFrame,
) -> dg.MaterializeResult[dict[str, Any]]:
    """Win rates of the new policy by the annotators' A/B judgments."""
    judged = read_human_evaluation(loop, context.partition_key, evaluation_completions, evaluation_batch)
    rates = {f"win_rate_vs_{rate['against']}": rate["value"] for rate in judged["win_rates"]}
    return dg.MaterializeResult(
        value=judged,
        metadata={
            "win_rates": win_rates_table(judged["win_rates"]),
            "judgments": judged["judgments"],
            **numbers(rates),
        },
    )
