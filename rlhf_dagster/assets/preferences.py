"""Group `preferences`: what was sampled, compared, labelled, and what a reward model may learn from it."""

from typing import Any

import dagster as dg
import pandas as pd

from rlhf_dagster.assets.backfill_order import wait_for_older_rounds
from rlhf_dagster.assets.define import JSON, loop_asset, stage_progress
from rlhf_dagster.assets.metadata import as_list, label_store_link, markdown_table, numbers, rate_cell, table_result
from rlhf_dagster.assets.rounds import open_rounds
from rlhf_dagster.labeling.not_trained_on import NOT_TRAINED_ON
from rlhf_dagster.labeling.parse import machine_labels, usable_labels
from rlhf_dagster.labeling.quality.label_quality import measure_quality
from rlhf_dagster.labeling.quality.policies import preferred_policies
from rlhf_dagster.loop.folder import LoopFolder
from rlhf_dagster.loop.guards.deleted_rounds import left_behind, unsettled_sentence
from rlhf_dagster.loop.guards.left_out import preference_notices
from rlhf_dagster.loop.guards.splits import require_prompts
from rlhf_dagster.loop.labels import (
    labels_read,
    read_labels,
    read_quarantine,
    send_training_batch,
    snapshot_preferences,
)
from rlhf_dagster.loop.sampling import pin_round, sample_completions
from rlhf_dagster.loop.selection import chosen_by
from rlhf_dagster.records.machines import by_people
from rlhf_dagster.records.round_keys import IMPORT_ROUND
from rlhf_dagster.resources.compute import Compute
from rlhf_dagster.training.texts.cuts import Cuts

SHOWN = [
    *("annotator", "labels", "agreement", "gold_accuracy", "consistency", "first_position_share", "median_seconds"),
    *("competence", "review"),
]
"""Columns of the annotators' table in the UI; the file has all of them."""
RATES_SHOWN = ("agreement", "agreement_with_ties", "alpha", "first_position", "gold", "consistency", "drift")
"""Rates of all labels in the UI; the file has their intervals."""


@loop_asset("preferences", by_round=True, **JSON)
def round_manifest(
    context: dg.AssetExecutionContext, loop: dg.ResourceParam[LoopFolder]
) -> dg.MaterializeResult[dict[str, str]]:
    """Which policy this round samples from: the champion when the round began, pinned once and never changed."""
    manifest = pin_round(loop, context.partition_key)
    return dg.MaterializeResult(
        value=manifest, metadata=manifest, data_version=dg.DataVersion(manifest["behaviour_policy"])
    )


@loop_asset("preferences", by_round=True, gpu=True)
def completions(
    context: dg.AssetExecutionContext,
    loop: dg.ResourceParam[LoopFolder],
    compute: Compute,
    round_manifest: dict[str, str],
    prompts: pd.DataFrame,
) -> dg.MaterializeResult[pd.DataFrame]:
    """Samples of the pinned policy for training prompts, with the log-probability of every token.

    Where an earlier round's reward model chooses the comparisons (`chosen_by`), more samples are drawn than compared.
    `cut_prompts` counts prompts that are longer than what is read of them, `unended_responses` responses without end.
    """
    require_prompts(loop.config, prompts)
    cuts = Cuts()
    frame = sample_completions(compute.on(loop), round_manifest, prompts, cuts, stage_progress(context))
    return table_result(
        frame,
        ["completion_id", "text"],
        behaviour_policy=round_manifest["behaviour_policy"],
        prompts=int(frame["prompt_id"].nunique()),
        chosen_by=chosen_by(loop, round_manifest["round"]),
        **numbers({"distinct_share": frame["text"].nunique() / len(frame)} | cuts.metrics()),
        samples=markdown_table(frame[["prompt", "text"]].head(5).to_dict("records")),
    )


