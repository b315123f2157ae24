"""What each response says of the facts of its prompt, by a task that knows them."""

import numpy as np

from rlhf_dagster.errors import UserError
from rlhf_dagster.replication.measures.answers import VariantAnswers
from rlhf_dagster.tasks.base import HasFacts


def covered_shares(answers: VariantAnswers) -> np.ndarray:
    """Share of the key facts that each response says, shape [n]; raises UserError where the task knows no facts."""
    task = answers.loop.task
    if not isinstance(task, HasFacts):
        raise UserError(f"The task `{task.name}` knows no facts that a response could say.")
    found = list(map(task.truthfulness, answers.rows["prompt"], answers.rows["text"]))
    return np.array([one.covered / one.key_facts for one in found])
