"""The three data tables, whatever their source."""

import shlex
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import pandas as pd
import pyarrow as pa

from rlhf_dagster.config.data import DataSettings, HubDataset
from rlhf_dagster.config.loop import LoopConfig
from rlhf_dagster.data.conversations.logged import opening_of
from rlhf_dagster.data.files import read_dataset, read_documents
from rlhf_dagster.data.imported import imported, imported_key, is_imported
from rlhf_dagster.data.rows import demonstration_row, document_row, prompt_row
from rlhf_dagster.errors import UserError
from rlhf_dagster.lineage.people import people_of
from rlhf_dagster.records.chats import prompt_of_row
from rlhf_dagster.records.ids import prompt_id, split_of
from rlhf_dagster.records.pseudonyms import Pseudonyms
from rlhf_dagster.records.schemas import (
    DEMONSTRATIONS,
    FEEDBACK,
    IMPORTED_DEMONSTRATIONS,
    IMPORTED_FEEDBACK,
    IMPORTED_PROMPTS,
    PRETRAINING_TEXT,
    PROMPTS,
    table,
)
from rlhf_dagster.storage.base import Store
from rlhf_dagster.tasks.annotator_kinds import require_kind
from rlhf_dagster.tasks.base import SPLITS, Task
from rlhf_dagster.tasks.known import get_task


def build_prompts(config: LoopConfig, root: Path, store: Store, logged: Sequence[dict[str, Any]] = ()) -> pd.DataFrame:
    """Deduplicated prompts with their split (schema PROMPTS).

    ``logged`` are rows of it from logs of conversations; of equal prompts that of the source stays.
    """
    data = config.data
    if data.prompts_dataset:
        rows = _dataset_prompts(data.prompts_dataset, root, data, people_of(store))
    elif config.has_task:
        rows = _task_prompts(_task(config, root), config)
    elif logged and not is_imported(store, "prompts"):
        rows = []
    else:
        rows = [
            row | {"split": split_of(row["user"] or row["text"], data.validation, data.test)}
            for row in _imported(store, "prompts", IMPORTED_PROMPTS, root)
        ]
    return _finish(_readable([*rows, *logged], config), PROMPTS, "prompt_id", "prompts")


