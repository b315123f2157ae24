"""A loop on disk: its config and the folder that holds everything it makes."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from rlhf_dagster.config.loop import LoopConfig, load_config
from rlhf_dagster.errors import UserError
from rlhf_dagster.labeling.embedded import EmbeddedLabelStore
from rlhf_dagster.lineage.models import Checkpoint, ModelStore
from rlhf_dagster.lineage.registry import PolicyRegistry

if TYPE_CHECKING:
    from rlhf_dagster.labeling.label_studio.store import LabelStudioStore

LEDGER = "label_store.sqlite"


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
        return EmbeddedLabelStore(self.root / LEDGER)

    @property
    def label_store(self) -> "EmbeddedLabelStore | LabelStudioStore":
        """Where annotators work. Opening it asks no server."""
        if self.config.label_store.kind == "embedded":
            return self.ledger
        from rlhf_dagster.loop.label_store import open_label_studio

        return open_label_studio(self.config, self.root, self.root / LEDGER)

    def label_pages(self, round_key: str, purpose: str) -> list[str]:
        """Addresses of a round's tasks in Label Studio; none for the embedded store."""
        store = self.label_store
        return [] if isinstance(store, EmbeddedLabelStore) else store.addresses(round_key, purpose)

    def asset_path(self, asset: str, round_key: str = "", suffix: str = "parquet") -> Path:
        """The file of an asset: ``assets/<asset>[/<round>].<suffix>``."""
        stem = Path(asset, round_key) if round_key else Path(asset)
        return self.root / "assets" / f"{stem}.{suffix}"

    def rounds_with(self, asset: str, up_to: str) -> list[str]:
        """Keys of the rounds up to and including ``up_to`` that have a table of ``asset``, oldest first."""
        keys = (path.stem for path in (self.root / "assets" / asset).glob("*.parquet"))
        return sorted(key for key in keys if key <= up_to)

    def table_of_rounds(self, asset: str, up_to: str) -> pd.DataFrame:
        """The tables of all rounds up to ``up_to`` in one.

        Earlier rounds are read without an edge of the asset graph: with one, each new round would turn old ones stale.
        """
        rounds = self.rounds_with(asset, up_to)
        return pd.concat([pd.read_parquet(self.asset_path(asset, key)) for key in rounds], ignore_index=True)

    def policy(self, policy_id: str) -> Checkpoint:
        """The kept checkpoint of a registered policy."""
        path = self.registry.get(policy_id).checkpoint
        if not (self.root / path).is_dir():
            raise UserError(
                f"{self.root / path}: the checkpoint of policy {policy_id} is gone; restore it or roll back."
            )
        return Checkpoint(policy_id, path, "", str(self.root))
