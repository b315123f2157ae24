"""What the columns of exported records mean."""

from rlhf_dagster.records.schemas import COMPARISONS, COMPLETIONS, DEMONSTRATIONS, LABELS, PREFERENCES, PROMPTS, meaning

_TABLES = (PROMPTS, DEMONSTRATIONS, COMPLETIONS, COMPARISONS, LABELS, PREFERENCES)
COLUMN_MEANINGS = {column.name: meaning(column) for table in _TABLES for column in table} | {
    "comparison": "name of the comparison; equal names are about the same responses",
    "prompt": "what is answered: a text, or the messages of a chat",
    "responses": "the texts compared; where order_known is true in the order in which the annotator saw them",
    "ranks": "rank of each response, 1 is best, equal ranks tie",
    "choice": "null in all rows: with neither ranks nor ratings, the annotator could not decide",
    "ratings": "rating of each response by axis, 1 (worst) to 7",
    "order_known": "whether it is known in which order the responses were shown",
    "policies": "who wrote each response",
    "chosen": "the better response",
    "rejected": "the worse response",
    "chosen_model": "who wrote the better response",
    "rejected_model": "who wrote the worse response",
    "response_a": "the first response",
    "response_b": "the second response",
    "winner": "a, b, tie or cannot decide",
    "model_a": "who wrote the first response",
    "model_b": "who wrote the second response",
    "metadata": "what else a file said of an imported judgment, as JSON",
    "submitted_at": "when the judgment was made",
    "weight": "weight in the loss; pairs of one judgment share it",
    "source": "where the prompt came from",
    "instruction": "the prompt's text",
    "output": "what a person wrote for it",
    "info": "the comparison's name and its prompt",
    "summaries": "the two responses, and who wrote them",
    "worker": "pseudonym of the annotator",
    "batch": "the labelling round",
    "extra": "strength of the preference, and weight in the loss",
}
"""By column."""
