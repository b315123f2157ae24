"""What people should know of a round that is read: labels that are missing, tasks that cannot be read."""

from collections.abc import Iterator, Sequence

from rlhf_dagster.labeling.label_studio.records.seen import ASKED, Project
from rlhf_dagster.labeling.label_studio.state import SyncState

_SHOWN = 3
"""Tasks that cannot be read of which each has a sentence of its own."""


def notices(state: SyncState, projects: Sequence[Project]) -> list[str]:
    """A sentence for each thing that a person has to look at; none where all is well."""
    return [sentence for project in projects for sentence in _of_project(state, project)]


def _of_project(state: SyncState, project: Project) -> Iterator[str]:
    asked = state.number_with_status(project.project, ASKED)
    where = f"project {project.project} of Label Studio"
    if asked:
        lost = f"{where} is gone" if project.gone else f"they are not in {where} any more"
        yield (
            f"{asked:,} labels of {project.round} ({project.purpose}) may be lost: {lost}. They count until you say "
            f"what they are: rlhf label-studio accept-deletions --round {project.round} if people have deleted them, "
            "rlhf label-studio rejoin if the server has lost them."
        )
    elif project.gone and state.tasks(project.project, gone=True):
        yield f"{where[0].upper()}{where[1:]} ({project.round}, {project.purpose}) is gone; send its batch again."
    yield from _set_aside(state, project)


def _set_aside(state: SyncState, project: Project) -> Iterator[str]:
    aside, known = state.aside(project.project), state.tasks(project.project)
    for task, reason in list(aside.items())[:_SHOWN]:
        about = f" (comparison {known[task].comparison_id})" if task in known else ""
        yield (
            f"Task {task} of {project.round}{about} cannot be read: {reason}. What was read of it before counts; "
            "delete the annotation that breaks it in Label Studio."
        )
    if len(aside) > _SHOWN:
        yield f"{len(aside) - _SHOWN:,} more tasks of {project.round} cannot be read."
