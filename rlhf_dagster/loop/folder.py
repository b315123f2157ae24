"""A loop: its config, the store that holds everything it makes, and answers about what is there."""

import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from rlhf_dagster.common.files import keep_from_others
from rlhf_dagster.common.sealed import read_as, seal, unseal
from rlhf_dagster.config.loop import LoopConfig, load_config
from rlhf_dagster.errors import Damaged, UserError
from rlhf_dagster.labeling.embedded import EmbeddedLabelStore
from rlhf_dagster.lineage.deletions import Deletions
from rlhf_dagster.lineage.formats import bring_up_to_date
from rlhf_dagster.lineage.models import Checkpoint, ModelStore, model_digest
from rlhf_dagster.lineage.people import people_of
from rlhf_dagster.lineage.registry import PolicyRecord, PolicyRegistry
from rlhf_dagster.lineage.removals import Removals
from rlhf_dagster.loop.label_store import LedgerOfLoop, LoopLedger, open_label_studio
from rlhf_dagster.records.loop_names import ALONE, LoopNames
from rlhf_dagster.records.parquet import read_parquet
from rlhf_dagster.records.pseudonyms import Pseudonyms
from rlhf_dagster.records.round_keys import round_number
from rlhf_dagster.records.tables import frame_of
from rlhf_dagster.storage.base import Store
from rlhf_dagster.storage.known import open_store
from rlhf_dagster.tasks.annotator_kinds import annotators_of
from rlhf_dagster.tasks.base import SimulatedAnnotator, Task
from rlhf_dagster.tasks.known import get_task

if TYPE_CHECKING:
    from rlhf_dagster.labeling.label_studio.store import LabelStudioStore


