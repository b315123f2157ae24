"""The label store: where comparisons go to annotators and annotations come back from."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal, Protocol

import pandas as pd

from rlhf_dagster.errors import UserError

Status = Literal["submitted", "skipped", "deleted"]


class LabelStoreUnavailable(UserError):  # noqa: N818  # unavailable is what it is
    """The label store gives no answer now; the same may work later."""


@dataclass(frozen=True)
class Annotation:
    """One version of one annotation, as the label store holds it: not parsed, perhaps not parsable."""

    annotation_id: str
    comparison_id: str
    annotator: str
    """Pseudonym."""
    version: int
    """Counts the edits, from 1."""
    status: str
    """``submitted``, ``skipped`` or ``deleted``."""
    result: Mapping[str, Any]
    """What the annotator answered, in display positions; see :mod:`rlhf_dagster.labeling.parse` for its forms."""
    seconds: float | None
    """Time spent, in seconds; None where it was not measured."""
    created_at: datetime
    """When the annotation was made."""
    updated_at: datetime
    """When this version was made."""
    position: int = 0
    """Its place in the ledger, which numbers the versions of all rounds as they come in, from 1; 0 outside of it."""


@dataclass(frozen=True)
class Submission:
    """What one annotator says about one comparison."""

    comparison_id: str
    annotator: str
    result: Mapping[str, Any] = field(default_factory=dict)
    seconds: float | None = None
    at: datetime | None = None
    """When it was submitted; None is now."""
    status: str = "submitted"


@dataclass(frozen=True)
class SendResult:
    """How many comparisons were sent now, and how many of those given had been sent before."""

    sent: int
    already_there: int


@dataclass(frozen=True)
class LabelCounts:
    """What people have done in a round.

    A machine's labels count as theirs where the comparison wants no label of a person and has none, and nowhere else.
    """

    comparisons: int
    labelled: int
    """Comparisons with at least one label."""
    labels: int
    """Submitted annotations in their last version, one that says ``cannot decide`` included."""
    usable: int
    """Labels that can be read and decide something; what training will use."""
    skipped: int
    """Annotations whose last version is a skip."""
    complete: int
    """Comparisons with as many labels as wanted."""
    position: int = 0
    """Ledger position of the round's last annotation version that could be read; 0 before the first."""
    new: int = 0
    """Usable labels whose last version is later than the position asked about: an edit is new, a deletion is not."""
    oldest_new_at: datetime | None = None
    """When the oldest of the new labels was made or last edited, by the label store's clock."""
    newest_at: datetime | None = None
    """When the newest of the new labels was made or last edited."""
    stop_requests: int = 0
    """People who ask, by the flag ``stop`` of a submitted annotation in its last version, to stop the training."""
    stop_reasons: list[str] = field(default_factory=list)
    """What they wrote about it, the newest first, at most three texts."""
    machine: int = 0
    """Usable labels by machines, wherever they are."""
    notices: list[str] = field(default_factory=list)
    """What people have to look at: labels that the label store has lost, tasks that it cannot show."""


class LabelStore(Protocol):
    """What every label store does.

    A round's comparisons for one purpose (``train``, ``evaluation`` or ``demonstrations``) belong together.
    """

    def send(self, comparisons: pd.DataFrame) -> SendResult:
        """Offer comparisons (columns of COMPARISONS) for annotation, once each, however often this is called."""

    def count(self, round_key: str, purpose: str, since: int = 0) -> LabelCounts:
        """What has been done in the round, and how much of it after ledger position ``since``.

        Cheap where nothing has happened since it was asked last, whatever ``since`` is.
        """

    def read(self, round_key: str, purpose: str, since: int | None = None) -> tuple[list[Annotation], int]:
        """Annotation versions later than position ``since`` (None: all), oldest first, and the position reached."""

    def annotations(self, round_key: str, purpose: str) -> Iterator[Annotation]:
        """What :meth:`read` finds of all positions at the time of the call; only some of them are held at once."""

    def comparisons(self, round_key: str, purpose: str) -> pd.DataFrame:
        """The comparisons sent (columns of COMPARISONS), with the store's project and task ids."""

    def submit_many(self, submissions: Iterable[Submission]) -> list[str]:
        """Record answers, all or none, on behalf of their annotators, and return the annotation ids.

        An annotator has one annotation for a comparison. The same answer again changes nothing; another one is an edit,
        which makes a new version. A store with a clock of its own may ignore ``at``. Raises
        :class:`~rlhf_dagster.errors.UserError` for a comparison that was never sent.
        """
