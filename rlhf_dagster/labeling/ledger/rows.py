"""Reading rows of the ledger: each is checked against its digest, and a whole round against its totals."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import sqlalchemy as sa

from rlhf_dagster.labeling.ledger.address import LedgerAddress
from rlhf_dagster.labeling.ledger.database import LedgerDamaged
from rlhf_dagster.labeling.ledger.digests import added, is_whole
from rlhf_dagster.labeling.ledger.tables import ANNOTATIONS, COMPARISONS, LEDGER, PROJECTS

Row = Mapping[str, Any]
_CHUNK = 500
"""Keys in one query; databases limit them."""


class LedgerRows:
    """What one transaction sees. Raises :class:`LedgerDamaged` for whatever is not as it was written."""

    def __init__(self, address: LedgerAddress, connection: sa.Connection) -> None:
        self._address, self._connection = address, connection

    def ledger(self, lock: bool = False) -> dict[str, Any]:
        """The ledger's own row; ``lock`` makes other writers wait until this transaction ends."""
        query = sa.select(LEDGER)
        rows = list(self._rows(LEDGER, query.with_for_update() if lock else query))
        if len(rows) != 1:
            raise self.damaged(f"it has {len(rows)} rows about itself in place of one")
        return dict(rows[0])

    def project(self, project: str) -> Row | None:
        """A project's totals; None where nothing was sent for it."""
        for row in self._rows(PROJECTS, sa.select(PROJECTS).where(PROJECTS.c.project == project)):
            return row
        self.check_projects()
        return None

    def check_projects(self) -> None:
        """Whether the projects are those that the ledger's own row speaks of."""
        found = added(0, (row["digest"] for row in self._rows(PROJECTS, sa.select(PROJECTS))))
        if found != self.ledger()["checksum"]:
            raise self.damaged("a round is missing, or its totals are not the last ones")

    def annotations(self, project: str, after: int = 0) -> list[Row]:
        """A project's annotation versions later than a position, in the order of positions."""
        query = sa.select(ANNOTATIONS).where(ANNOTATIONS.c.project == project, ANNOTATIONS.c.position > after)
        rows = list(self._rows(ANNOTATIONS, query.order_by(ANNOTATIONS.c.position)))
        if after <= 0:
            self._check(project, "annotation", rows)
            self._check_twice(project, rows)
        return rows

    def comparisons(self, project: str) -> list[Row]:
        """A project's comparisons in the order in which they were sent."""
        query = sa.select(COMPARISONS).where(COMPARISONS.c.project == project).order_by(COMPARISONS.c.task_id)
        rows = list(self._rows(COMPARISONS, query))
        self._check(project, "comparison", rows)
        return rows

    def comparisons_by_id(self, ids: Iterable[str]) -> dict[str, Row]:
        found = self._chunked(COMPARISONS, COMPARISONS.c.comparison_id, ids)
        return {row["comparison_id"]: row for row in found}

    def newest(self, annotation_ids: Iterable[str]) -> dict[str, Row]:
        """The last version of each annotation that is there."""
        newest: dict[str, Row] = {}
        for row in self._chunked(ANNOTATIONS, ANNOTATIONS.c.annotation_id, annotation_ids):
            before = newest.get(row["annotation_id"])
            if before is None or before["version"] < row["version"]:
                newest[row["annotation_id"]] = row
        return newest

    def damaged(self, what: str) -> LedgerDamaged:
        return LedgerDamaged.at(self._address, what)

    def _check(self, project: str, what: str, rows: list[Row]) -> None:
        total = self.project(project)
        wanted = (total[f"{what}s"], total[f"{what}_sum"]) if total else (0, 0)
        found = (len(rows), added(0, (row["digest"] for row in rows)))
        if found[0] != wanted[0]:
            raise self.damaged(f"{project} has {found[0]:,} {what}s of the {wanted[0]:,} that were recorded")
        if found != wanted:
            raise self.damaged(f"{what}s of {project} are not those that were recorded")

    def _check_twice(self, project: str, rows: list[Row]) -> None:
        if len({(row["annotation_id"], row["version"]) for row in rows}) < len(rows):
            raise self.damaged(f"{project} has a version of an annotation twice")

    def _chunked(self, table: sa.Table, column: sa.Column[str], keys: Iterable[str]) -> Iterator[Row]:
        wanted = list(dict.fromkeys(keys))
        for start in range(0, len(wanted), _CHUNK):
            yield from self._rows(table, sa.select(table).where(column.in_(wanted[start : start + _CHUNK])))

    def _rows(self, table: sa.Table, query: sa.Select[Any]) -> Iterator[Row]:
        names = [column.name for column in table.columns]
        try:
            found = self._connection.execute(query).all()
        except (TypeError, ValueError, OverflowError) as error:  # a flipped bit can change a field's type too
            raise self.damaged(f"a row of {table.name} cannot be read ({error})") from None
        for values in found:
            row = dict(zip(names, values, strict=True))
            if not is_whole(table, row):
                raise self.damaged(f"a row of {table.name} is not as it was written ({_name(table, row)})")
            yield row


def _name(table: sa.Table, row: Row) -> str:
    key = next(iter(table.primary_key.columns)).name
    return f"{key} {row[key]!r:.60}"
