"""What the labels of a loop are like: how far people agree, how often they tie, and what several of them know."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from rlhf_dagster.common.intervals import Rate, clustered_rate
from rlhf_dagster.errors import UserError
from rlhf_dagster.labeling.parse import usable_labels
from rlhf_dagster.labeling.quality.checks import MEASURING_ROLES
from rlhf_dagster.loop.folder import LoopFolder
from rlhf_dagster.records.outcome import best, target
from rlhf_dagster.records.tables import Row, grouped, records
from rlhf_dagster.replication.measures.rounds import round_figures, round_table
from rlhf_dagster.replication.verdicts import rate_of

_LABELS, LABELLED_BATCH = "preference_labels", "preference_batch"


def agreement(loop: LoopFolder, round_key: str = "") -> Rate:
    """Share of pairs of people who name the same best response; of a round, by default the latest.

    Unmeasured where no comparison has two labels (`labeling.overlap`).
    """
    return rate_of(round_figures(loop, "label_quality", round_key)["summary"]["agreement"])


def undecided_share(loop: LoopFolder, round_key: str) -> Rate:
    """Share of a round's labels that name no single best response, `cannot decide` included."""
    labels = submitted_labels(loop, round_key)
    undecided = [ranks is None or len(best(ranks)) > 1 for ranks in labels["ranks"]]
    return clustered_rate(np.array(undecided, dtype=np.float64), labels["comparison_id"].tolist())


def clear_share(loop: LoopFolder, round_key: str, least: float = 1.0) -> Rate:
    """Share of a round's labels whose best response is better by ``least`` or more (strength); ties are not."""
    labels = submitted_labels(loop, round_key)
    clear = (labels["strength"].astype("float64") >= least).to_numpy(dtype=np.float64)
    return clustered_rate(clear, labels["comparison_id"].tolist())


@dataclass(frozen=True)
class Votes:
    """By comparison that enough people judged: how often they name what the gold judge finds best; shape [n] each."""

    one: np.ndarray
    """Mean over the people, each by itself."""
    together: np.ndarray
    """Of their mode; where several responses have the most votes, the share of these that are right."""


def votes(loop: LoopFolder, round_key: str, people: int = 3) -> Votes:
    """One person against the mode of ``people``, who are the first by the id of their label.

    A tie shares a vote. Raises UserError where no comparison of the round has that many labels.
    """
    batch = {row["comparison_id"]: row for row in records(round_table(loop, LABELLED_BATCH, round_key))}
    labels = usable_labels(submitted_labels(loop, round_key)).sort_values("label_id")
    enough = [given[:people] for given in grouped(labels, "comparison_id") if len(given) >= people]
    if not enough:
        raise UserError(
            f"{loop.root}: no comparison of {round_key} has {people} labels; set labeling.overlap and overlap_labels."
        )
    gold = loop.task.gold_score
    found = [_right(given, _gold_best(gold, batch[given[0]["comparison_id"]])) for given in enough]
    return Votes(*np.array(found, dtype=np.float64).T)


def _gold_best(gold: Callable[[str, str], float], row: Row) -> np.ndarray:
    """1 for each response with the highest gold score, shape [K]."""
    scores = np.array([gold(row["prompt"], text) for text in row["responses"]])
    return np.isclose(scores, scores.max()).astype(np.float64)


def _right(given: Sequence[Row], right: np.ndarray) -> tuple[float, float]:
    shares = np.array([target(list(label["ranks"])) for label in given])
    mode = shares.sum(axis=0)
    return float((shares @ right).mean()), float(right[np.isclose(mode, mode.max())].mean())


def submitted_labels(loop: LoopFolder, round_key: str) -> pd.DataFrame:
    """The last version of each label of what is asked to learn about responses, not about annotators."""
    labels, batch = round_table(loop, _LABELS, round_key), round_table(loop, LABELLED_BATCH, round_key)
    learned_from = batch.loc[~batch["role"].isin(MEASURING_ROLES), "comparison_id"]
    counted = labels["latest"] & (labels["status"] == "submitted") & labels["comparison_id"].isin(learned_from)
    if not counted.any():
        raise UserError(f"{loop.root}: {round_key} has no label; let its annotators judge first.")
    return labels[counted]
