"""The part of a project in which something is new: what has to be read to count it again."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from rlhf_dagster.labeling.ledger.rows import LedgerRow, LedgerRows


@dataclass(frozen=True)
class VersionCounts:
    """How many annotation versions each of a project's comparisons has."""

    tasks: np.ndarray
    """The comparisons' task ids, ascending: (comparisons,) int64."""
    versions: np.ndarray
    """(comparisons,) int64."""

    @classmethod
    def of(cls, comparisons: Iterable[LedgerRow], annotations: Iterable[LedgerRow]) -> "VersionCounts":
        """Of all rows of a project, the comparisons in the order in which they were sent."""
        held = Counter(row["comparison_id"] for row in annotations)
        pairs = [(row["task_id"], held[row["comparison_id"]]) for row in comparisons]
        return cls.from_array(np.array(pairs, dtype="<i8"))

    @classmethod
    def from_array(cls, flat: np.ndarray) -> "VersionCounts":
        """The inverse of :meth:`as_array`."""
        return cls(*flat.reshape(-1, 2).T)

    def as_array(self) -> np.ndarray:
        """(comparisons, 2) int64."""
        return np.ascontiguousarray(np.stack([self.tasks, self.versions], axis=1), dtype="<i8")

    def changed(self, part: "ChangedPart") -> "VersionCounts":
        """The counts with those of a part that was read anew."""
        versions = self.versions.copy()
        versions[np.searchsorted(self.tasks, part.tasks)] = part.counts(part.versions)
        return VersionCounts(self.tasks, versions)


@dataclass(frozen=True)
class ChangedPart:
    """Some comparisons, and all versions of each annotation that has ever been on one of them."""

    comparisons: list[LedgerRow]
    versions: list[LedgerRow]

    @classmethod
    def read(
        cls, rows: LedgerRows, project: str, new: Sequence[LedgerRow], held: VersionCounts
    ) -> "ChangedPart | None":
        """The part of a project that the annotation versions ``new`` have changed since ``held`` was counted.

        An edit can move an annotation to another comparison, which changes both. None where what is found is not what
        was there, since an index can have lost a row.
        """
        changed = rows.versions(project, (row["annotation_id"] for row in new))
        comparisons = rows.comparisons_by_id({row["comparison_id"] for row in changed})
        there = rows.on_comparisons(project, comparisons)
        versions = rows.versions(project, (row["annotation_id"] for row in there))
        part = cls(list(comparisons.values()), versions)
        return part if _is_without_gaps(versions) and part._is_whole(new, held) else None

    @property
    def tasks(self) -> list[int]:
        """The comparisons' task ids."""
        return [row["task_id"] for row in self.comparisons]

    def counts(self, versions: Iterable[LedgerRow]) -> list[int]:
        """How many of some versions are on each of the comparisons."""
        found = Counter(row["comparison_id"] for row in versions)
        return [found[row["comparison_id"]] for row in self.comparisons]

    def _is_whole(self, new: Sequence[LedgerRow], held: VersionCounts) -> bool:
        places = np.searchsorted(held.tasks, self.tasks)
        if not np.isin(self.tasks, held.tasks).all():
            return False
        return bool((held.versions[places] + self.counts(new) == self.counts(self.versions)).all())


def _is_without_gaps(versions: Iterable[LedgerRow]) -> bool:
    """Whether each annotation's versions are 1, 2, and so on."""
    numbers: dict[str, list[int]] = {}
    for row in versions:
        numbers.setdefault(row["annotation_id"], []).append(row["version"])
    return all(sorted(found) == list(range(1, len(found) + 1)) for found in numbers.values())
