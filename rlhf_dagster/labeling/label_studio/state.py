"""What we know of a Label Studio server, beside the ledger and in its file: projects, tasks, annotations."""

from collections.abc import Iterable, Mapping
from dataclasses import fields
from typing import Any

import sqlalchemy as sa

from rlhf_dagster.labeling.embedded import annotation_id
from rlhf_dagster.labeling.label_studio.records.seen import CARRIED, THERE, KnownAnnotation, Project, Seen, SentTask
from rlhf_dagster.labeling.ledger.address import LedgerAddress
from rlhf_dagster.labeling.ledger.database import Database
from rlhf_dagster.labeling.ledger.layout import prepare_tables
from rlhf_dagster.labeling.ledger.tables import LS_ANNOTATIONS, LS_ASIDE, LS_PEOPLE, LS_PROJECTS, LS_STORE, LS_TASKS
from rlhf_dagster.records.ids import content_hash

_TASK = [LS_TASKS.c[field.name] for field in fields(SentTask)]
_CHUNK = 500
"""Keys in one query; databases limit them."""


class SyncState:
    """Records of the server with the key ``server``, in the ledger at ``address``."""

    def __init__(self, address: LedgerAddress, server: str) -> None:
        self._database, self._server = Database(address), server
        prepare_tables(self._database)

    @property
    def store_id(self) -> str:
        """Tells this loop's projects from those of another loop of the same name."""
        return str(self._rows(sa.select(LS_STORE.c.id))[0][0])

    def marker(self, key: tuple[str, str, str], config: str) -> str:
        """What the description of a project of ours holds; ``key`` is round, purpose and kind."""
        return f"rlhf_dagster {self.store_id}/{'/'.join(key)}/{config}"

    def servers(self, round_key: str, purpose: str) -> list[str]:
        """The servers that a round was sent to."""
        of_round = (LS_PROJECTS.c.round == round_key, LS_PROJECTS.c.purpose == purpose)
        return sorted(row[0] for row in self._rows(sa.select(LS_PROJECTS.c.server).where(*of_round).distinct()))

    def projects(self, round_key: str, purpose: str) -> list[Project]:
        """Projects of a round, oldest first, those that are gone included."""
        return [found for found in self.all_projects() if (found.round, found.purpose) == (round_key, purpose)]

    def all_projects(self) -> list[Project]:
        """Projects of all rounds, oldest first."""
        columns = [column for column in LS_PROJECTS.columns if column.name != "server"]
        query = sa.select(*columns).where(LS_PROJECTS.c.server == self._server)
        return [Project(**row._mapping) for row in self._rows(query.order_by(LS_PROJECTS.c.project))]

    def add_project(
        self,
        project: int,
        key: tuple[str, str, str],
        config: str,
        settings: str,
        labels_wanted: int,
        unsure: bool,
        created_at: str = "",
        page: str = "",
    ) -> None:
        """Record a project; ``key`` is round, purpose and kind, ``unsure`` says that it may hold tasks already.

        One of the same number that is gone gives way to it.
        """
        row: dict[str, Any] = dict(zip(("round", "purpose", "kind"), key, strict=True)) | {
            "config": config,
            "settings": settings,
        }
        row |= {"server": self._server, "project": project, "labels_wanted": labels_wanted, "unsure": int(unsure)}
        row |= {"created_at": created_at, "page": page}
        new = row | {"gone": 0, "listed": 0, "newest": None, "other_page": 0}
        insert = self._database.insert(LS_PROJECTS).on_conflict_do_update(
            index_elements=["server", "project"], set_=new, where=LS_PROJECTS.c.gone == 1
        )
        self._write(insert, [row])

    def all_tasks(self) -> dict[int, SentTask]:
        """Tasks of all projects by id, those that are gone included."""
        return {
            row.task: SentTask(*row) for row in self._rows(sa.select(*_TASK).where(LS_TASKS.c.server == self._server))
        }

    def set_project(self, project: int, **columns: int | str) -> None:
        """Set columns of a project, such as ``unsure=0``."""
        self._change(LS_PROJECTS, "project", [{"of": project} | columns])

    def set_read(self, project: Project, newest: str | None, at: float) -> None:
        """Changes up to ``newest`` have been read, beginning at ``at``."""
        seen = project.newest_seen if newest == project.newest else at
        row = {"of": project.project, "newest": newest, "newest_seen": seen, "last_read": at}
        self._change(LS_PROJECTS, "project", [row])

    def tasks(self, project: int, gone: bool = False) -> dict[int, SentTask]:
        """Tasks that are there, by id, in the order of ids; with ``gone`` also those that were."""
        query = sa.select(*_TASK).where(
            LS_TASKS.c.server == self._server, LS_TASKS.c.project == project, LS_TASKS.c.gone <= int(gone)
        )
        return {row.task: SentTask(*row) for row in self._rows(query.order_by(LS_TASKS.c.task))}

    def add_tasks(
        self,
        project: int,
        comparisons: Mapping[int, str],
        overlap: int,
        sure: bool = False,
        digests: Mapping[int, str] | None = None,
    ) -> None:
        """Record tasks, with the ``digests`` of their data; ``sure`` says that they are all tasks of an import, whose
        outcome is known now.

        The annotations of one that was gone are read again, whether or not it has changed meanwhile.
        """
        fixed = {"server": self._server, "project": project, "overlap": overlap}
        rows = [
            fixed | {"task": task, "comparison_id": comparison, "data_digest": (digests or {}).get(task, "")}
            for task, comparison in comparisons.items()
        ]
        insert = self._database.insert(LS_TASKS).on_conflict_do_update(
            index_elements=["server", "task"],
            set_={"gone": 0, "updated_at": sa.case((LS_TASKS.c.gone == 1, ""), else_=LS_TASKS.c.updated_at)},
        )
        listed = {"unsure": 0, "listed": LS_PROJECTS.c.listed + len(rows)}
        with self._database.transaction() as connection:
            if rows:
                connection.execute(insert, rows)
            if sure:
                of = (LS_PROJECTS.c.server == self._server, LS_PROJECTS.c.project == project)
                connection.execute(sa.update(LS_PROJECTS).where(*of).values(listed))

    def set_overlap(self, task: int, overlap: int) -> None:
        self._change(LS_TASKS, "task", [{"of": task, "overlap": overlap}])

    def set_updated(self, times: Mapping[int, str]) -> None:
        """Record the time of each task's last change that was read."""
        self._change(LS_TASKS, "task", [{"of": task, "updated_at": at} for task, at in times.items()])

    def set_digests(self, digests: Mapping[int, str]) -> None:
        """Record the digests of tasks' data."""
        self._change(LS_TASKS, "task", [{"of": task, "data_digest": digest} for task, digest in digests.items()])

    def set_tasks_gone(self, tasks: Iterable[int]) -> None:
        self._change(LS_TASKS, "task", [{"of": task, "gone": 1} for task in tasks])

    def annotations(self, tasks: Iterable[int]) -> list[KnownAnnotation]:
        """Annotations of some tasks, those gone included."""
        query = self._annotations().where(LS_ANNOTATIONS.c.task == sa.bindparam("of"))
        with self._database.reading() as connection:
            rows = [row for task in tasks for row in connection.execute(query, {"of": task})]
        return [KnownAnnotation(*row) for row in rows]

    def by_number(self, annotations: Iterable[int]) -> dict[int, KnownAnnotation]:
        """Annotations on record by the server's numbers."""
        query = self._annotations().where(LS_ANNOTATIONS.c.annotation == sa.bindparam("of"))
        with self._database.reading() as connection:
            rows = [row for number in annotations for row in connection.execute(query, {"of": number})]
        return {row.annotation: KnownAnnotation(*row) for row in rows}

    def with_status(self, project: int, status: int) -> list[KnownAnnotation]:
        """Annotations of a project that are what ``status`` says."""
        return [KnownAnnotation(*row) for row in self._rows(_of_project(self._annotations(), project, status))]

    def number_with_status(self, project: int, status: int) -> int:
        """How many annotations of a project are what ``status`` says."""
        query = sa.select(sa.func.count()).where(LS_ANNOTATIONS.c.server == self._server)
        return int(self._rows(_of_project(query, project, status))[0][0])

    def identify(self, found: Iterable[Seen]) -> dict[int, str]:
        """Our id for each annotation, the same for ever; all are recorded as being there.

        A person's first annotation of a comparison has the id that it has in every label store.
        """
        found = list(found)
        ids: dict[int, str] = {}
        insert = self._database.insert_new(LS_ANNOTATIONS)
        query = sa.select(LS_ANNOTATIONS.c.annotation_id).where(
            LS_ANNOTATIONS.c.server == self._server, LS_ANNOTATIONS.c.annotation == sa.bindparam("of")
        )
        with self._database.transaction() as connection:
            for one in found:
                row = {"server": self._server, "annotation": one.annotation, "task": one.task}
                row |= {"comparison_id": one.comparison_id}
                further = content_hash("annotation", one.comparison_id, one.annotator, one.annotation)
                for name in (annotation_id(one.comparison_id, one.annotator), further):
                    connection.execute(insert, row | {"annotation_id": name})
                ids[one.annotation] = connection.execute(query, {"of": one.annotation}).scalar_one()
        times = [{"created_at": one.created_at, "updated_at": one.updated_at} for one in found]
        rows = [{"of": one.annotation, "gone": THERE} | at for one, at in zip(found, times, strict=True)]
        self._change(LS_ANNOTATIONS, "annotation", rows)
        return ids

    def settings_of(self, round_key: str, purpose: str, comparisons: Iterable[str]) -> dict[str, str]:
        """The settings (JSON) of the page on which each of a round's ``comparisons`` was judged."""
        joined = LS_TASKS.join(
            LS_PROJECTS,
            sa.and_(LS_TASKS.c.server == LS_PROJECTS.c.server, LS_TASKS.c.project == LS_PROJECTS.c.project),
        )
        query = (
            sa.select(LS_TASKS.c.comparison_id, LS_PROJECTS.c.settings)
            .select_from(joined)
            .where(LS_PROJECTS.c.round == round_key, LS_PROJECTS.c.purpose == purpose)
            .order_by(LS_TASKS.c.gone.desc())
        )
        wanted = set(comparisons)
        if len(wanted) <= _CHUNK:
            query = query.where(LS_TASKS.c.comparison_id.in_(wanted))
        return {row[0]: row[1] for row in self._rows(query) if row[0] in wanted} if wanted else {}

    def settings_in(self, round_key: str, purpose: str) -> str:
        """A hash of what :meth:`settings_of` chooses from: the settings of a round's projects on all servers."""
        here = (LS_PROJECTS.c.round == round_key, LS_PROJECTS.c.purpose == purpose)
        columns = (LS_PROJECTS.c.server, LS_PROJECTS.c.project, LS_PROJECTS.c.settings)
        return content_hash(*sorted(map(tuple, self._rows(sa.select(*columns).where(*here)))))

    def names(self) -> dict[int, str]:
        """What each user seen so far is called in our tables, for ever: an e-mail address can change."""
        query = sa.select(LS_PEOPLE.c.user, LS_PEOPLE.c.name).where(LS_PEOPLE.c.server == self._server)
        return {row[0]: row[1] for row in self._rows(query)}

    def add_names(self, names: Mapping[int, str]) -> None:
        rows = [{"server": self._server, "user": user, "name": name} for user, name in names.items()]
        self._write(self._database.insert_new(LS_PEOPLE), rows)

    def carry_annotations(self, old: "SyncState", project: int) -> None:
        """Know a project's annotations by what they are called in the record of the same server before this one."""
        found = [row for row in old.annotations(old.tasks(project, gone=True)) if row.created_at]
        rows = [
            {
                "server": self._server,
                "annotation": row.annotation,
                "task": row.task,
                "annotation_id": row.annotation_id,
                "comparison_id": row.comparison_id,
                "gone": CARRIED,
                "created_at": row.created_at,
                "updated_at": row.updated_at,
            }
            for row in found
        ]
        self._write(self._database.insert_new(LS_ANNOTATIONS), rows)

    def forget(self, annotations: Iterable[int]) -> None:
        """Take annotations off the record of this server; the ledger keeps what they said."""
        here = (LS_ANNOTATIONS.c.server == self._server, LS_ANNOTATIONS.c.annotation == sa.bindparam("of"))
        self._write(sa.delete(LS_ANNOTATIONS).where(*here), [{"of": number} for number in annotations])

    def set_status(self, annotations: Iterable[int], status: int) -> None:
        self._change(LS_ANNOTATIONS, "annotation", [{"of": annotation, "gone": status} for annotation in annotations])

    def aside(self, project: int) -> dict[int, str]:
        """Tasks of a project that could not be read when they were last asked for, with the reason."""
        here = (LS_ASIDE.c.server == self._server, LS_ASIDE.c.project == project)
        query = sa.select(LS_ASIDE.c.task, LS_ASIDE.c.reason).where(*here).order_by(LS_ASIDE.c.task)
        return {row.task: row.reason for row in self._rows(query)}

    def set_aside(self, project: int, tasks: Mapping[int, str]) -> None:
        """Record which tasks of a project cannot be read; no others are."""
        if tasks == self.aside(project):
            return
        here = (LS_ASIDE.c.server == self._server, LS_ASIDE.c.project == project)
        fixed = {"server": self._server, "project": project}
        with self._database.transaction() as connection:
            connection.execute(sa.delete(LS_ASIDE).where(*here))
            for task, reason in tasks.items():
                connection.execute(self._database.insert_new(LS_ASIDE), fixed | {"task": task, "reason": reason})

    def on_comparison(self, comparison: str) -> dict[str, int]:
        """The server's ids of the annotations of a comparison that are there, by our ids."""
        query = sa.select(LS_ANNOTATIONS.c.annotation_id, LS_ANNOTATIONS.c.annotation).where(
            LS_ANNOTATIONS.c.server == self._server,
            LS_ANNOTATIONS.c.comparison_id == comparison,
            LS_ANNOTATIONS.c.gone == THERE,
        )
        return {row[0]: int(row[1]) for row in self._rows(query)}

    def _annotations(self) -> sa.Select[Any]:
        names = ("annotation", "task", "annotation_id", "comparison_id", "gone", "created_at", "updated_at")
        return sa.select(*(LS_ANNOTATIONS.c[name] for name in names)).where(LS_ANNOTATIONS.c.server == self._server)

    def _rows(self, query: sa.Select[Any]) -> list[Any]:
        with self._database.reading() as connection:
            return list(connection.execute(query).all())

    def _change(self, table: sa.Table, key: str, rows: list[dict[str, Any]]) -> None:
        """Set columns of this server's rows: in each of ``rows``, ``of`` is the value of ``key``."""
        names = [name for name in (rows[0] if rows else {}) if name != "of"]
        statement = sa.update(table).where(table.c.server == self._server, table.c[key] == sa.bindparam("of"))
        self._write(
            statement.values({name: sa.bindparam(f"new_{name}") for name in names}),
            [{"of": row["of"]} | {f"new_{name}": row[name] for name in names} for row in rows],
        )

    def _write(self, statement: Any, rows: list[dict[str, Any]]) -> None:
        if rows:
            with self._database.transaction() as connection:
                connection.execute(statement, rows)


def _of_project(query: sa.Select[Any], project: int, status: int) -> sa.Select[Any]:
    """A query of annotations for those of one project and status."""
    tasks = sa.and_(LS_TASKS.c.server == LS_ANNOTATIONS.c.server, LS_TASKS.c.task == LS_ANNOTATIONS.c.task)
    joined = query.select_from(LS_ANNOTATIONS.join(LS_TASKS, tasks))
    return joined.where(LS_TASKS.c.project == project, LS_ANNOTATIONS.c.gone == status)
