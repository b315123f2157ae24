"""Whose response to a test prompt is preferred: by the gold judge, and by simulated annotators of a kind."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from rlhf_dagster.common.intervals import Rate, clustered_rate
from rlhf_dagster.evaluation.win_rate import GOLD_JUDGE, WinRate, win_rate
from rlhf_dagster.labeling.parse import usable_labels
from rlhf_dagster.loop.measuring.simulated import simulated_judgments
from rlhf_dagster.records.round_keys import round_key
from rlhf_dagster.records.tables import records
from rlhf_dagster.replication.measures.answers import VariantAnswers, on_same_prompts
from rlhf_dagster.tasks.annotator_kinds import annotators_of

_ONE, _OTHER = "one", "other"


def gold_wins(one: VariantAnswers, other: VariantAnswers) -> np.ndarray:
    """1 where ``one``'s response has the higher gold score, 1/2 where both have the same, 0 otherwise; shape [n].

    By prompt, in the order of :func:`on_same_prompts`.
    """
    first, second = on_same_prompts(one, other)
    return (np.sign(first.gold - second.gold) + 1) / 2


def annotator_wins(one: VariantAnswers, other: VariantAnswers, kind: str = "") -> np.ndarray:
    """The same by the simulated annotators of a kind (by default the task's first), one of whom judges each prompt.

    The annotators are those of ``one``'s loop. Two equal responses tie, and so do two between which an annotator
    cannot decide.
    """
    first, second = on_same_prompts(one, other)
    judged = _judged(first, second, kind)
    return np.array([judged.get(prompt, 0.5) for prompt in first.rows["prompt_id"]])


def share_of_wins(wins: ArrayLike) -> Rate:
    """The win rate that :func:`gold_wins` or :func:`annotator_wins` come to, ties half, with its 95% interval."""
    won = np.asarray(wins, dtype=np.float64)
    return clustered_rate(won, range(won.size))


def gold_win_rate(one: VariantAnswers, other: VariantAnswers, against: str = "") -> WinRate:
    """The win rate by the gold judge, also at equal length; ``against`` names whose responses ``other`` are."""
    first, second = on_same_prompts(one, other)
    longer = first.rows["text"].str.len() - second.rows["text"].str.len()
    return win_rate(first.gold, second.gold, GOLD_JUDGE, against, longer.to_numpy(dtype=np.float64))


def _judged(first: VariantAnswers, second: VariantAnswers, kind: str) -> dict[str, float]:
    """By prompt, what the annotator who was asked preferred: 1 for the first response."""
    loop = first.loop
    people = annotators_of(loop.task, kind, loop.config.stage_seed("annotators"))
    seed = loop.config.stage_seed(f"preferences of {kind}")
    responses = pd.concat([_named(first, _ONE), _named(second, _OTHER)], ignore_index=True)
    labels, comparisons = simulated_judgments(people, responses, [(_ONE, _OTHER)], round_key(1), seed)
    asked = {row["comparison_id"]: row for row in records(comparisons)}
    found = ((asked[label["comparison_id"]], label["ranks"]) for label in records(usable_labels(labels)))
    return {row["prompt_id"]: _win(list(row["policy_ids"]), ranks) for row, ranks in found}


def _named(answers: VariantAnswers, policy: str) -> pd.DataFrame:
    """The responses under names of their own: two loops give their policies, and so their completions, the same."""
    rows = answers.rows[["prompt_id", "prompt", "text"]]
    return rows.assign(policy_id=policy, completion_id=[f"{policy}-{prompt}" for prompt in rows["prompt_id"]])


def _win(policies: Sequence[str], ranks: Sequence[int]) -> float:
    return (np.sign(ranks[policies.index(_OTHER)] - ranks[policies.index(_ONE)]) + 1) / 2
