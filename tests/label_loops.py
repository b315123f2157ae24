"""Loops whose comparisons a person can judge, of every kind."""

from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow.parquet as pq
from batches import pairs
from loops import ROUND, asset_path, write_loop

from rlhf_dagster.config.labeling import LabelingSettings
from rlhf_dagster.labeling.comparisons import build_comparisons
from rlhf_dagster.loop.annotators import BATCHES
from rlhf_dagster.loop.folder import LoopFolder
from rlhf_dagster.records.ids import completion_id, prompt_id
from rlhf_dagster.records.kinds import RANKED_KINDS
from rlhf_dagster.records.schemas import COMPARISONS, COMPLETIONS, table


def loop_of_kind(folder: Path, kind: str, n: int = 4, purpose: str = "train", **labeling: Any) -> LoopFolder:
    """A collected round of ``n`` comparisons, three responses each where the kind compares several."""
    settings = {
        "kind": kind,
        "responses_per_prompt": 3,
        "overlap": 0.0,
        "rating_axes": ["overall", "honest"],
    } | labeling
    loop = LoopFolder.open(
        write_loop(folder, labeling=settings, label_store={"kind": "embedded", "simulated_annotators": False})
    )
    frame = pairs(n, ROUND, purpose) if purpose == "evaluation" else _comparisons(LabelingSettings(**settings), n)
    frame = frame.assign(labels_wanted=1)
    loop.label_store.send(frame)
    path = asset_path(loop, BATCHES[purpose], ROUND)
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table(frame, COMPARISONS), path)
    return loop


def _comparisons(settings: LabelingSettings, n: int) -> pd.DataFrame:
    k = RANKED_KINDS[settings.kind].responses or settings.responses_per_prompt
    rows = [
        {
            "completion_id": completion_id(prompt_id(f"question {number}"), "p", {}, 0, index),
            "prompt_id": prompt_id(f"question {number}"),
            "prompt": f"question {number}",
            "policy_id": "p",
            "index": index,
            "text": f"answer {index} <b>to</b> {number}",
            "token_ids": [],
            "log_probs": [],
            "reference_log_probs": [],
            "decoding": "{}",
            "seed": 0,
        }
        for number in range(n)
        for index in range(k)
    ]
    return build_comparisons(table(rows, COMPLETIONS).to_pandas(), settings, ROUND, seed=0)
