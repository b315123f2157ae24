"""Going on with the server that is there: set back, moved, new, or without a project that it had."""

from collections.abc import Callable
from dataclasses import dataclass

from rlhf_dagster.labeling.label_studio.reading.identity import Identity
from rlhf_dagster.labeling.label_studio.reading.servers import KnownServer, KnownServers
from rlhf_dagster.labeling.label_studio.records.seen import Project
from rlhf_dagster.labeling.label_studio.state import SyncState


@dataclass(frozen=True)
class Rejoined:
    """What going on with a server has found."""

    address: str
    database: str
    found: list[Project]
    """Projects that are there."""
    lost: list[Project]
    """Projects of undecided rounds that are not; their labels stay on record and count."""


def rejoin(identity: Identity, servers: KnownServers, decided: Callable[[str], bool]) -> Rejoined:
    """Begin a record of the server that is there, with the projects of ours that it has.

    Its projects are to be read from the beginning. The records of all servers before it stay as they are, and nothing
    changes them any more: what is only there counts as it was last read.
    """
    database, before = identity.database(), servers.in_use()
    projects = _undecided(servers, decided)
    there = [found for found in projects if identity.is_there(found[1], servers.state(found[0].key))]
    servers.leave(before)
    state = servers.state(servers.add(identity.address, database).key)
    for known, project in sorted(projects, key=lambda found: found in there):
        _carry(servers.state(known.key), state, project, known.database == database, (known, project) in there)
    found = {(project.project, project.created_at): project for _, project in there}
    lost = {
        (known.database, project.project, project.created_at): project
        for known, project in projects
        if (project.project, project.created_at) not in found
    }
    return Rejoined(identity.address, database, list(found.values()), list(lost.values()))


def _undecided(servers: KnownServers, decided: Callable[[str], bool]) -> list[tuple[KnownServer, Project]]:
    """Projects of rounds without a decision in the records of all servers: one that was left can come back."""
    known = {server.key: server for server in [*servers.all(), *servers.in_use()]}
    return [
        (server, project)
        for server in known.values()
        for project in servers.state(server.key).all_projects()
        if not decided(project.round)
    ]


def _carry(old: SyncState, new: SyncState, project: Project, same: bool, there: bool) -> None:
    """Have the new record know a project as never read, and its people where they are the same users.

    One that is not there is known too, for it may come back.
    """
    new.add_project(
        project.project,
        (project.round, project.purpose, project.kind),
        project.config,
        project.settings,
        project.labels_wanted,
        unsure=True,
        created_at=project.created_at,
    )
    if not there:
        new.set_project(project.project, gone=1)
    if same:
        new.add_names(old.names())
        new.carry_annotations(old, project.project)