@dataclass(frozen=True)
class LoopFolder:
    """``root`` is the loop's folder on this machine, with its ``loop.yaml``, Dagster's files and unfinished work.

    What the loop makes is in :attr:`store`, which is the same folder unless the setting `root` names another place:
    ``assets/`` (tables, reports, pointers), ``models/``, ``registry/``.
    """

    config: LoopConfig
    root: Path
    names: LoopNames = ALONE
    """By which Dagster knows its parts."""

    def __post_init__(self) -> None:
        """What is written from now on is for the loop's readers alone."""
        keep_from_others(self.config.readable_by)

    @property
    def option(self) -> str:
        """The option by which a command finds it."""
        return f"--loop {self.said}"

    @property
    def said(self) -> str:
        """What a command calls it, as a shell reads it."""
        return self.names.said or shlex.quote(str(self.root))

    @property
    def run_tag(self) -> dict[str, str]:
        """The tag of its runs."""
        return self.names.tag(self.config.name)

    @property
    def address(self) -> str:
        """Of the loop's store; saying it asks nobody."""
        return self.config.root or str(self.root)

    @property
    def store(self) -> Store:
        return open_store(self.address)

    @classmethod
    def open(cls, root: Path) -> "LoopFolder":
        """The loop whose ``loop.yaml`` is in ``root``, brought up to date; raises UserError where it is newer."""
        loop = cls(load_config(root), root.resolve())
        bring_up_to_date(loop.store)
        return loop

    @property
    def models(self) -> ModelStore:
        return ModelStore(self.store, self.root / "work")

    @property
    def registry(self) -> PolicyRegistry:
        return PolicyRegistry(self.store)

    @property
    def deletions(self) -> Deletions:
        return Deletions(self.store)

    @property
    def removals(self) -> Removals:
        return Removals(self.store)

    @property
    def people(self) -> Pseudonyms:
        """What stands for people in its tables and its ledger."""
        return people_of(self.store, self._on_record)

    def _on_record(self) -> list[str]:
        """Everybody in the ledger."""
        return [] if self.ledger_place.is_missing() else self.ledger.annotators()

    @property
    def ledger(self) -> EmbeddedLabelStore:
        """Comparisons and annotations of this loop, whichever label store they came through."""
        return self.ledger_place.open(EmbeddedLabelStore)

    @property
    def ledger_place(self) -> LedgerOfLoop:
        """The ledger before it is opened."""
        return LedgerOfLoop(self.config, self.root, self.store, self._label_tables)

    @property
    def label_store(self) -> "EmbeddedLabelStore | LabelStudioStore":
        """Where annotators work. Opening it sends no request to a label server."""
        if self.config.label_store.kind == "embedded":
            return self.ledger_place.open(LoopLedger)
        return open_label_studio(self.config, self.root, self.ledger, self.is_decided, lambda: self.people)

    @property
    def newest_promotion(self) -> str:
        """Key of the newest round whose policy became the champion by promotion; empty if there is none."""
        return max((entry.round_key for entry in self.registry.history() if entry.action == "promotion"), default="")

    def is_decided(self, round_key: str) -> bool:
        """Whether a round or a later one was promoted: its labels are as they were last read."""
        return round_number(round_key) is not None and round_key <= self.newest_promotion

    def _label_tables(self) -> Iterator[pd.DataFrame]:
        tables = (self.table("preference_labels", key) for key in self.rounds_with("preference_labels"))
        return (table for table in tables if table is not None)

    @property
    def task(self) -> Task:
        """The task; raises UserError where the loop learns from data of its own (`data.source`)."""
        if not self.config.has_task:
            raise UserError("This loop has no task: `data.source` is not `task`.")
        return get_task(self.config.data.task, self.root)

    def annotators(self) -> Sequence[SimulatedAnnotator]:
        """The task's simulated annotators, the same ones in every round."""
        return annotators_of(self.task, self.config.data.annotator_kind, self.config.stage_seed("annotators"))

    def label_pages(self, round_key: str, purpose: str) -> list[str]:
        """Addresses of a round's tasks in Label Studio; none for the embedded store."""
        store = self.label_store
        return [] if isinstance(store, EmbeddedLabelStore) else store.addresses(round_key, purpose)

    def asset_key(self, asset: str, round_key: str = "", suffix: str = "parquet") -> str:
        """The key of an asset in the store: ``assets/<asset>[/<round>].<suffix>``."""
        return "/".join(filter(None, ("assets", asset, round_key))) + f".{suffix}"

    def has_table(self, asset: str, round_key: str = "") -> bool:
        """Whether the table of an asset is made."""
        return self.store.exists(self.asset_key(asset, round_key))

    def table(self, asset: str, round_key: str = "", columns: list[str] | None = None) -> pd.DataFrame | None:
        """The table of an asset; None before it is made, Damaged where it is not what was written."""
        return self.table_at(self.asset_key(asset, round_key), _again(asset, round_key), columns)

    def table_at(self, key: str, remedy: str, columns: list[str] | None = None) -> pd.DataFrame | None:
        """The table under a key of the store; None without it. ``remedy`` ends the sentence on a damaged one."""
        found = self.store.get(key)
        if found is None:
            return None
        try:
            return frame_of(read_parquet(found.data, key, columns))
        except Damaged as damaged:
            raise Damaged(f"{str(damaged).rstrip('.')}; {remedy}.") from None

    def json(self, asset: str, round_key: str = "") -> dict[str, Any] | None:
        """The figures or the decision of an asset; None before it is made, Damaged where it is not what was written."""
        key = self.asset_key(asset, round_key, "json")
        found = self.store.get(key)
        if found is None:
            return None
        try:
            return unseal(found.data, key)
        except Damaged as damaged:
            raise Damaged(f"{str(damaged).rstrip('.')}; {_again(asset, round_key)}.") from None

    def write_json(self, asset: str, round_key: str, content: dict[str, Any]) -> None:
        """Write what :meth:`json` reads, for facts that an asset states beside its table."""
        self.store.put(self.asset_key(asset, round_key, "json"), seal(content, sort_keys=True))

    def checkpoint(self, asset: str, round_key: str = "") -> Checkpoint | None:
        """The model that an asset points to; None before it is made."""
        pointer = self.json(asset, round_key)
        return None if pointer is None else self.pointed_to(pointer)

    def pointed_to(self, pointer: dict[str, Any]) -> Checkpoint:
        """The model of a pointer as :meth:`Checkpoint.as_pointer` gives it."""
        return read_as(Checkpoint, {**pointer, "root": self.store.address}, "A pointer to a model")

    def decision(self, round_key: str) -> dict[str, Any] | None:
        """The decision on a round's policy; None without one, or if it is about an earlier policy of that round."""
        return standing(self.json("promotion", round_key), self.json("eval_report", round_key))

    def rounds_with(self, asset: str, up_to: str | None = None, before: str | None = None) -> list[str]:
        """Keys of the rounds in which an asset was made, oldest first: all, or those up to or before a round.

        Assets find other rounds here and not through the asset graph, where each new round would make older ones stale.
        Deleted rounds are not among them.
        """
        names = (key.rpartition("/")[2] for key in self.store.list(f"assets/{asset}"))
        stems = {name.rpartition(".") for name in names}
        made = {stem for stem, _, suffix in stems if suffix in ("parquet", "json")}
        keys = sorted(made - self.deletions.deleted().keys()) if made else []
        return [key for key in keys if (up_to is None or key <= up_to) and (before is None or key < before)]

    def policy(self, policy_id: str) -> Checkpoint:
        """The kept checkpoint of a registered policy; raises UserError where it is gone."""
        record = self.registry.get(policy_id)
        found = Checkpoint(policy_id, record.checkpoint, record.digest, self.store.address)
        if not found.is_there():
            removed = self.removals.removed().get(policy_id)
            why = f" ({removed.sentence.rstrip('.')})" if removed else ""
            raise UserError(
                f"{found.address}: the checkpoint of policy {policy_id} is gone{why}; restore it from a backup, or "
                "roll back."
            )
        return found if record.digest else replace(found, digest=self._digest_of(record))

    def _digest_of(self, record: PolicyRecord) -> str:
        """The digest of a policy that version 0.1 has registered without: by its asset's pointer, or by its files."""
        asset = "sft_checkpoint" if record.kind == "sft" else f"{record.kind}_policy"
        pointed = self.checkpoint(asset, record.round_key)
        if pointed is not None and pointed.model_id == record.policy_id:
            return pointed.digest
        return model_digest(self.root / record.checkpoint)


def _again(asset: str, round_key: str) -> str:
    return f"run {asset}{f' of {round_key}' if round_key else ''} again"


def standing(decision: dict[str, Any] | None, report: dict[str, Any] | None) -> dict[str, Any] | None:
    """A decision on a round's policy, unless the round's report is about a later policy of the round."""
    if decision and report and decision.get("policy") != report.get("policy_id"):
        return None
    return decision or None
