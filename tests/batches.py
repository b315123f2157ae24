"""Loops with batches to annotate, made without running a stage."""

from collections import Counter
from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq
from loops import ROUND, asset_path, write_loop

from rlhf_dagster.common.progress import Progress
from rlhf_dagster.config.labeling import LabelingSettings
from rlhf_dagster.labeling.comparisons import build_comparisons
from rlhf_dagster.loop.annotators import BATCHES
from rlhf_dagster.loop.folder import LoopFolder
from rlhf_dagster.loop.labels import simulate
from rlhf_dagster.records.ids import completion_id, prompt_id
from rlhf_dagster.records.schemas import COMPARISONS, COMPLETIONS, table
from rlhf_dagster.tasks.known import get_task


def pairs(n: int, round_key: str, purpose: str) -> pd.DataFrame:
    prompts, texts = get_task("sentiment").prompts(n, 0, "train"), ["it was good .", "it was bad ."]
    rows = [
        {
            "completion_id": completion_id(prompt_id(prompt), purpose, {}, 0, index),
            "prompt_id": prompt_id(prompt),
            "prompt": prompt,
            "policy_id": "p",
            "index": index,
            "text": text,
            "token_ids": [],
            "log_probs": [],
            "reference_log_probs": [],
            "decoding": "{}",
            "seed": 0,
        }
        for prompt in prompts
        for index, text in enumerate(texts)
    ]
    settings = LabelingSettings(kind="pair", overlap=0.4, overlap_labels=3)
    frame = build_comparisons(table(rows, COMPLETIONS).to_pandas(), settings, round_key, seed=0)
    return frame.assign(purpose=purpose)


def send(loop: LoopFolder, n: int, round_key: str = ROUND, purpose: str = "train") -> None:
    """A batch as ``collect_round`` or ``train_round`` sends it."""
    frame = pairs(n, round_key, purpose)
    loop.label_store.send(frame)
    path = asset_path(loop, BATCHES[purpose], round_key)
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table(frame, COMPARISONS), path)


def open_loop(folder: Path) -> LoopFolder:
    return LoopFolder.open(write_loop(folder, label_store={"simulated_annotators": False}))


def answers(loop: LoopFolder, round_key: str = ROUND, purpose: str = "train") -> Counter:
    """Each version of each label once; nothing twice means that all counts are 1."""
    versions, _ = loop.label_store.read(round_key, purpose)
    return Counter((version.comparison_id, version.annotator, str(version.result)) for version in versions)


def expected(folder: Path, n: int, round_key: str = ROUND, purpose: str = "train") -> Counter:
    """What is answered without any pace."""
    loop = open_loop(folder)
    send(loop, n, round_key, purpose)
    simulate(loop, round_key, purpose, Progress("annotate", str))
    return answers(loop, round_key, purpose)
