"""Projects, tasks and annotations of a server, as they were last seen."""

from dataclasses import dataclass
from datetime import datetime

THERE, DELETED, NOT_LISTED, ASKED, CARRIED = range(5)
"""What an annotation on record is on the server: there; deleted, which the ledger says too; not there, in a look that
has not ended; not there, and a person is asked what that means; known from before the server was rejoined,
and not seen since."""


@dataclass(frozen=True)
class Project:
    """A project of ours on the server."""

    project: int
    round: str
    purpose: str
    kind: str
    config: str
    """Hash of its labelling config."""
    settings: str
    """What the labelling config was made from (LabelingSettings as JSON)."""
    labels_wanted: int
    """Annotations that a task gets unless it says otherwise."""
    unsure: bool
    """An import was begun whose outcome is not on record, so the tasks must be listed."""
    listed: int
    """Tasks that the server had when they were last listed, those that are not ours included."""
    newest: str | None
    """Time of the newest change that was read, by the server's clock (ISO 8601)."""
    newest_seen: float
    """When ``newest`` was first read, in seconds by our clock."""
    last_read: float
    """When changes were last read."""
    created_at: str = ""
    """When the server made it; empty in records of version 0.1."""
    gone: bool = False
    """The server has no such project any more."""
    page: str = ""
    """Hash of its labelling config as the server first gave it back, which writes it in its own way."""
    other_page: bool = False
    """Its labelling config is not that one, as it was last read."""


@dataclass(frozen=True)
class SentTask:
    task: int
    project: int
    comparison_id: str
    overlap: int
    updated_at: str
    """Time of the task's last change that was read, by the server's clock."""
    data_digest: str = ""
    """Of its data as they were sent, or first read; empty before an earlier release's task is read again."""


@dataclass(frozen=True)
class KnownAnnotation:
    """An annotation of the server's and what it is called here."""

    annotation: int
    task: int
    annotation_id: str
    comparison_id: str
    status: int
    """``THERE``, ``DELETED``, ``NOT_LISTED`` or ``ASKED``."""
    created_at: str
    updated_at: str
    """By the server's clock, as it was last read; both are empty in records of version 0.1."""


@dataclass(frozen=True)
class Seen:
    """An annotation that the server has."""

    annotation: int
    task: int
    comparison_id: str
    annotator: str
    created_at: str
    updated_at: str
    """By the server's clock."""


def moment(text: str) -> datetime:
    """A time as the server writes it, which leaves microseconds out where they are 0."""
    return datetime.fromisoformat(text)
