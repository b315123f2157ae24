"""A project as it was at one moment, read in parts: each is a short transaction, so that writers need not wait."""

from array import array
from collections.abc import Iterator

import numpy as np
import sqlalchemy as sa

from rlhf_dagster.labeling.ledger.database import Database
from rlhf_dagster.labeling.ledger.digests import added
from rlhf_dagster.labeling.ledger.rows import LedgerRow, LedgerRows
from rlhf_dagster.labeling.ledger.tables import ANNOTATIONS_TABLE, COMPARISONS_TABLE

_ROWS = 10_000
"""In one part."""


class ProjectParts:
    """A project's rows up to the moment at which this is made.

    Rows are only ever added, at positions that rise, so those up to a position stay what they were. All of them are
    compared with the totals of that moment; what is wrong raises
    :class:`~rlhf_dagster.labeling.ledger.database.LedgerDamaged`, at the latest behind the last row.
    """

    def __init__(self, database: Database, project: str) -> None:
        self._database, self._project = database, project
        with database.reading() as connection:
            rows = LedgerRows(database.address, connection)
            self._total, self.state = rows.project(project), rows.state()
            tables = (ANNOTATIONS_TABLE, COMPARISONS_TABLE)
            self._last = {table.name: _last_number(connection, table, project) for table in tables}

    def annotations(self) -> Iterator[LedgerRow]:
        """All annotation versions, in the order of positions."""
        said = array("q")
        for row in self._rows(ANNOTATIONS_TABLE, "annotation"):
            said.append(hash((row["annotation_id"], row["version"])))
            yield row
        if len(np.unique(np.asarray(said))) < len(said):
            self._read_whole()

    def comparisons(self) -> Iterator[LedgerRow]:
        """All comparisons, in the order in which they were sent."""
        return self._rows(COMPARISONS_TABLE, "comparison")

    def _rows(self, table: sa.Table, what: str) -> Iterator[LedgerRow]:
        after, last, count, digests = 0, self._last[table.name], 0, 0
        while after < last:
            part = self._part(table, after, last)
            yield from part
            count, digests = count + len(part), added(digests, (row["digest"] for row in part))
            after = part[-1][table.columns[0].name] if len(part) == _ROWS else last
        with self._database.reading() as connection:
            found = LedgerRows(self._database.address, connection)
            found.compare_totals(self._total, self._project, what, digests, count)

    def _part(self, table: sa.Table, after: int, last: int) -> list[LedgerRow]:
        """The next rows behind one, up to the last; the first column numbers them."""
        number = table.columns[0]
        those = (table.c.project == self._project, number > after, number <= last)
        with self._database.reading() as connection:
            rows = LedgerRows(self._database.address, connection)
            return list(rows.found(table, sa.select(table).where(*those).order_by(number).limit(_ROWS)))

    def _read_whole(self) -> None:
        """Two versions may be the same one: a whole reading compares them in full."""
        with self._database.reading() as connection:
            LedgerRows(self._database.address, connection).annotations(self._project)


def _last_number(connection: sa.Connection, table: sa.Table, project: str) -> int:
    """The number of a project's last row, by the first column; 0 without one."""
    query = sa.select(sa.func.max(table.columns[0])).where(table.c.project == project)
    return int(connection.execute(query).scalar() or 0)
