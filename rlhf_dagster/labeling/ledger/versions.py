"""Versions of annotations, as the ledger's table has them between position and project."""

from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, NamedTuple

from rlhf_dagster.labeling.ledger.rows import LedgerRow
from rlhf_dagster.labeling.store import Annotation
from rlhf_dagster.records.json_text import json_encoding

_as_json = json_encoding(sort_keys=True)


def result_json(result: Any) -> str:
    """The text of a result. Half of a surrogate pair, which a server can send and no database holds, is escaped."""
    text = _as_json(result)
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode("utf-8")


class Version(NamedTuple):
    annotation_id: str
    version: int
    comparison_id: str
    annotator: str
    status: str
    result: str
    """JSON, by :func:`result_json`."""
    seconds: float | None
    created_at: str
    """As :func:`stamp` writes times."""
    updated_at: str


class FirstVersion(Version):
    """The only version of an annotation."""

    __slots__ = ()


def next_version(annotation: Annotation, newest: LedgerRow | None) -> Version | None:
    """The version of ``annotation`` behind the ``newest`` on record; None where that one says the same."""
    result = result_json(annotation.result)
    said = (annotation.annotator, annotation.status, result)
    if newest is not None and (newest["annotator"], newest["status"], newest["result"]) == said:
        return None
    return Version(
        annotation_id=annotation.annotation_id,
        version=1 if newest is None else newest["version"] + 1,
        comparison_id=annotation.comparison_id,
        annotator=annotation.annotator,
        status=annotation.status,
        result=result,
        seconds=None if annotation.seconds is None else float(annotation.seconds),
        created_at=stamp(annotation.created_at) if newest is None else newest["created_at"],
        updated_at=stamp(annotation.updated_at),
    )


@lru_cache(maxsize=2)
def stamp(at: datetime) -> str:
    """A time as text, in UTC."""
    return at.astimezone(UTC).isoformat(timespec="microseconds")
