"""Where policies were given away, and which of these publications were withdrawn, on record."""

from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from typing import Literal

from rlhf_dagster.common.sealed import read_as
from rlhf_dagster.errors import UserError
from rlhf_dagster.lineage.journal import Journal
from rlhf_dagster.storage.base import Store

PUBLICATIONS = "registry/publications"


@dataclass(frozen=True)
class PublicationRecord:
    """A publication, or its withdrawal."""

    policy_id: str
    to: str
    """The repository of the Hub, as ORG/NAME, or the folder."""
    tag: str
    revision: str
    """Commit on the Hub; empty for a folder."""
    licence: str
    weights: Literal["whole", "adapters"]
    action: Literal["published", "withdrawn"]
    by: str
    reason: str
    """Of a withdrawal; empty otherwise."""
    at: str
    """When, as ISO 8601 in UTC."""


@dataclass(frozen=True)
class Publications:
    """The journal ``registry/publications/`` of a loop's store."""

    store: Store

    @property
    def journal(self) -> Journal:
        return Journal(self.store, PUBLICATIONS, PublicationRecord)

    def entries(self) -> list[PublicationRecord]:
        """Every publication and every withdrawal, oldest first."""
        return [read_as(PublicationRecord, values, PUBLICATIONS) for values in self.journal.entries()]

    def standing(self, to: str = "", policy_id: str = "") -> list[PublicationRecord]:
        """What is published and not withdrawn, oldest first: all, or what is at one place or of one policy."""
        newest = {(entry.to, entry.tag): entry for entry in self.entries()}
        found = [entry for entry in newest.values() if entry.action == "published"]
        return [entry for entry in found if to in ("", entry.to) and policy_id in ("", entry.policy_id)]

    def add(self, record: PublicationRecord) -> None:
        self.journal.append(lambda _: asdict(record))

    def withdraw(self, record: PublicationRecord, by: str, reason: str) -> None:
        """Put on record that a publication does not stand any more."""
        self.add(replace(record, action="withdrawn", by=by, reason=reason, at=now()))


def require_reason(by: str, reason: str) -> None:
    """Raise UserError for a withdrawal without a name or a reason."""
    if not (by.strip() and reason.strip()):
        raise UserError("A withdrawal stays on record: give your name and a reason.")


def now() -> str:
    return datetime.now(UTC).isoformat(timespec="microseconds")
