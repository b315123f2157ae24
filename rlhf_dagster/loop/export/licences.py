"""The licences of the sources that a loop's prompts name."""

from rlhf_dagster.data.import_licences import imported_licences
from rlhf_dagster.loop.folder import LoopFolder
from rlhf_dagster.records.licences import OURS
from rlhf_dagster.tasks.known import EMBEDDED_TASKS


def source_licences(loop: LoopFolder) -> dict[str, str]:
    """Licences by source, of those of which one is known: said at an import, or of an embedded task."""
    task = loop.config.data.task
    own = {task: OURS} if loop.config.has_task and task in EMBEDDED_TASKS else {}
    return own | imported_licences(loop.store)
