"""Gold questions: comparisons whose answer is known, to see who reads what they judge."""

from collections.abc import Mapping, Sequence
from typing import Any

from rlhf_dagster.labeling.comparisons import comparison_row, display_order
from rlhf_dagster.labeling.selection import score_gap
from rlhf_dagster.records.chats import prompt_of_row
from rlhf_dagster.records.ids import comparison_id, completion_id, content_hash, prompt_id
from rlhf_dagster.records.kinds import RANKED_KINDS
from rlhf_dagster.records.outcome import ranks_from_best
from rlhf_dagster.records.tables import Row

GOLD_POLICY = "gold"
"""Policy id of responses that came with a gold question."""
POOL = 3
"""Comparisons drawn for each gold question needed; those with the clearest answers are asked."""


def clear_answers(rows: Sequence[Row], scores: Mapping[str, Sequence[float]], n: int, seed: int) -> list[Row]:
    """``n`` gold questions out of comparisons ``rows``, with ``scores`` of their responses by the gold judge.

    Of ``POOL`` times ``n`` rows drawn at random, they are those with the largest gap between the two best scores.
    """
    drawn = sorted(rows, key=lambda row: content_hash("gold", seed, row["comparison_id"]))[: n * POOL]
    clearest = sorted(drawn, key=lambda row: -score_gap(scores[row["comparison_id"]]))[:n]
    questions = []
    for row in clearest:
        given = list(scores[row["comparison_id"]])
        identity = comparison_id(row["completion_ids"], row["kind"], row["round"], "gold")
        changes = {
            "comparison_id": identity,
            "role": "gold",
            "gold_ranks": ranks_from_best([given.index(max(given))], len(given)),
            "display_order": display_order(len(given), identity, seed),
            "labels_wanted": 1,
        }
        questions.append(row | changes)
    return questions


def known_answers(given: Sequence[Mapping[str, Any]], n: int, kind: str, round_key: str, seed: int) -> list[Row]:
    """``n`` gold questions of a round out of imported ones (rows of IMPORTED_GOLD), drawn anew in each round.

    They are asked as the round's kind of comparison, or as best of K where that kind needs another number of responses.
    """
    drawn = sorted(given, key=lambda row: content_hash("gold", seed, round_key, row["gold_id"]))[:n]
    return [_question(row, kind, round_key, seed) for row in drawn]


def _question(given: Mapping[str, Any], kind: str, round_key: str, seed: int) -> Row:
    prompt = prompt_id(prompt_of_row(given))
    members = [
        {
            "completion_id": completion_id(prompt, GOLD_POLICY, {"text": text}, 0, index),
            "prompt_id": prompt,
            "prompt": given["prompt"],
            "messages": given.get("messages"),
            "policy_id": GOLD_POLICY,
            "text": text,
        }
        for index, text in enumerate(given["responses"])
    ]
    asked = kind if RANKED_KINDS[kind].responses in (None, len(members)) else "best_of_k"
    row = comparison_row(members, asked, round_key, "train", seed, role="gold")
    best = row["responses"].index(given["responses"][given["best"]])
    return row | {"gold_ranks": ranks_from_best([best], len(members))}
