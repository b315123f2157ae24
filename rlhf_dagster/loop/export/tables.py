"""The tables of a loop that records are exported from."""

from collections import Counter
from collections.abc import Iterable
from typing import Literal

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from rlhf_dagster.errors import UserError
from rlhf_dagster.labeling.not_trained_on import HELD_OUT_COMPARISON, HELD_OUT_PERSON, HELD_OUT_PROMPT, NOT_TRAINED_ON
from rlhf_dagster.labeling.splits import HELD_OUT_ANNOTATORS
from rlhf_dagster.loop.folder import LoopFolder
from rlhf_dagster.loop.labels import read_quarantine
from rlhf_dagster.records.machines import is_machine, is_source
from rlhf_dagster.records.parquet import read_parquet
from rlhf_dagster.records.schemas import (
    COMPARISONS,
    COMPLETIONS,
    DEMONSTRATIONS,
    LABELS,
    PREFERENCES,
    PROMPTS,
    cast_to,
)

ExportKind = Literal["preferences", "labels", "demonstrations", "prompts", "completions"]
SOURCES = {
    "preferences": ("preference_dataset", PREFERENCES),
    "labels": ("preference_labels", LABELS),
    "demonstrations": ("demonstrations", DEMONSTRATIONS),
    "prompts": ("prompts", PROMPTS),
    "completions": ("completions", COMPLETIONS),
}
"""The asset that holds each kind of record, and its columns."""
OF_A_ROUND = ("preferences", "labels", "completions")
"""Kinds that every round has of its own."""
_EARLIER, _TWICE = "an earlier version of a label", "an earlier label by the same annotator of the same comparison"
_UNREADABLE = "a label that cannot be read"


class RecordTables:
    """The tables that one kind of record is exported from."""

    def __init__(self, loop: LoopFolder, kind: ExportKind, round_key: str) -> None:
        """``round_key`` is empty for what no round has of its own. Raises UserError where the table is missing."""
        self.loop, self.kind, self.round_key = loop, kind, round_key
        asset, schema = SOURCES[kind]
        self.records = self._read(asset, schema, round_key)

    def comparisons(self) -> pa.Table:
        return self._read("preference_batch", COMPARISONS, self.round_key)

    def prompt_sources(self) -> dict[str, str]:
        """Where prompts came from, by prompt id; empty before the prompts are made."""
        if not self.loop.has_table("prompts"):
            return {}
        prompts = self._read("prompts", PROMPTS, "")
        return dict(zip(prompts["prompt_id"].to_pylist(), prompts["source"].to_pylist(), strict=True))

    def _read(self, asset: str, schema: pa.Schema, round_key: str) -> pa.Table:
        key = self.loop.asset_key(asset, round_key)
        found = self.loop.store.get(key)
        if found is None:
            raise UserError(
                f"There is nothing to export: {key} is not made yet; {_made_by(self.loop, asset)} makes it."
            )
        return cast_to(read_parquet(found.data, key), schema)


def export_round(loop: LoopFolder, kind: ExportKind, asked: str) -> str:
    """The round whose records are exported: the one asked for, or the newest that has them; empty where none has."""
    if kind not in OF_A_ROUND:
        if asked:
            raise UserError(f"--round {asked}: {kind} are those of the whole loop; leave it out.")
        return ""
    asset = SOURCES[kind][0]
    made = loop.rounds_with(asset)
    if not made or (asked and asked not in made):
        there = f"only {', '.join(made)} has them" if made else f"no round has them; {_made_by(loop, asset)} makes them"
        raise UserError(f"There are no {kind}{f' of {asked}' if asked else ''} to export: {there}.")
    return asked or made[-1]


def _made_by(loop: LoopFolder, asset: str) -> str:
    """The command that makes the table of an asset."""
    jobs = {"prompts": "prepare", "demonstrations": "prepare", "completions": "collect_round"}
    return f"`rlhf run {jobs.get(asset, 'train_round')} {loop.option}`"


def counting_labels_of(tables: RecordTables) -> tuple[np.ndarray, Counter[str]]:
    """The rows of labels that count, `cannot decide` included, and those left out, by reason.

    The rows are in the order of comparisons and annotators: (labels that count,) int64.
    """
    found = tables.records
    status = pc.if_else(found["latest"], found["status"], _EARLIER)
    left_out = Counter({reason: n for reason, n in counted(status).items() if reason != "submitted"})
    given = _where(pc.equal(status, "submitted"), _order(found, "updated_at", "label_id"))
    who = pd.DataFrame({name: _codes(found[name])[given] for name in ("comparison_id", "annotator")})
    kept = given[~who.duplicated(keep="last").to_numpy()]
    left_out[_TWICE] = len(given) - len(kept)
    left_out[_UNREADABLE] = len(read_quarantine(tables.loop, tables.round_key, "train"))
    return _where(np.isin(np.arange(len(found)), kept), _order(found, "comparison_id", "annotator")), left_out


def counted(column: pa.ChunkedArray) -> dict[str, int]:
    """How often each value of a column is there."""
    values, counts = column.value_counts().flatten()
    return dict(zip(values.to_pylist(), counts.to_pylist(), strict=True))


def _order(found: pa.Table, *by: str) -> np.ndarray:
    return pc.sort_indices(found, [(name, "ascending") for name in by]).to_numpy().astype(np.int64)


def _where(holds: pa.ChunkedArray | np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Those of some row numbers for which something holds."""
    return rows[np.asarray(holds, dtype=bool)[rows]]


def _codes(column: pa.ChunkedArray) -> np.ndarray:
    """(rows,) int: equal for equal texts."""
    return column.combine_chunks().dictionary_encode().indices.to_numpy()


def left_out_of_preferences(tables: RecordTables) -> Counter[str]:
    """The labels that are in no split of a data set of preferences, by reason."""
    stated = (tables.loop.json("preference_dataset", tables.round_key) or {}).get("not_trained_on", {})
    reasons = Counter(dict(stated))
    for measured in (HELD_OUT_PROMPT, HELD_OUT_COMPARISON):
        del reasons[measured]
    splits = Counter(tables.records["split"].to_pylist())
    if HELD_OUT_PERSON in reasons:
        reasons[HELD_OUT_PERSON] -= splits[HELD_OUT_ANNOTATORS]
    return Counter({f"labels {NOT_TRAINED_ON[reason]}": n for reason, n in reasons.items() if n > 0})


def kinds_of_annotators(annotators: Iterable[str]) -> dict[str, int]:
    """How many people, machines and sources without annotators there are."""
    names = sorted(set(annotators))
    machines, sources = sum(map(is_machine, names)), sum(map(is_source, names))
    counts = {"people": len(names) - machines - sources, "machines": machines, "files that name none": sources}
    return {kind: n for kind, n in counts.items() if n}
