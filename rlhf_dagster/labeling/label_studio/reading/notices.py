"""What people should know of a round that is read: labels that are missing, tasks that cannot be read."""

from collections.abc import Iterator, Sequence

from rlhf_dagster.labeling.label_studio.reading.texts import OTHER_TEXTS
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
    if project.other_page and not project.gone:
        yield (
            f"The page of {where} ({project.round}, {project.purpose}) was changed there: annotators see another one "
            "than was made. What they answer counts; look at the page, and put it back or delete the project."
        )
    yield from _set_aside(state, project)


def _set_aside(state: SyncState, project: Project) -> Iterator[str]:
    known = state.tasks(project.project)
    found = state.aside(project.project).items()
    aside = {task: reason for task, reason in found if reason != OTHER_TEXTS or task in known}
    for task, reason in list(aside.items())[:_SHOWN]:
        about = f" (comparison {known[task].comparison_id})" if task in known else ""
        mend = (
            "put the texts back in Label Studio, or delete the task and send its batch again"
            if reason == OTHER_TEXTS
            else "delete the annotation that breaks it in Label Studio"
        )
        yield (
            f"Task {task} of {project.round}{about} cannot be read: {reason}. What was read of it before counts; "
            f"{mend}."
        )
    if len(aside) > _SHOWN:
        yield f"{len(aside) - _SHOWN:,} more tasks of {project.round} cannot be read."
