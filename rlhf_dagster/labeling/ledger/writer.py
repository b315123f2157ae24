"""Adding to a ledger: one writer at a time, so that positions appear in their order."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import count
from typing import Any

import sqlalchemy as sa

from rlhf_dagster.common.batches import batches
from rlhf_dagster.errors import UserError
from rlhf_dagster.labeling.ledger.address import LedgerAddress
from rlhf_dagster.labeling.ledger.database import Database
from rlhf_dagster.labeling.ledger.digests import added, digest, with_digest
from rlhf_dagster.labeling.ledger.rows import LedgerRow, LedgerRows
from rlhf_dagster.labeling.ledger.tables import ANNOTATIONS_TABLE, COMPARISONS_TABLE, LEDGER_TABLE, PROJECTS_TABLE
from rlhf_dagster.labeling.ledger.versions import FirstVersion, Version, next_version
from rlhf_dagster.labeling.store import Annotation

_CHUNK = 500


@contextmanager
def writing_labels(database: Database) -> Iterator["LedgerWriter"]:
    """A write transaction of the one writer; all of it is there afterwards, or nothing where an error is raised."""
    with database.transaction() as connection:
        writer = LedgerWriter(database, connection)
        yield writer
        writer.finish()


class LedgerWriter:
    """Adds comparisons and annotation versions within one transaction.

    It holds the lock of the ledger's own row from its start to the commit, and takes positions from that row. So they
    are given out and committed in the same order, and whoever has read up to a position has missed none before it: of a
    project, and of the whole ledger. An identity column does not have this property: it counts before the commit.
    """

    def __init__(self, database: Database, connection: sa.Connection) -> None:
        self._database, self._connection = database, connection
        self.rows = LedgerRows(database.address, connection)
        self._own = self.rows.ledger(lock=True)
        self._known: dict[str, LedgerRow] = {}
        self._projects: dict[str, dict[str, Any]] = {}

    def send(self, comparisons: Iterable[tuple[str, str, str, str]]) -> int:
        """Add what is not there yet of comparisons (id, round, purpose, content); how many were added."""
        return sum(self._send(chunk) for chunk in batches(comparisons, _CHUNK))

    def append(self, annotations: Iterable[Annotation]) -> int:
        """Add each annotation as the next version of its id, unless the newest one says the same; how many were added.

        Raises UserError for an annotation of a comparison that was never sent.
        """
        return sum(self._append(chunk) for chunk in batches(annotations, _CHUNK))

    def send_new(self, comparisons: Sequence[tuple[str, str, str, str]]) -> list[int]:
        """:meth:`send` where it is known that none of them is there yet; returns their task ids."""
        rows = [self._comparison(*comparison) for comparison in comparisons]
        self._database.add_rows(self._connection, COMPARISONS_TABLE, rows)
        return [row[0] for row in rows]

    def append_after(
        self,
        annotations: Iterable[Annotation | FirstVersion],
        newest: dict[str, LedgerRow],
        project: Callable[[str], str],
    ) -> int:
        """:meth:`append` where the newest versions on record are known by annotation id, and projects by comparison.

        A :class:`FirstVersion` is taken as it is: there is no other version of its annotation, here or on record.
        """
        versions: list[Version] = []
        for annotation in annotations:
            if isinstance(annotation, FirstVersion):
                versions.append(annotation)
                continue
            version = next_version(annotation, newest.get(annotation.annotation_id))
            if version is not None:
                versions.append(version)
                newest[annotation.annotation_id] = version._asdict()
        rows = self._annotations(versions, [project(version.comparison_id) for version in versions])
        self._database.add_rows(self._connection, ANNOTATIONS_TABLE, rows)
        return len(rows)

    def continue_after(self, position: int) -> None:
        """Give out no position up to this one."""
        self._own["position"] = max(self._own["position"], position)

    def claim(self, loop: str) -> None:
        """Record that the ledger holds a loop's labels. Raises UserError where it holds another one's."""
        if self._own["loop"] not in ("", loop):
            raise UserError(belongs_to_another(self.rows.address))
        self._own["loop"] = loop

    def finish(self) -> None:
        """Write the new totals."""
        for project, total in self._projects.items():
            row = with_digest(PROJECTS_TABLE, total)
            self._connection.execute(sa.update(PROJECTS_TABLE).where(PROJECTS_TABLE.c.project == project).values(row))
            self._own["checksum"] = added(self._own["checksum"], [row["digest"], -self._known[project]["digest"]])
        self._connection.execute(sa.update(LEDGER_TABLE).values(with_digest(LEDGER_TABLE, self._own)))

    def _send(self, chunk: list[tuple[str, str, str, str]]) -> int:
        there = self.rows.comparisons_by_id(row[0] for row in chunk)
        new = {row[0]: row for row in chunk if row[0] not in there}
        return len(self.send_new(list(new.values())))

    def _comparison(self, identity: str, round_key: str, purpose: str, content: str) -> tuple[Any, ...]:
        """A row of COMPARISONS_TABLE."""
        project = self._project(project_name(round_key, purpose)) or self._begin(round_key, purpose)
        self._own["task"] += 1
        row = (self._own["task"], identity, project["project"], content)
        checked = digest(row)
        project["comparisons"] += 1
        project["comparison_sum"] = added(project["comparison_sum"], [checked])
        return (*row, checked)

    def _append(self, chunk: list[Annotation]) -> int:
        comparisons = self.rows.comparisons_by_id(annotation.comparison_id for annotation in chunk)
        newest = self.rows.newest(annotation.annotation_id for annotation in chunk)

        def project(comparison_id: str) -> str:
            if comparison_id not in comparisons:
                raise UserError(f"There is no comparison {comparison_id} in the label store; send it first.")
            return str(comparisons[comparison_id]["project"])

        return self.append_after(chunk, newest, project)

    def _annotations(self, versions: Sequence[Version], projects: Sequence[str]) -> list[tuple[Any, ...]]:
        """Rows of ANNOTATIONS_TABLE, at the next positions."""
        start, digests = self._own["position"] + 1, defaultdict[str, list[int]](list)
        rows: list[tuple[Any, ...]] = []
        for position, version, name in zip(count(start), versions, projects, strict=False):
            row = (position, *version, name)
            checked = digest(row)
            rows.append((*row, checked))
            digests[name].append(checked)
        last = dict(zip(projects, count(start), strict=False))
        for name, found in digests.items():
            self._count(name, found, last[name])
        self._own["position"] += len(rows)
        self._own["annotations"] += len(rows)
        return rows

    def _count(self, name: str, digests: Sequence[int], position: int) -> None:
        """Add annotations, of which ``position`` is the last, to the totals of a project."""
        project = self._project(name)
        if project is None:
            raise self.rows.damaged(f"{name} has comparisons and is not on record")
        project["position"] = position
        project["annotations"] += len(digests)
        project["annotation_sum"] = added(project["annotation_sum"], digests)

    def _project(self, name: str) -> dict[str, Any] | None:
        if name not in self._projects:
            found = self.rows.project(name)
            if found is None:
                return None
            self._known[name], self._projects[name] = found, dict(found)
        return self._projects[name]

    def _begin(self, round_key: str, purpose: str) -> dict[str, Any]:
        """A project without comparisons; the ledger's row is to know it before another one is looked for."""
        counts = dict.fromkeys(("comparisons", "comparison_sum", "annotations", "annotation_sum", "position"), 0)
        name = project_name(round_key, purpose)
        row = with_digest(PROJECTS_TABLE, {"project": name, "round": round_key, "purpose": purpose, **counts})
        self._connection.execute(sa.insert(PROJECTS_TABLE), row)
        self._own["checksum"] = added(self._own["checksum"], [row["digest"]])
        self._connection.execute(sa.update(LEDGER_TABLE).values(with_digest(LEDGER_TABLE, self._own)))
        self._known[name], self._projects[name] = row, dict(row)
        return self._projects[name]


def belongs_to_another(address: LedgerAddress) -> str:
    """The sentence for a loop that finds the labels of another one."""
    return (
        f"The ledger {address} holds the labels of another loop; give this loop another `ledger`, in Postgres by "
        "another `name` or by `?schema=NAME` in the address. If it is this loop's, `rlhf ledger continue LOOP` says so."
    )


def project_name(round_key: str, purpose: str) -> str:
    return f"{round_key}/{purpose}"
