"""Rounds that people have deleted: a decision on record, which can be taken back."""

from dataclasses import asdict, dataclass
from datetime import UTC, datetime

from rlhf_dagster.common.sealed import read_as
from rlhf_dagster.errors import UserError
from rlhf_dagster.lineage.journal import Journal
from rlhf_dagster.storage.base import Store

DELETIONS = "registry/deletions"


@dataclass(frozen=True)
class DeletionRecord:
    """One decision on a round."""

    round_key: str
    deleted: bool
    """False where an earlier deletion is taken back."""
    by: str
    reason: str
    at: str
    """When, as ISO 8601 in UTC."""

    @property
    def sentence(self) -> str:
        return f"{self.round_key} was deleted on {self.at[:10]} by {self.by}: {self.reason.rstrip('.')}."


@dataclass(frozen=True)
class Deletions:
    """The journal ``registry/deletions/`` of a loop's store."""

    store: Store

    @property
    def journal(self) -> Journal:
        return Journal(self.store, DELETIONS, DeletionRecord)

    def entries(self) -> list[DeletionRecord]:
        """Every deletion and every return, oldest first."""
        return [read_as(DeletionRecord, values, DELETIONS) for values in self.journal.entries()]

    def deleted(self) -> dict[str, DeletionRecord]:
        """The rounds that are deleted now, by key."""
        newest = {entry.round_key: entry for entry in self.entries()}
        return {key: entry for key, entry in newest.items() if entry.deleted}

    def keys(self) -> list[str]:
        """Every round that was ever deleted: its number is not used again."""
        return sorted({entry.round_key for entry in self.entries()})

    def delete(self, round_key: str, by: str, reason: str) -> None:
        """Put a deletion on record; raises UserError without a name or a reason."""
        self._decide(round_key, True, by, reason)

    def restore(self, round_key: str, by: str, reason: str) -> None:
        """Take a deletion back, on record."""
        self._decide(round_key, False, by, reason)

    def _decide(self, round_key: str, deleted: bool, by: str, reason: str) -> None:
        if not (by.strip() and reason.strip()):
            raise UserError("The deletion of a round, and its return, stay on record: give your name and a reason.")
        at = datetime.now(UTC).isoformat(timespec="microseconds")
        record = DeletionRecord(round_key, deleted, by, reason, at)
        self.journal.append(lambda _: asdict(record))