# Demonstrations and the SFT checkpoint are read for `labeling.drift_share` alone; imported rounds do without.
@loop_asset("preferences", by_round=True, deps=["demonstrations", "sft_checkpoint"])
def preference_batch(
    context: dg.AssetExecutionContext, loop: dg.ResourceParam[LoopFolder], completions: pd.DataFrame
) -> dg.MaterializeResult[pd.DataFrame]:
    """Comparisons of the completions, each in a random order, sent to the label store. Sending again adds nothing.

    With `labeling.drift_share` some set SFT responses against demonstrations. `chosen_by` names the reward model of an
    earlier round that has chosen the comparisons, `policies` the policies whose responses are compared.
    """
    batch = send_training_batch(loop, context.partition_key, completions, stage_progress(context))
    frame = batch.comparisons
    return table_result(
        frame,
        ["comparison_id", "display_order"],
        comparisons=len(frame),
        newly_sent=batch.sent,
        already_there=batch.already_there,
        labels_wanted=int(frame["labels_wanted"].sum()),
        roles=markdown_table([{"role": role, "comparisons": n} for role, n in frame["role"].value_counts().items()]),
        chosen_by=chosen_by(loop, context.partition_key),
        policies=", ".join(sorted(set(frame["policy_ids"].explode().dropna()))),
        **label_store_link(loop, context.partition_key, "train"),
    )


@loop_asset("preferences", by_round=True)
def preference_labels(
    context: dg.AssetExecutionContext, loop: dg.ResourceParam[LoopFolder], preference_batch: pd.DataFrame
) -> dg.MaterializeResult[pd.DataFrame]:
    """Every version of every annotation of the round, parsed. What cannot be parsed is quarantined with its reason."""
    frame, quarantined = read_labels(loop, context.partition_key, "train")
    usable, machines = usable_labels(frame), machine_labels(frame)
    if usable.empty:
        raise dg.Failure(
            f"{context.partition_key} has no usable label yet; label its comparisons, then run this again."
        )
    return table_result(
        frame,
        ["label_id", "status"],
        labels=len(frame),
        usable_labels=len(usable),
        labelled_comparisons=int(usable["comparison_id"].nunique()),
        comparisons=len(preference_batch),
        annotators=int(by_people(frame)["annotator"].nunique()),
        **({"labels_by_machines": machines} if machines else {}),
        quarantined=quarantined,
    )


@loop_asset("preferences", by_round=True, **JSON)
def label_quality(
    context: dg.AssetExecutionContext,
    loop: dg.ResourceParam[LoopFolder],
    preference_labels: pd.DataFrame,
    preference_batch: pd.DataFrame,
) -> dg.MaterializeResult[dict[str, Any]]:
    """How far the round's labels can be trusted: agreement, known answers, habits, and whom to talk to.

    Of comparisons that several people judged, `agreement` is the share of pairs of labels that name the same response
    (`agreement_with_ties`: or the same tie) and `alpha` is Krippendorff's (0 by chance, 1 for full agreement).
    `first_position` is the share of choices that fall on the response shown first, which should be near one over the
    number of responses. A figure whose labels do not say what it needs is not known. `sources` are files that do not
    say who labelled. Annotators that are machines are in none of these figures; `machines` compares them with people.
    Where an imported file names who wrote the responses, `policies` says whose people prefer.
    """
    quarantine = read_quarantine(loop, context.partition_key, "train")
    annotators, summary = measure_quality(preference_labels, preference_batch, quarantine)
    # JSON has no NaN, which is what pandas makes of a figure that is missing for one annotator.
    rows = annotators.astype(object).where(annotators.notna(), None).to_dict("records")
    metadata: dict[str, Any] = {name: value for name, value in summary.items() if isinstance(value, int | float)}
    for name in RATES_SHOWN:
        if summary[name]:
            metadata |= numbers({name: summary[name]["value"]})
        elif name in summary["not_known"]:
            metadata[name] = summary["not_known"][name]
    if summary["sources"]:
        metadata["sources"] = markdown_table([_source_row(figures) for figures in summary["sources"]])
    policies = (
        preferred_policies(preference_labels, preference_batch) if context.partition_key == IMPORT_ROUND else None
    )
    if policies:
        summary["policies"] = policies
        metadata["policies"] = markdown_table([_policy_row(figures) for figures in policies["policies"]])
    if summary["machines"]:
        metadata["machines"] = markdown_table([_machine_row(figures) for figures in summary["machines"]])
    return dg.MaterializeResult(
        value={"summary": summary, "annotators": rows, "labels_read": labels_read(preference_labels)},
        metadata=metadata
        | {
            "by_annotator": markdown_table([{name: row[name] for name in SHOWN} for row in rows]),
            "quarantined": markdown_table([{"reason": r, "annotations": n} for r, n in summary["quarantined"].items()]),
        },
    )


