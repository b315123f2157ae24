"""How far each response uses the words of good responses to its prompt."""

import numpy as np

from rlhf_dagster.errors import UserError
from rlhf_dagster.evaluation.texts.rouge import rouge_scores
from rlhf_dagster.loop.measuring.known_about import known_about
from rlhf_dagster.replication.measures.answers import VariantAnswers


def rouge_average(answers: VariantAnswers) -> np.ndarray:
    """The mean of ROUGE-1, 2 and L of each response (R-AVG of Ziegler et al. 2019), shape [n].

    Raises UserError where nobody knows a good response to one of the prompts.
    """
    known = known_about(answers.loop, answers.rows).references
    references = [known.get(prompt, ()) for prompt in answers.rows["prompt_id"]]
    found = rouge_scores(references, answers.rows["text"].tolist())
    if not all(found):
        raise UserError(f"{answers.loop.root}: some test prompts have no reference, and so no ROUGE.")
    return np.array([sum(scores.values()) / len(scores) for scores in found])