def build_demonstrations(
    config: LoopConfig, root: Path, store: Store, prompts: pd.DataFrame, written: Sequence[Mapping[str, Any]] = ()
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Demonstrations (schema DEMONSTRATIONS), and those left out because they are in the test split.

    ``written`` are rows of IMPORTED_DEMONSTRATIONS that annotators wrote; they are added to those of the source.

    A demonstration has the split of its user, where the user is known, and of its prompt, where ``prompts`` (schema
    PROMPTS) has it; where the two differ, the one that is held out further (test before validation before train).
    Without either, a hash of the prompt's text decides. Raises UserError where none is left.
    """
    data = config.data
    known = dict(zip(prompts["prompt_id"], prompts["split"], strict=True))
    if config.has_task and not data.demonstrations_dataset:
        rows, given = _task_demonstrations(_task(config, root), config), list(written)
    else:
        rows, given = [], [*_given_demonstrations(data, root, store, optional=bool(written)), *written]
    rows += [
        demonstration_row(prompt_of_row(row), row["response"], row["source"], _record_split(row, known, data))
        for row in given
    ]
    kept = [row for row in _readable(rows, config) if row["split"] != "test"]
    known_ids = {row["demonstration_id"] for row in kept}
    of_test = [row for row in rows if row["demonstration_id"] not in known_ids]
    left_out = _distinct(of_test, DEMONSTRATIONS, "demonstration_id")
    if rows and not kept:
        raise UserError(
            f"No demonstrations are left: all {len(left_out):,} are of the test split, by their prompt or user; give "
            "others, or lower `data.test`."
        )
    return _finish(kept, DEMONSTRATIONS, "demonstration_id", "demonstrations"), left_out


def build_feedback(config: LoopConfig, store: Store, prompts: pd.DataFrame) -> tuple[pd.DataFrame, int]:
    """Imported feedback (schema FEEDBACK), empty where there is none, and how much of it the test split leaves out.

    Its split is found as in :func:`build_demonstrations`. Where nobody is known, the first turn of a chat decides,
    as for logged prompts: no turn of a conversation is trained on whose last one is of the test split.
    """
    found = imported(store, "feedback", IMPORTED_FEEDBACK)
    known = dict(zip(prompts["prompt_id"], prompts["split"], strict=True))
    given: list[dict[str, Any]] = [] if found is None else found.to_pylist()
    splits = (_record_split(row, known, config.data, opening_of(prompt_of_row(row))) for row in given)
    rows = _readable([row | {"split": split} for row, split in zip(given, splits, strict=True)], config)
    kept = [row for row in rows if row["split"] != "test"]
    return _distinct(kept, FEEDBACK, "feedback_id"), len(rows) - len(kept)


def build_pretraining_text(config: LoopConfig, root: Path, demonstrations: pd.DataFrame) -> pd.DataFrame:
    """Documents (schema PRETRAINING_TEXT), 5% of them for validation."""
    data = config.data
    if data.pretraining_dataset:
        source = data.pretraining_dataset
        texts: Iterable[tuple[str, str]] = [(row["text"], source.name) for row in read_dataset(source, root)]
    elif data.pretraining_files:
        texts = [(text, name) for name in data.pretraining_files for text in read_documents(root / name)]
    elif config.has_task:
        seed = config.base_model.tiny.seed
        return _finish(
            _task_documents(_task(config, root), data, seed), PRETRAINING_TEXT, "text_id", "pretraining text"
        )
    else:
        kept = demonstrations[demonstrations["split"] == "train"]
        texts = [
            (f"{prompt}\n{response}", "demonstrations")
            for prompt, response in zip(kept["prompt"], kept["response"], strict=True)
        ]
    rows = [document_row(text, source, split_of(text, 0.05, 0)) for text, source in texts]
    return _finish(rows, PRETRAINING_TEXT, "text_id", "pretraining text")


def _task(config: LoopConfig, root: Path) -> Task:
    """The loop's task. Labels come much later, so a kind of annotators that it does not have is refused here."""
    task = get_task(config.data.task, root)
    require_kind(task, config.data.annotator_kind)
    return task


def _task_prompts(task: Task, config: LoopConfig) -> list[dict]:
    sizes, seed = _sizes(config.data.prompts, config.data), config.stage_seed("prompts")
    return [
        prompt_row(text, task.name, "", split) for split in SPLITS for text in task.prompts(sizes[split], seed, split)
    ]


def _task_demonstrations(task: Task, config: LoopConfig) -> list[dict]:
    sizes, seed = _sizes(config.data.demonstrations, config.data), config.stage_seed("demonstrations")
    return [
        demonstration_row(prompt, response, task.name, split)
        for split in ("train", "validation")
        for prompt, response in task.demonstrations(sizes[split], seed, split)
    ]


def _given_demonstrations(data: DataSettings, root: Path, store: Store, optional: bool) -> list[dict[str, Any]]:
    """Rows with `prompt`, `response`, `source` and `user`, a pseudonym or empty."""
    dataset = data.demonstrations_dataset
    if not dataset:
        if optional and not is_imported(store, "demonstrations"):
            return []
        return _imported(store, "demonstrations", IMPORTED_DEMONSTRATIONS, root)
    people = people_of(store)
    return [row | {"source": dataset.name, "user": _user(row, people)} for row in read_dataset(dataset, root)]


def _record_split(row: Mapping[str, Any], known: Mapping[str, str], data: DataSettings, text: str = "") -> str:
    """``known`` maps the id of a prompt to its split; where nobody is known ``text`` decides, or the prompt."""
    identity, user = prompt_id(prompt_of_row(row)), row["user"]
    splits = [known[identity]] if identity in known else []
    if user or not splits:
        splits.append(split_of(user or text or row["prompt"], data.validation, data.test))
    return max(splits, key=SPLITS.index)


def _task_documents(task: Task, data: DataSettings, seed: int) -> list[dict]:
    sizes = {"train": data.pretraining_texts, "validation": max(data.pretraining_texts // 20, 1)}
    return [
        document_row(text, task.name, split)
        for split, n in sizes.items()
        for text in task.pretraining_text(n, seed, split)
    ]


def _dataset_prompts(dataset: HubDataset, root: Path, data: DataSettings, people: Pseudonyms) -> list[dict]:
    rows = []
    for row in read_dataset(dataset, root):
        user = _user(row, people)
        rows.append(
            prompt_row(
                prompt_of_row(row), dataset.name, user, split_of(user or row["prompt"], data.validation, data.test)
            )
        )
    return rows


def _user(row: Mapping[str, Any], people: Pseudonyms) -> str:
    """The user's pseudonym, the same as in imports, so that a person's rows share a split wherever they come from."""
    return "" if row.get("user") is None else people.of(str(row["user"]))


def _sizes(n: int, data: DataSettings) -> dict[str, int]:
    held_out = {"validation": round(n * data.validation), "test": round(n * data.test)}
    return {"train": n - sum(held_out.values())} | held_out


def _imported(store: Store, kind: str, schema: pa.Schema, root: Path) -> list[dict[str, Any]]:
    found = imported(store, kind, schema)
    if found is None:
        raise UserError(
            f"{store.address}/{imported_key(kind)}: nothing imported yet; "
            f"run `rlhf import {kind} FILE --loop {shlex.quote(str(root))}`."
        )
    return cast("list[dict[str, Any]]", found.to_pylist())


def _readable(rows: list[dict], config: LoopConfig) -> list[dict]:
    """``rows``, checked: raises UserError where prompts are chats and the loop's models read plain texts."""
    chats = sum(row.get("messages") is not None for row in rows)
    if chats and not config.sft.chat:
        raise UserError(
            f"{chats:,} of {len(rows):,} prompts are lists of messages, which are read by a chat template alone; set "
            "`sft.chat: true`, with a base model that has a template, or give the prompts as texts."
        )
    return rows


def _finish(rows: list[dict], schema: pa.Schema, key: str, name: str) -> pd.DataFrame:
    """The table of the first row of each id, sorted by id; raises UserError where there is no row."""
    if not rows:
        raise UserError(f"No {name}: the source is empty; check `data` in the loop's config.")
    return _distinct(rows, schema, key)


def _distinct(rows: list[dict], schema: pa.Schema, key: str) -> pd.DataFrame:
    if not rows:
        return table([], schema).to_pandas()
    frame = pd.DataFrame(rows).drop_duplicates(key).sort_values(key, ignore_index=True)
    return table(frame, schema).to_pandas()
