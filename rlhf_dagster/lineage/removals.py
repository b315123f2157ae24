"""Models that a loop has removed (`models.keep`): what went, when and why, and what it was made from, on record."""

from dataclasses import asdict, dataclass
from datetime import UTC, datetime

from rlhf_dagster.common.sealed import read_as
from rlhf_dagster.lineage.journal import Journal
from rlhf_dagster.lineage.model_folders import MANIFEST
from rlhf_dagster.storage.base import Store

REMOVALS, MANIFESTS = "registry/removals", "registry/removed"


@dataclass(frozen=True)
class RemovalRecord:
    """One model that was removed."""

    model_id: str
    path: str
    """Where it was, relative to the loop's store."""
    round_key: str
    size: int
    """In bytes."""
    reason: str
    at: str
    """When, as ISO 8601 in UTC."""

    @property
    def sentence(self) -> str:
        return f"{self.model_id} was removed on {self.at[:10]}, by {self.reason}."


@dataclass(frozen=True)
class Removals:
    """The journal ``registry/removals/`` of a loop's store, and ``registry/removed/``, the manifests of what went."""

    store: Store

    @property
    def journal(self) -> Journal:
        return Journal(self.store, REMOVALS, RemovalRecord)

    def removed(self) -> dict[str, RemovalRecord]:
        """What was removed, by model id; a model that was made again since is among it."""
        entries = [read_as(RemovalRecord, values, REMOVALS) for values in self.journal.entries()]
        return {entry.model_id: entry for entry in entries}

    def remove(self, model_id: str, path: str, round_key: str, size: int, reason: str) -> RemovalRecord:
        """Remove a model's folder. It is on record first, so that a kill in between leaves nothing unexplained."""
        manifest = self.store.get(f"{path}/{MANIFEST}")
        at = datetime.now(UTC).isoformat(timespec="microseconds")
        record = RemovalRecord(model_id, path, round_key, size, reason, at)
        if manifest is not None:
            self.store.put(f"{MANIFESTS}/{model_id}.json", manifest.data)
        self.journal.append(lambda _: asdict(record))
        self.store.delete(path)
        return record
