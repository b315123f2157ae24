"""Demonstrations: prompts that annotators are asked to answer themselves, and what they wrote."""

from collections.abc import Collection

import pandas as pd

from rlhf_dagster.labeling.parse import written_labels
from rlhf_dagster.records.chats import prompt_of_row
from rlhf_dagster.records.ids import comparison_id, content_hash, demonstration_id
from rlhf_dagster.records.kinds import DEMONSTRATION
from rlhf_dagster.records.schemas import COMPARISONS, IMPORTED_DEMONSTRATIONS, table
from rlhf_dagster.records.tables import Row, records

DEMONSTRATION_ROUND = PURPOSE = "demonstrations"
"""The round and the purpose of everything that is asked here."""


def demonstration_comparisons(
    prompts: pd.DataFrame, n: int, seed: int, demonstrated: Collection[str] = ()
) -> pd.DataFrame:
    """Requests for demonstrations of at most ``n`` prompts of the train split, drawn by a hash of ``seed``.

    ``prompts`` has the columns of PROMPTS; those whose ids are among ``demonstrated`` have one already and are left
    out. The result has the columns of COMPARISONS, without any response; the comparison id of a prompt is always the
    same.
    """
    open_prompts = prompts[(prompts["split"] == "train") & ~prompts["prompt_id"].isin(list(demonstrated))]
    drawn = sorted(records(open_prompts), key=lambda row: content_hash("demonstration", seed, row["prompt_id"]))[:n]
    rows = [
        {
            "comparison_id": comparison_id([prompt["prompt_id"]], DEMONSTRATION.name, DEMONSTRATION_ROUND),
            "round": DEMONSTRATION_ROUND,
            "kind": DEMONSTRATION.name,
            "purpose": PURPOSE,
            "role": "label",
            "prompt_id": prompt["prompt_id"],
            "prompt": prompt["text"],
            "messages": prompt.get("messages"),
            "completion_ids": [],
            "responses": [],
            "policy_ids": [],
            "display_order": [],
            "gold_ranks": None,
            "repeat_of": "",
            "labels_wanted": 1,
            "project": "",
            "task_id": "",
            "token_ids": [],
            "tokenizers": [],
        }
        for prompt in drawn
    ]
    return table(rows, COMPARISONS).to_pandas()


def demonstration_rows(labels: pd.DataFrame, comparisons: pd.DataFrame, source: str = "label_studio") -> pd.DataFrame:
    """What annotators wrote, in the columns of IMPORTED_DEMONSTRATIONS, sorted by id.

    ``labels`` and ``comparisons`` have the columns of LABELS and COMPARISONS. Only the last submitted version of a text
    counts; what somebody took back is left out. The user is the annotator's pseudonym. The same text for the same
    prompt is one demonstration, whoever wrote it.
    """
    details = {row["comparison_id"]: row for row in records(comparisons)}
    written = records(written_labels(labels[labels["kind"] == DEMONSTRATION.name]))
    rows: dict[str, Row] = {}
    for label in written:
        prompt = details[label["comparison_id"]]
        identity = demonstration_id(prompt_of_row(prompt), label["text"])
        row = {
            "demonstration_id": identity,
            "prompt_id": prompt["prompt_id"],
            "prompt": prompt["prompt"],
            "messages": prompt.get("messages"),
            "response": label["text"],
            "source": source,
            "user": label["annotator"],
        }
        rows.setdefault(identity, row)
    return table([rows[identity] for identity in sorted(rows)], IMPORTED_DEMONSTRATIONS).to_pandas()
