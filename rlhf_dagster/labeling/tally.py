"""Counts of a project's labels that a change on a few comparisons is added to."""

from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pandas as pd

from rlhf_dagster.labeling.parse import StopRequest, countable_labels, counts_of, stop_fields, stop_requests
from rlhf_dagster.labeling.store import LabelCounts

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_SUMS = ("labelled", "labels", "usable", "skipped", "complete")
"""Counts that are the sum of those of each comparison."""
_COLUMNS = ["label_id", "comparison_id", "annotator", "latest", "status", "ranks", "text", "flags", "reason"]
_COLUMNS += ["updated_at", "position"]
"""What is counted by; a narrow table is faster."""


@dataclass(frozen=True)
class LabelTally:
    """The counts of some comparisons, and each usable label's place, so that those after any position can be counted.

    Whether and how a label counts is decided by the annotations of its own comparison, and by later versions of its own
    annotation. So a tally is the sum of the tallies of its comparisons, and one of them can take another's place.
    """

    counts: LabelCounts
    positions: np.ndarray
    """Of the labels, ascending: (labels,) int64."""
    times: np.ndarray
    """When each was made or last edited, in microseconds since 1970: (labels,) int64."""
    requests: list[StopRequest]
    """Labels whose annotators ask to stop the training, by position."""

    @classmethod
    def of(cls, labels: pd.DataFrame, comparisons: pd.DataFrame) -> "LabelTally":
        """The tally of tables of LABELS and COMPARISONS."""
        labels = labels[_COLUMNS]
        countable, requests = countable_labels(labels), stop_requests(labels)
        counts = counts_of(labels, comparisons, len(countable), requests)
        ordered = countable.sort_values("position")
        times = ordered["updated_at"].dt.as_unit("us").astype("int64")
        return cls(counts, _integers(ordered["position"]), _integers(times), requests)

    def since(self, position: int) -> LabelCounts:
        """The counts, with ``new`` and its times for the labels after a position."""
        times = self.times[np.searchsorted(self.positions, position, side="right") :]
        if not len(times):
            return self.counts
        oldest, newest = _moment(times.min()), _moment(times.max())
        return replace(self.counts, new=len(times), oldest_new_at=oldest, newest_at=newest)

    def changed(self, before: "LabelTally", after: "LabelTally") -> "LabelTally | None":
        """The tally when some of its comparisons, whose tally was ``before``, have become ``after``.

        None where ``before`` is no part of this tally.
        """
        places = np.searchsorted(self.positions, before.positions)
        requests = [one for one in self.requests if one not in before.requests]
        sums: dict[str, Any] = {name: _sum(name, self, before, after) for name in _SUMS}
        known = np.array_equal(self.positions[places[places < len(self.positions)]], before.positions)
        if not known or len(self.requests) - len(requests) != len(before.requests) or min(sums.values()) < 0:
            return None
        positions, times = np.delete(self.positions, places), np.delete(self.times, places)
        into, requests = np.searchsorted(positions, after.positions), sorted(requests + after.requests)
        sums["position"] = max(self.counts.position, after.counts.position)
        return LabelTally(
            replace(self.counts, **sums, **stop_fields(requests)),
            np.insert(positions, into, after.positions),
            np.insert(times, into, after.times),
            requests,
        )


def _sum(name: str, all_: LabelTally, before: LabelTally, after: LabelTally) -> int:
    whole, gone, come = (int(getattr(tally.counts, name)) for tally in (all_, before, after))
    return whole - gone + come


def _integers(values: pd.Series) -> np.ndarray:
    return values.to_numpy(dtype="<i8")


def _moment(microseconds: int) -> datetime:
    return _EPOCH + timedelta(microseconds=int(microseconds))
