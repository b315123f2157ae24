"""Counts of a round's labels, kept beside the ledger so that nothing is parsed again while nothing is new."""

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import cache
from importlib.metadata import version
from typing import Any

import numpy as np
import pandas as pd
import sqlalchemy as sa

from rlhf_dagster.labeling.ledger.database import Database
from rlhf_dagster.labeling.ledger.digests import digest
from rlhf_dagster.labeling.ledger.tables import TALLIES
from rlhf_dagster.labeling.parse import count_labels, countable_labels
from rlhf_dagster.labeling.store import LabelCounts

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class ProjectTally:
    """The counts of a project, and each usable label's place, so that those after any position can be counted."""

    counts: LabelCounts
    positions: np.ndarray
    """Of the labels, ascending: (labels,) int64."""
    times: np.ndarray
    """When each was made or last edited, in microseconds since 1970: (labels,) int64."""

    @classmethod
    def of(cls, labels: pd.DataFrame, comparisons: pd.DataFrame) -> "ProjectTally":
        """The tally of a project's tables of LABELS and COMPARISONS_TABLE."""
        countable = countable_labels(labels).sort_values("position")
        times = countable["updated_at"].dt.as_unit("us").astype("int64")
        return cls(count_labels(labels, comparisons), _integers(countable["position"]), _integers(times))

    def since(self, position: int) -> LabelCounts:
        """The counts, with ``new`` and its times for the labels after a position."""
        times = self.times[np.searchsorted(self.positions, position, side="right") :]
        if not len(times):
            return self.counts
        oldest, newest = _moment(times.min()), _moment(times.max())
        return replace(self.counts, new=len(times), oldest_new_at=oldest, newest_at=newest)


class CountCache:
    """The last counts of each project in the ledger ``database``; what of them is damaged is counted anew."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def get(
        self, project: str, of: str, since: int, labels: Callable[[], tuple[pd.DataFrame, pd.DataFrame]]
    ) -> LabelCounts:
        """Counts of a project in the state that ``of`` names; ``new`` counts the labels after position ``since``.

        ``labels`` returns the project's tables of LABELS and COMPARISONS_TABLE; it is called only if this state was not
        counted yet. Counts made by another release of this package are not used.
        """
        of = f"{of} {_release()}"
        with self._database.reading() as connection:
            query = sa.select(TALLIES).where(TALLIES.c.project == project)
            row = connection.execute(query).mappings().first()
        if row is not None and row["of"] == of and row["digest"] == _digest(row):
            return _read(row).since(since)
        tally = ProjectTally.of(*labels())
        self._keep(project, of, tally)
        return tally.since(since)

    def _keep(self, project: str, of: str, tally: ProjectTally) -> None:
        row: dict[str, Any] = {"project": project, "of": of, "counts": json.dumps(asdict(tally.counts))}
        row |= {"positions": tally.positions.tobytes(), "times": tally.times.tobytes()}
        row["digest"] = _digest(row)
        insert = self._database.insert(TALLIES).values(row)
        with self._database.transaction() as connection:
            connection.execute(insert.on_conflict_do_update(index_elements=["project"], set_=row))


def _read(row: Any) -> ProjectTally:
    positions, times = (np.frombuffer(row[name], dtype="<i8") for name in ("positions", "times"))
    return ProjectTally(LabelCounts(**json.loads(row["counts"])), positions, times)


def _digest(row: Any) -> int:
    blobs = (hashlib.blake2b(row[name]).hexdigest() for name in ("positions", "times"))
    return digest([row["project"], row["of"], row["counts"], *blobs])


def _integers(values: pd.Series) -> np.ndarray:
    return values.to_numpy(dtype="<i8")


def _moment(microseconds: int) -> datetime:
    return _EPOCH + timedelta(microseconds=int(microseconds))


@cache
def _release() -> str:
    return version("rlhf-dagster")
