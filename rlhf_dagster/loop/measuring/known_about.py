"""What a loop knows about its test prompts: references, the texts they are about, and facts."""

from collections.abc import Iterable

import pandas as pd

from rlhf_dagster.evaluation.texts.figures import KnownAbout
from rlhf_dagster.loop.demonstrations import read_references
from rlhf_dagster.loop.folder import LoopFolder
from rlhf_dagster.tasks.base import HasFacts, HasReferences, HasSource, Task


def known_about(loop: LoopFolder, completions: pd.DataFrame) -> KnownAbout:
    """What is known about the prompts of ``completions`` (columns ``prompt_id`` and ``prompt``).

    References are the task's, where it has some, and the demonstrations of the test split.
    """
    written = read_references(loop)
    if not loop.config.has_task:
        return KnownAbout(written)
    task, prompts = loop.task, completions.drop_duplicates("prompt_id")
    given = _references(task, zip(prompts["prompt_id"], prompts["prompt"], strict=True))
    return KnownAbout(
        references={prompt: [*given.get(prompt, ()), *written.get(prompt, ())] for prompt in given | written},
        source=task.source if isinstance(task, HasSource) else str,
        truthfulness=task.truthfulness if isinstance(task, HasFacts) else None,
    )


def _references(task: Task, prompts: Iterable[tuple[str, str]]) -> dict[str, list[str]]:
    if not isinstance(task, HasReferences):
        return {}
    return {identity: list(task.references(prompt)) for identity, prompt in prompts}
