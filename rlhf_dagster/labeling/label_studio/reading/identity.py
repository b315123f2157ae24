"""Who the server is: the database that answers at an address, told by what no other database has.

A database is known by when its organization was made, to the microsecond, and a project of ours by when it was made and
by the marker in its description. Ids tell nothing: another database gives the same ones to other things, and one that
was set back gives them again.
"""

from collections.abc import Mapping
from typing import Any

from rlhf_dagster.labeling.label_studio.client import LabelStudioClient
from rlhf_dagster.labeling.label_studio.configs import config_hash
from rlhf_dagster.labeling.label_studio.reading.servers import KnownServer, KnownServers
from rlhf_dagster.labeling.label_studio.records.seen import Project, moment
from rlhf_dagster.labeling.label_studio.state import SyncState
from rlhf_dagster.labeling.label_studio.transport.errors import AnotherDatabase, LabelStudioGone

WAY_ON = (
    "Nothing is recorded, and the labels on record count. Bring the database back that was there, or go on with the "
    "one that is there: rlhf label-studio rejoin."
)


def set_back(url: str, why: str) -> AnotherDatabase:
    """The sentence for a database that has lost what it once had; ``why`` is what shows it."""
    return AnotherDatabase(f"The database of Label Studio at {url} was set back to an earlier state: {why}. {WAY_ON}")


class Identity:
    """Compares the database that answers at the client's address with what we know of it."""

    def __init__(self, client: LabelStudioClient, servers: KnownServers, address: str) -> None:
        """``address`` is what the loop's settings call the server."""
        self.client, self.servers, self.address = client, servers, address

    def database(self) -> str:
        """What tells the database from every other one."""
        oldest = min(self.client.organizations(), key=lambda found: found["id"])
        return f"organization {oldest['id']} made at {oldest['created_at']}"

    def confirm(self) -> KnownServer | None:
        """The server in our records, wherever it was before; None for one at an address that no server of ours had.

        Raises AnotherDatabase where the address was another database's.
        """
        database, known = self.database(), self.servers.at(self.address)
        if known is not None and known.database == database:
            return known
        if known is not None and not known.database:
            self._require_a_project_of_ours(known)
            self.servers.set_database(known.key, database)
            return known
        moved = self.servers.of_database(database)
        if moved is not None:
            return self.servers.move(moved, self.address)
        if known is None:
            return None
        raise AnotherDatabase(
            f"Another Label Studio database answers at {self.address}: {database}, and this loop's tasks went to "
            f"{known.database}. {WAY_ON}"
        )

    def enlist(self) -> KnownServer:
        """Like :meth:`confirm`, for a server that tasks are about to go to."""
        return self.confirm() or self.servers.add(self.address, self.database())

    def _require_a_project_of_ours(self, known: KnownServer) -> None:
        """Version 0.1 kept the address alone, so a project of ours has to be there."""
        state = self.servers.state(known.key)
        projects = state.all_projects()
        if projects and not any(self.is_there(project, state) for project in projects):
            raise AnotherDatabase(
                f"The database of Label Studio at {self.address} has none of this loop's projects. {WAY_ON}"
            )

    def is_there(self, project: Project, state: SyncState) -> bool:
        """Whether the server has the project: this one, and not another one of its number."""
        try:
            found = self.client.project(project.project)
        except LabelStudioGone:
            return False
        if not project.created_at:
            if state.marker((project.round, project.purpose, project.kind), project.config) not in found["description"]:
                return False
            state.set_project(project.project, created_at=found["created_at"])
        elif moment(project.created_at) != moment(found["created_at"]):
            return False
        self._compare_page(project, found, state)
        return True

    def _compare_page(self, project: Project, found: Mapping[str, Any], state: SyncState) -> None:
        """Record whether annotators see the page that was made: every member can change it."""
        page = page_hash(found)
        if page and not project.page:
            state.set_project(project.project, page=page)
        elif (page != project.page) != project.other_page:
            state.set_project(project.project, other_page=int(page != project.page))

    def require(self, project: Project, state: SyncState) -> bool:
        """Whether the server has the project; raises AnotherDatabase where it is another database."""
        there = self.is_there(project, state)
        if not there:
            self.confirm()
        return there


def page_hash(project: Mapping[str, Any]) -> str:
    """A hash of the labelling config of a project as the server gives it; empty where it gives none."""
    page = project.get("label_config")
    return config_hash(page) if isinstance(page, str) else ""
