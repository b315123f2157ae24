"""Group `data`: prompts, demonstrations and pretraining text."""

from typing import Any

import dagster as dg
import pandas as pd

from rlhf_dagster.assets.define import loop_asset
from rlhf_dagster.assets.metadata import as_list, table_result
from rlhf_dagster.assets.rounds import open_import_round
from rlhf_dagster.common.words import words
from rlhf_dagster.data.conversations.keeping import keep_logs, sentences_on_logs
from rlhf_dagster.data.import_file import import_dataset
from rlhf_dagster.data.tables import build_demonstrations, build_pretraining_text, build_prompts
from rlhf_dagster.errors import UserError
from rlhf_dagster.loop.demonstrations import keep_references, read_written, send_prompts
from rlhf_dagster.loop.folder import LoopFolder
from rlhf_dagster.loop.guards.left_out import (
    LEFT_OUT_OF_TEST,
    demonstration_notices,
    pretraining_notices,
    prompt_notices,
)
from rlhf_dagster.loop.guards.splits import require_demonstrations, require_prompts


@loop_asset("data")
def prompts(
    context: dg.AssetExecutionContext, loop: dg.ResourceParam[LoopFolder]
) -> dg.MaterializeResult[pd.DataFrame]:
    """What the policy continues or answers: deduplicated, and split by user (or text) into train, validation and test.

    The reward model and PPO see only train prompts; the evaluation report measures on test prompts alone.
    """
    imported = _import_judgments(context.instance, loop)
    logged = keep_logs(loop.config.data, loop.root, loop.store)
    frame = build_prompts(loop.config, loop.root, loop.store, logged.rows)
    require_prompts(loop.config, frame)
    counts = imported | _from_logs(loop, logged.counts) | _by_split(frame)
    return table_result(frame, ["prompt_id", "split"], **counts, **_warnings(prompt_notices(loop.config, frame)))


@loop_asset("data")
def demonstration_batch(
    loop: dg.ResourceParam[LoopFolder], prompts: pd.DataFrame
) -> dg.MaterializeResult[pd.DataFrame]:
    """Prompts that annotators write responses to (`data.demonstrations_to_write`). Sending again adds nothing."""
    frame, sent = send_prompts(loop, prompts)
    return table_result(frame, ["comparison_id"], newly_sent=sent, prompts=len(frame))


@loop_asset("data")
def demonstrations(
    loop: dg.ResourceParam[LoopFolder], prompts: pd.DataFrame, demonstration_batch: pd.DataFrame
) -> dg.MaterializeResult[pd.DataFrame]:
    """Prompts with responses that people wrote, from which SFT learns the form of an answer.

    Demonstrations that annotators wrote are included; those by users, or to prompts, of the test split are not, and
    counted as `left_out_of_test`: evaluations compare responses with them (ROUGE).
    """
    written = read_written(loop)
    frame, of_test = build_demonstrations(loop.config, loop.root, loop.store, prompts, written)
    require_demonstrations(frame)
    keep_references(loop, of_test)
    loop.write_json("demonstrations", "", {LEFT_OUT_OF_TEST: len(of_test)})
    counts = {"written_by_annotators": len(written), "asked_of_annotators": len(demonstration_batch)}
    counts[LEFT_OUT_OF_TEST] = len(of_test)
    notices = _warnings(demonstration_notices(frame, len(of_test)))
    return table_result(frame, ["demonstration_id", "split"], **counts, **_by_split(frame), **notices)


@loop_asset("data")
def pretraining_text(
    loop: dg.ResourceParam[LoopFolder], demonstrations: pd.DataFrame
) -> dg.MaterializeResult[pd.DataFrame]:
    """Text for a tiny base model and for PPO-ptx; imported loops fall back on the demonstrations."""
    frame = build_pretraining_text(loop.config, loop.root, demonstrations)
    count = sum(len(words(text)) for text in frame["text"])
    notices = _warnings(pretraining_notices(frame, demonstrations))
    return table_result(frame, ["text_id", "split"], words=count, **_by_split(frame), **notices)


def _import_judgments(instance: dg.DagsterInstance, loop: LoopFolder) -> dict[str, int]:
    """Bring the judgments of `data.judgments_dataset` in as `round-0000`, which is opened; counts for the metadata."""
    dataset = loop.config.data.judgments_dataset
    if dataset is None:
        return {}
    report = import_dataset(dataset, loop.root, loop.store, loop.ledger)
    if report.held_back or report.refusals == report.read:
        why = "; ".join(f"row {number}: {reason}" for number, reason in report.refused[:3]) or "it holds none"
        raise UserError(f"The judgments of {dataset.name} are not imported: {why}. Set `form` or `columns`.")
    open_import_round(instance, loop)
    return {"judgments_added": report.added, "judgments_refused": report.refusals}


def _from_logs(loop: LoopFolder, counts: dict[str, Any]) -> dict[str, Any]:
    """What logs have brought, for the metadata; kept for commands and for the sensor too."""
    if not counts:
        return {}
    loop.write_json("prompts", "", counts)
    return {"prompts_from_logs": counts["prompts"], "logs": as_list(list(sentences_on_logs(counts)))}


def _warnings(sentences: list[str]) -> dict[str, dg.MarkdownMetadataValue]:
    return {"warnings": as_list(sentences)} if sentences else {}


def _by_split(frame: pd.DataFrame) -> dict[str, int]:
    return {f"{split}_rows": int(n) for split, n in frame["split"].value_counts().items()}
