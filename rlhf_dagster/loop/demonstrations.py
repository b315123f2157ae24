"""Demonstrations that annotators write: prompts out, responses in; and those of the test split, kept as references."""

from typing import Any

import pandas as pd

from rlhf_dagster.data.imported import imported, is_imported
from rlhf_dagster.errors import UserError
from rlhf_dagster.labeling.demonstrations import (
    DEMONSTRATION_ROUND,
    PURPOSE,
    demonstration_comparisons,
    demonstration_rows,
)
from rlhf_dagster.loop.folder import LoopFolder
from rlhf_dagster.loop.labels import read_labels
from rlhf_dagster.records.parquet import to_parquet
from rlhf_dagster.records.schemas import COMPARISONS, DEMONSTRATIONS, IMPORTED_DEMONSTRATIONS, table
from rlhf_dagster.records.tables import records

REFERENCES = "assets/demonstrations/test.parquet"


def send_prompts(loop: LoopFolder, prompts: pd.DataFrame) -> tuple[pd.DataFrame, int]:
    """Ask annotators to write responses to train prompts.

    Returns all requests that were ever sent (schema COMPARISONS), and how many were sent now.
    """
    wanted = loop.config.data.demonstrations_to_write
    if not wanted:
        return table([], COMPARISONS).to_pandas(), 0
    store, seed = loop.label_store, loop.config.stage_seed("demonstration_batch")
    sent = store.send(demonstration_comparisons(prompts, wanted, seed, _demonstrated(loop))).sent
    return store.comparisons(DEMONSTRATION_ROUND, PURPOSE), sent


def read_written(loop: LoopFolder) -> list[dict[str, Any]]:
    """What annotators wrote (rows of IMPORTED_DEMONSTRATIONS).

    Raises UserError where they were asked, none has written yet, and no demonstrations come from elsewhere.
    """
    config = loop.config
    if not config.data.demonstrations_to_write:
        return []
    comparisons = loop.label_store.comparisons(DEMONSTRATION_ROUND, PURPOSE)
    labels, _ = read_labels(loop, DEMONSTRATION_ROUND, PURPOSE)
    # No `user`: splits keep a user's rows together, but not an annotator's. The prompt decides the split instead.
    written = [
        row | {"user": ""} for row in records(demonstration_rows(labels, comparisons, loop.config.label_store.kind))
    ]
    if not written and not _others(loop):
        raise UserError(
            f"None of the {len(comparisons)} demonstrations asked for is written yet; let people write them in the "
            f"label store, then run `rlhf run prepare {loop.option}` again."
        )
    return written


def keep_references(loop: LoopFolder, of_test: pd.DataFrame) -> None:
    """Keep the demonstrations of the test split (schema DEMONSTRATIONS), on which nothing is trained.

    What evaluations compare responses with (:func:`read_references`). Without any, nothing is written.
    """
    if len(of_test) or loop.store.exists(REFERENCES):
        loop.store.put(REFERENCES, to_parquet(table(of_test, DEMONSTRATIONS)))


def read_references(loop: LoopFolder) -> dict[str, list[str]]:
    """By the id of a test prompt, the responses that people have written to it."""
    found = loop.table_at(REFERENCES, "run demonstrations again", ["prompt_id", "response"])
    if found is None:
        return {}
    return {str(prompt): group.tolist() for prompt, group in found.groupby("prompt_id")["response"]}


def _demonstrated(loop: LoopFolder) -> set[str]:
    """Ids of the prompts that have an imported demonstration."""
    found = imported(loop.store, "demonstrations", IMPORTED_DEMONSTRATIONS)
    return set() if found is None else set(found["prompt_id"].to_pylist())


def _others(loop: LoopFolder) -> bool:
    """Whether demonstrations come from somewhere else too."""
    given = loop.config.data.demonstrations_dataset is not None
    return loop.config.has_task or given or is_imported(loop.store, "demonstrations")