def _source_row(figures: dict[str, Any]) -> dict[str, Any]:
    first = figures["first_position"] or {}
    counts = {name: figures[name] for name in ("annotator", "labels", "ties")}
    return counts | {"first_position": first.get("value", "not known"), "chance": first.get("chance")}


def _policy_row(figures: dict[str, Any]) -> dict[str, Any]:
    """A policy's figures with their intervals; comparisons that do not reach all policies give no ratings."""
    elo = figures["elo"]
    rating = f"{elo['value']:.0f} ({elo['low']:.0f} to {elo['high']:.0f})" if elo else "not known"
    return {
        "policy": figures["policy"],
        "win rate": rate_cell(figures["win_rate"]),
        "Elo": rating,
        "Bradley-Terry": f"{figures['strength']['value']:.2f}" if elo else "not known",
        "comparisons": figures["win_rate"]["n"],
    }


def _machine_row(figures: dict[str, Any]) -> dict[str, Any]:
    """A machine's shares of agreement with people, and on how many pairs of labels that rests."""
    shares = {name: (figures[name] or {}).get("value") for name in ("gold", "first_position")}
    agreement = figures["agreement"] or {}
    between = f"{agreement['low']:.3f} to {agreement['high']:.3f}" if agreement else ""
    compared = {"agrees with people": agreement.get("value"), "95% interval": between, "n": agreement.get("n")}
    return {name: figures[name] for name in ("annotator", "labels", "undecided")} | compared | shares


@loop_asset("preferences", by_round=True)
def preference_dataset(
    context: dg.AssetExecutionContext,
    loop: dg.ResourceParam[LoopFolder],
    preference_labels: pd.DataFrame,
    preference_batch: pd.DataFrame,
    prompts: pd.DataFrame,
) -> dg.MaterializeResult[pd.DataFrame]:
    """The frozen snapshot a reward model trains on: usable labels of all rounds up to this one, split three ways.

    `validation` holds comparisons that are not trained on, `held_out_annotators` labels of people who are never trained
    on. Prompts of the test split are in none of the three. `why_not` says why labels are `not_trained_on`.
    """
    wait_for_older_rounds(context)
    key, partitions = context.partition_key, open_rounds(context.instance, loop)
    require_prompts(loop.config, prompts)
    left = left_behind(loop, key, partitions)
    frame, summary = snapshot_preferences(loop, key, preference_labels, preference_batch, prompts, left)
    costs = summary.pop("holding_out")
    summary |= {"holding_out": costs} if costs else {}
    refused = [costs] if costs and not summary["annotators_held_out"] else []
    notices = [*preference_notices(loop.config, frame), *refused]
    warnings = [*([unsettled_sentence(loop, partitions)] if left else []), *notices]
    if warnings:
        summary["warnings"] = as_list(warnings)
        context.log.warning(" ".join(warnings))
    counts = {f"{split}_labels": int(n) for split, n in frame["split"].value_counts().items()}
    reasons = summary.pop("not_trained_on")
    summary["not_trained_on"] = sum(reasons.values())
    summary["why_not"] = ", ".join(f"{n:,} {NOT_TRAINED_ON[reason]}" for reason, n in reasons.items()) or "none"
    rounds_used = ", ".join(one for one in loop.rounds_with("preference_labels", key) if one not in left)
    return table_result(frame, ["label_id", "split"], rounds=rounds_used, **counts, **summary)
