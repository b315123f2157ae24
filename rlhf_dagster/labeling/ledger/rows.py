"""Reading rows of the ledger: each is checked against its digest, and a whole round against its totals."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from rlhf_dagster.labeling.ledger.address import LedgerAddress
from rlhf_dagster.labeling.ledger.database import LedgerDamaged
from rlhf_dagster.labeling.ledger.digests import added, is_intact
from rlhf_dagster.labeling.ledger.tables import ANNOTATIONS_TABLE, COMPARISONS_TABLE, LEDGER_TABLE, PROJECTS_TABLE

LedgerRow = Mapping[str, Any]
_CHUNK = 500
"""Keys in one query; databases limit them."""


@dataclass(frozen=True)
class LedgerState:
    """What a ledger says about itself."""

    identity: str
    """Made at random with the ledger, and kept in copies of it."""
    loop: str
    """Id of the loop whose labels it holds; empty before the first batch."""
    position: int
    """The last position given out; 0 before the first."""
    annotations: int
    """Annotation versions of all rounds."""


class LedgerRows:
    """What one transaction sees. Raises :class:`LedgerDamaged` for whatever is not as it was written."""

    def __init__(self, address: LedgerAddress, connection: sa.Connection) -> None:
        self.address, self._connection = address, connection

    def ledger(self, lock: bool = False) -> dict[str, Any]:
        """The ledger's own row; ``lock`` makes other writers wait until this transaction ends."""
        query = sa.select(LEDGER_TABLE)
        rows = list(self.found(LEDGER_TABLE, query.with_for_update() if lock else query))
        if len(rows) != 1:
            raise self.damaged(f"it has {len(rows)} rows about itself in place of one")
        return dict(rows[0])

    def state(self) -> LedgerState:
        row = self.ledger()
        return LedgerState(row["identity"], row["loop"], row["position"], row["annotations"])

    def project(self, project: str) -> LedgerRow | None:
        """A project's totals; None where nothing was sent for it."""
        for row in self.found(PROJECTS_TABLE, sa.select(PROJECTS_TABLE).where(PROJECTS_TABLE.c.project == project)):
            return row
        self.check_projects()
        return None

    def check_projects(self) -> None:
        """Whether the projects are those that the ledger's own row speaks of."""
        self._compare_projects(self.projects(), self.ledger())

    def projects(self) -> list[LedgerRow]:
        return list(self.found(PROJECTS_TABLE, sa.select(PROJECTS_TABLE)))

    def check_all(self, ledger: LedgerRow) -> None:
        """Read everything; ``ledger`` is the row of the ledger that this is to be."""
        projects = self.projects()
        self._compare_projects(projects, ledger)
        for row in projects:
            self.comparisons(row["project"])
            self.annotations(row["project"])
        for table, held in ((COMPARISONS_TABLE, "comparisons"), (ANNOTATIONS_TABLE, "annotations")):
            rows = self._connection.execute(sa.select(sa.func.count()).select_from(table)).scalar()
            if rows != sum(row[held] for row in projects):
                raise self.damaged(f"it has {held} that are of no round")

    def annotators(self) -> list[str]:
        """Everybody who has ever annotated, each once."""
        return list(self._connection.execute(sa.select(ANNOTATIONS_TABLE.c.annotator).distinct()).scalars())

    def annotations(self, project: str, after: int = 0) -> list[LedgerRow]:
        """A project's annotation versions later than a position, in the order of positions."""
        query = sa.select(ANNOTATIONS_TABLE).where(
            ANNOTATIONS_TABLE.c.project == project, ANNOTATIONS_TABLE.c.position > after
        )
        rows = list(self.found(ANNOTATIONS_TABLE, query.order_by(ANNOTATIONS_TABLE.c.position)))
        if after <= 0:
            self._check(project, "annotation", rows)
            self._check_twice(project, rows)
        return rows

    def comparisons(self, project: str) -> list[LedgerRow]:
        """A project's comparisons in the order in which they were sent."""
        query = (
            sa.select(COMPARISONS_TABLE)
            .where(COMPARISONS_TABLE.c.project == project)
            .order_by(COMPARISONS_TABLE.c.task_id)
        )
        rows = list(self.found(COMPARISONS_TABLE, query))
        self._check(project, "comparison", rows)
        return rows

    def comparisons_after(self, project: str, task: int) -> Iterator[LedgerRow]:
        """A project's comparisons with a greater task id, by it; it is not checked whether one is missing."""
        while True:
            later = (COMPARISONS_TABLE.c.project == project, COMPARISONS_TABLE.c.task_id > task)
            query = sa.select(COMPARISONS_TABLE).where(*later).order_by(COMPARISONS_TABLE.c.task_id).limit(_CHUNK)
            rows = list(self.found(COMPARISONS_TABLE, query))
            yield from rows
            if not rows:
                return
            task = rows[-1]["task_id"]

    def comparisons_by_id(self, ids: Iterable[str]) -> dict[str, LedgerRow]:
        found = self._chunked(COMPARISONS_TABLE, COMPARISONS_TABLE.c.comparison_id, ids)
        return {row["comparison_id"]: row for row in found}

    def on_comparisons(self, project: str, comparison_ids: Iterable[str]) -> list[LedgerRow]:
        """All annotation versions of some of a project's comparisons, in no order."""
        return self._of_project(project, ANNOTATIONS_TABLE.c.comparison_id, comparison_ids)

    def versions(self, project: str, annotation_ids: Iterable[str]) -> list[LedgerRow]:
        """All versions of some of a project's annotations, in no order."""
        return self._of_project(project, ANNOTATIONS_TABLE.c.annotation_id, annotation_ids)

    def newest(self, annotation_ids: Iterable[str]) -> dict[str, LedgerRow]:
        """The last version of each annotation that is there."""
        newest: dict[str, LedgerRow] = {}
        for row in self._chunked(ANNOTATIONS_TABLE, ANNOTATIONS_TABLE.c.annotation_id, annotation_ids):
            before = newest.get(row["annotation_id"])
            if before is None or before["version"] < row["version"]:
                newest[row["annotation_id"]] = row
        return newest

    def damaged(self, what: str) -> LedgerDamaged:
        return LedgerDamaged.at(self.address, what)

    def _compare_projects(self, projects: list[LedgerRow], ledger: LedgerRow) -> None:
        if added(0, (row["digest"] for row in projects)) != ledger["checksum"]:
            raise self.damaged("a round is missing, or its totals are not the last ones")

    def _check(self, project: str, what: str, rows: list[LedgerRow]) -> None:
        self.compare_totals(self.project(project), project, what, added(0, (row["digest"] for row in rows)), len(rows))

    def compare_totals(self, total: LedgerRow | None, project: str, what: str, digests: int, rows: int) -> None:
        """Compare all the ``rows`` of a project, and the sum of their digests, with what its ``total`` says."""
        wanted = (total[f"{what}s"], total[f"{what}_sum"]) if total else (0, 0)
        found = (rows, digests)
        if found[0] != wanted[0]:
            raise self.damaged(f"{project} has {found[0]:,} {what}s of the {wanted[0]:,} that were recorded")
        if found != wanted:
            raise self.damaged(f"{what}s of {project} are not those that were recorded")

    def _check_twice(self, project: str, rows: list[LedgerRow]) -> None:
        if len({(row["annotation_id"], row["version"]) for row in rows}) < len(rows):
            raise self.damaged(f"{project} has a version of an annotation twice")

    def _of_project(self, project: str, column: sa.Column[str], keys: Iterable[str]) -> list[LedgerRow]:
        return [row for row in self._chunked(ANNOTATIONS_TABLE, column, keys) if row["project"] == project]

    def _chunked(self, table: sa.Table, column: sa.Column[str], keys: Iterable[str]) -> Iterator[LedgerRow]:
        wanted = list(dict.fromkeys(keys))
        for start in range(0, len(wanted), _CHUNK):
            yield from self.found(table, sa.select(table).where(column.in_(wanted[start : start + _CHUNK])))

    def found(self, table: sa.Table, query: sa.Select[Any]) -> Iterator[LedgerRow]:
        """The rows of a table that a query selects, each compared with its digest."""
        names = [column.name for column in table.columns]
        try:
            found = self._connection.execute(query).all()
        except (TypeError, ValueError, OverflowError) as error:  # a flipped bit can change a field's type too
            raise self.damaged(f"a row of {table.name} cannot be read ({error})") from None
        for values in found:
            if not is_intact(values):
                raise self.damaged(f"a row of {table.name} is not as it was written ({names[0]} {values[0]!r:.60})")
            yield dict(zip(names, values, strict=True))
