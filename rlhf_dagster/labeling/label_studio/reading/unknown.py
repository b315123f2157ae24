"""Projects that a loop has made on a server and does not know of: it was brought back from a backup since."""

from rlhf_dagster.labeling.label_studio.client import LabelStudioClient
from rlhf_dagster.labeling.label_studio.state import SyncState


def unknown_projects(client: LabelStudioClient, state: SyncState, loop_name: str) -> list[str]:
    """A sentence for each project whose description has this loop's marker, and which is not in its records."""
    known = {project.project for project in state.all_projects()}
    ours = f"rlhf_dagster {state.store_id}/"
    found = [
        project
        for project in client.projects(loop_name[:24])
        if ours in project["description"] and project["id"] not in known
    ]
    return [_sentence(project["id"], project["description"].partition(ours)[2]) for project in found]


def _sentence(project: int, marked: str) -> str:
    round_key, purpose = marked.split("/")[:2]
    return (
        f"Label Studio has project {project} with tasks of {round_key} ({purpose}), which this loop has sent and does "
        "not know of: it was brought back from an earlier backup. Where that round is collected again with the same "
        "comparisons, the labels there count; otherwise delete the project."
    )
