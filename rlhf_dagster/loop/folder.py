"""A loop on disk: its config, the folder that holds everything it makes, and answers about what is there."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from rlhf_dagster.common.files import write_atomically
from rlhf_dagster.config.loop import LoopConfig, load_config
from rlhf_dagster.errors import UserError
from rlhf_dagster.labeling.embedded import EmbeddedLabelStore
from rlhf_dagster.lineage.models import Checkpoint, ModelStore, model_digest
from rlhf_dagster.lineage.registry import PolicyRecord, PolicyRegistry
from rlhf_dagster.loop.label_store import LedgerOfLoop, LoopLedger, open_label_studio
from rlhf_dagster.records.round_keys import round_number
from rlhf_dagster.tasks.base import SimulatedAnnotator, Task
from rlhf_dagster.tasks.known import get_task

if TYPE_CHECKING:
    from rlhf_dagster.labeling.label_studio.store import LabelStudioStore


@dataclass(frozen=True)
class LoopFolder:
    """``root`` holds ``assets/`` (tables, reports, pointers), ``models/``, ``registry/`` and the label store."""

    config: LoopConfig
    root: Path

    @classmethod
    def open(cls, root: Path) -> "LoopFolder":
        """The loop whose ``loop.yaml`` is in ``root``."""
        return cls(load_config(root), root.resolve())

    @property
    def models(self) -> ModelStore:
        return ModelStore(self.root)

    @property
    def registry(self) -> PolicyRegistry:
        return PolicyRegistry(self.root / "registry")

    @property
    def ledger(self) -> EmbeddedLabelStore:
        """Comparisons and annotations of this loop, whichever label store they came through."""
        return self.ledger_place.open(EmbeddedLabelStore)

    @property
    def ledger_place(self) -> LedgerOfLoop:
        """The ledger before it is opened."""
        return LedgerOfLoop(self.config, self.root, self._label_tables)

    @property
    def label_store(self) -> "EmbeddedLabelStore | LabelStudioStore":
        """Where annotators work. Opening it sends no request to a label server."""
        if self.config.label_store.kind == "embedded":
            return self.ledger_place.open(LoopLedger)
        return open_label_studio(self.config, self.root, self.ledger, self.is_decided)

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
        """The embedded task; raises UserError where the loop learns from data of its own (`data.source`)."""
        if not self.config.has_task:
            raise UserError("This loop has no embedded task: `data.source` is not `task`.")
        return get_task(self.config.data.task)

    def annotators(self) -> Sequence[SimulatedAnnotator]:
        """The task's simulated annotators, the same ones in every round."""
        return self.task.annotators(self.config.stage_seed("annotators"))

    def label_pages(self, round_key: str, purpose: str) -> list[str]:
        """Addresses of a round's tasks in Label Studio; none for the embedded store."""
        store = self.label_store
        return [] if isinstance(store, EmbeddedLabelStore) else store.addresses(round_key, purpose)

    def asset_path(self, asset: str, round_key: str = "", suffix: str = "parquet") -> Path:
        """The file of an asset: ``assets/<asset>[/<round>].<suffix>``."""
        stem = Path(asset, round_key) if round_key else Path(asset)
        return self.root / "assets" / f"{stem}.{suffix}"

    def table(self, asset: str, round_key: str = "", columns: list[str] | None = None) -> pd.DataFrame | None:
        """The table of an asset; None before it is made."""
        path = self.asset_path(asset, round_key)
        return pd.read_parquet(path, columns=columns) if path.exists() else None

    def json(self, asset: str, round_key: str = "") -> dict[str, Any] | None:
        """The figures or the decision of an asset; None before it is made, UserError where its file is damaged."""
        path = self.asset_path(asset, round_key, "json")
        try:
            found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        except ValueError:
            of_round = f" of {round_key}" if round_key else ""
            raise UserError(f"{path.relative_to(self.root)} is damaged; run {asset}{of_round} again.") from None
        return found

    def write_json(self, asset: str, round_key: str, content: dict[str, Any]) -> None:
        """Write what :meth:`json` reads, for facts that an asset states beside its table."""
        text = json.dumps(content, indent=1, sort_keys=True, allow_nan=False) + "\n"
        write_atomically(self.asset_path(asset, round_key, "json"), text.encode())

    def checkpoint(self, asset: str, round_key: str = "") -> Checkpoint | None:
        """The model that an asset points to; None before it is made."""
        pointer = self.json(asset, round_key)
        return None if pointer is None else self.pointed_to(pointer)

    def pointed_to(self, pointer: dict[str, Any]) -> Checkpoint:
        """The model of a pointer as :meth:`Checkpoint.as_pointer` gives it."""
        return Checkpoint(**pointer, root=str(self.root))

    def imported(self, kind: str) -> Path | None:
        """The table that `rlhf import` has made of one kind of records; None where nothing was imported."""
        path = self.root / "imports" / f"{kind}.parquet"
        return path if path.exists() else None

    def decision(self, round_key: str) -> dict[str, Any] | None:
        """The decision on a round's policy; None without one, or if it is about an earlier policy of that round."""
        return standing(self.json("promotion", round_key), self.json("eval_report", round_key))

    def rounds_with(self, asset: str, up_to: str | None = None, before: str | None = None) -> list[str]:
        """Keys of the rounds in which an asset was made, oldest first: all, or those up to or before a round.

        Assets find other rounds here and not through the asset graph, where each new round would make older ones stale.
        """
        files = (self.root / "assets" / asset).glob("[!.]*")
        keys = sorted({path.stem for path in files if path.suffix in (".parquet", ".json")})
        return [key for key in keys if (up_to is None or key <= up_to) and (before is None or key < before)]

    def policy(self, policy_id: str) -> Checkpoint:
        """The kept checkpoint of a registered policy; raises UserError where it is gone."""
        record = self.registry.get(policy_id)
        folder = self.root / record.checkpoint
        if not folder.is_dir():
            raise UserError(f"{folder}: the checkpoint of policy {policy_id} is gone; restore it or roll back.")
        return Checkpoint(policy_id, record.checkpoint, record.digest or self._digest_of(record), str(self.root))

    def _digest_of(self, record: PolicyRecord) -> str:
        """The digest of a policy that version 0.1 has registered without: by its asset's pointer, or by its files."""
        asset = "sft_checkpoint" if record.kind == "sft" else f"{record.kind}_policy"
        pointed = self.checkpoint(asset, record.round_key)
        if pointed is not None and pointed.model_id == record.policy_id:
            return pointed.digest
        return model_digest(self.root / record.checkpoint)


def standing(decision: dict[str, Any] | None, report: dict[str, Any] | None) -> dict[str, Any] | None:
    """A decision on a round's policy, unless the round's report is about a later policy of the round."""
    if decision and report and decision.get("policy") != report.get("policy_id"):
        return None
    return decision or None
