"""The three data tables, whatever their source."""

from collections.abc import Iterable
from pathlib import Path

import pandas as pd
import pyarrow as pa

from rlhf_dagster.config import DataSettings, HubDataset, LoopConfig
from rlhf_dagster.data.files import read_dataset, read_documents
from rlhf_dagster.errors import UserError
from rlhf_dagster.lineage.ids import content_hash, demonstration_id, prompt_id, split_of
from rlhf_dagster.lineage.schemas import DEMONSTRATIONS, PRETRAINING_TEXT, PROMPTS, table
from rlhf_dagster.tasks.base import Task, get_task

SPLITS = ("train", "validation", "test")


def build_prompts(config: LoopConfig, root: Path) -> pd.DataFrame:
    """Deduplicated prompts with their split (schema PROMPTS)."""
    data = config.data
    if data.prompts_dataset:
        rows = _dataset_prompts(data.prompts_dataset, root, data)
    elif config.has_task:
        rows = _task_prompts(get_task(data.task), config)
    else:
        rows = _imported(root, "prompts").to_dict("records")
        rows = [row | {"split": split_of(row["user"] or row["text"], data.validation, data.test)} for row in rows]
    return _finish(rows, PROMPTS, "prompt_id", "prompts")


def build_demonstrations(config: LoopConfig, root: Path, prompts: pd.DataFrame) -> pd.DataFrame:
    """Demonstrations (schema DEMONSTRATIONS); those whose prompt is in the test split are left out.

    A prompt that is among ``prompts`` (schema PROMPTS) has its split there, which may be that of its user.
    """
    data = config.data
    known = dict(zip(prompts["text"], prompts["split"], strict=True))
    if config.has_task and not data.demonstrations_dataset:
        rows = _task_demonstrations(get_task(data.task), config)
    else:
        rows = [
            _demonstration(*pair, known.get(pair[0]) or split_of(pair[0], data.validation, data.test))
            for pair in _given_pairs(data, root)
        ]
    return _finish(
        [row for row in rows if row["split"] != "test"], DEMONSTRATIONS, "demonstration_id", "demonstrations"
    )


def build_pretraining_text(config: LoopConfig, root: Path, demonstrations: pd.DataFrame) -> pd.DataFrame:
    """Documents (schema PRETRAINING_TEXT), 5% of them for validation."""
    data = config.data
    if data.pretraining_dataset:
        source = data.pretraining_dataset
        texts: Iterable[tuple[str, str]] = [(row["text"], source.name) for row in read_dataset(source, root)]
    elif data.pretraining_files:
        texts = [(text, name) for name in data.pretraining_files for text in read_documents(root / name)]
    elif config.has_task:
        task, seed = get_task(data.task), config.base_model.tiny.seed
        return _finish(_task_documents(task, data, seed), PRETRAINING_TEXT, "text_id", "pretraining text")
    else:
        kept = demonstrations[demonstrations["split"] == "train"]
        texts = [
            (f"{prompt}\n{response}", "demonstrations")
            for prompt, response in zip(kept["prompt"], kept["response"], strict=True)
        ]
    rows = [_document(text, source, split_of(text, 0.05, 0)) for text, source in texts]
    return _finish(rows, PRETRAINING_TEXT, "text_id", "pretraining text")


def _task_prompts(task: Task, config: LoopConfig) -> list[dict]:
    sizes, seed = _sizes(config.data.prompts, config.data), config.stage_seed("prompts")
    return [_prompt(text, task.name, "", split) for split in SPLITS for text in task.prompts(sizes[split], seed, split)]


def _task_demonstrations(task: Task, config: LoopConfig) -> list[dict]:
    sizes, seed = _sizes(config.data.demonstrations, config.data), config.stage_seed("demonstrations")
    return [
        _demonstration(prompt, response, task.name, split)
        for split in ("train", "validation")
        for prompt, response in task.demonstrations(sizes[split], seed, split)
    ]


def _given_pairs(data: DataSettings, root: Path) -> list[tuple[str, str, str]]:
    dataset = data.demonstrations_dataset
    if dataset:
        return [(row["prompt"], row["response"], dataset.name) for row in read_dataset(dataset, root)]
    frame = _imported(root, "demonstrations")
    return list(frame[["prompt", "response", "source"]].itertuples(index=False, name=None))


def _task_documents(task: Task, data: DataSettings, seed: int) -> list[dict]:
    sizes = {"train": data.pretraining_texts, "validation": max(data.pretraining_texts // 20, 1)}
    return [
        _document(text, task.name, split)
        for split, n in sizes.items()
        for text in task.pretraining_text(n, seed, split)
    ]


def _dataset_prompts(dataset: HubDataset, root: Path, data: DataSettings) -> list[dict]:
    rows = []
    for row in read_dataset(dataset, root):
        user = content_hash("user", str(row["user"])) if row.get("user") else ""
        rows.append(
            _prompt(row["prompt"], dataset.name, user, split_of(user or row["prompt"], data.validation, data.test))
        )
    return rows


def _prompt(text: str, source: str, user: str, split: str) -> dict:
    return {"prompt_id": prompt_id(text), "text": text, "source": source, "user": user, "split": split}


def _demonstration(prompt: str, response: str, source: str, split: str) -> dict:
    return {
        "demonstration_id": demonstration_id(prompt, response),
        "prompt_id": prompt_id(prompt),
        "prompt": prompt,
        "response": response,
        "source": source,
        "split": split,
    }


def _document(text: str, source: str, split: str) -> dict:
    return {"text_id": content_hash("text", text), "text": text, "source": source, "split": split}


def _sizes(n: int, data: DataSettings) -> dict[str, int]:
    held_out = {"validation": round(n * data.validation), "test": round(n * data.test)}
    return {"train": n - sum(held_out.values())} | held_out


def _imported(root: Path, kind: str) -> pd.DataFrame:
    path = root / "imports" / f"{kind}.parquet"
    if not path.exists():
        raise UserError(f"{path}: nothing imported yet; run `rlhf import {kind} FILE --loop {root}`.")
    return pd.read_parquet(path)


def _finish(rows: list[dict], schema: pa.Schema, key: str, name: str) -> pd.DataFrame:
    """Keep the first of each id, in order of id, and insist on something to work with."""
    if not rows:
        raise UserError(f"No {name}: the source is empty; check `data` in the loop's config.")
    frame = pd.DataFrame(rows).drop_duplicates(key).sort_values(key, ignore_index=True)
    return table(frame, schema).to_pandas()
