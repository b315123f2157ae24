"""An annotation as the server holds it, for our records and for the ledger."""

import math
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from rlhf_dagster.labeling.label_studio.records.seen import Seen, moment
from rlhf_dagster.labeling.store import Annotation


def writer(annotation: Mapping[str, Any]) -> int | None:
    """The user who has written an annotation last; None where nobody is on record.

    That is `updated_by`, which the server sets itself. In `completed_by` every member can write whom they like, and an
    annotation that somebody imports beside a task has no writer.
    """
    found = annotation.get("updated_by", annotation["completed_by"])
    return None if found is None else int(found)


def says_the_same(annotation: Mapping[str, Any], newest: Annotation | None) -> bool:
    """Whether an annotation holds what the newest version of it on record does."""
    if newest is None:
        return False
    skipped = annotation["was_cancelled"]
    return (newest.status, newest.result) == (("skipped", {}) if skipped else ("submitted", annotation["result"]))


def seen(annotation: Mapping[str, Any], task: int, comparison: str, annotator: str) -> Seen:
    """An annotation as the server holds it, for our records, with the server's own times."""
    times = (annotation["created_at"], annotation["updated_at"])
    return Seen(annotation["id"], task, comparison, annotator, *times)


def as_version(annotation: Mapping[str, Any], identity: str, comparison: str, annotator: str) -> Annotation:
    """An annotation as the server holds it, for the ledger; the result stays as it is.

    Times are at most our own clock's: of a server whose clock is ahead, somebody would else have been at work a moment
    ago for as long as it is.
    """
    skipped, now = annotation["was_cancelled"], datetime.now(UTC)
    return Annotation(
        annotation_id=identity,
        comparison_id=comparison,
        annotator=annotator,
        version=0,
        status="skipped" if skipped else "submitted",
        result={} if skipped else annotation["result"],
        seconds=_seconds(annotation["lead_time"]),
        created_at=min(moment(annotation["created_at"]), now),
        updated_at=min(moment(annotation["updated_at"]), now),
    )


def _seconds(value: Any) -> float | None:
    """The time that an annotator's browser has measured, where it is one."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        return float(value) if math.isfinite(value) else None
    except OverflowError:
        return None
