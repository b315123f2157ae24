"""How well a reward model predicts labels, beside what needs no model: chance, and the longest response."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from rlhf_dagster.errors import UserError
from rlhf_dagster.evaluation.intervals import Rate, clustered_rate

CALIBRATION_BINS = 10
FIGURES = ["credit", "length_credit", "chance", "log_likelihood", "uniform_log_likelihood", "confidence", "tied"]


@dataclass(frozen=True)
class RewardAccuracy:
    """Figures of a reward model on a set of labels; those that tie all responses are left out and counted as ``tied``.

    ``accuracy`` and ``length_baseline`` are Rates whose ``n`` counts comparisons, None where no label is left.
    ``chance`` is the mean share of responses at the top of a label. ``log_likelihood`` is the mean over labels, in
    nats, and ``chance_log_likelihood`` what equal scores would get; ``calibration_error`` is the expected calibration
    error.
    """

    accuracy: Rate | None
    length_baseline: Rate | None
    chance: float | None
    log_likelihood: float | None
    chance_log_likelihood: float | None
    calibration_error: float | None
    labels: int
    comparisons: int
    tied: int

    def as_dict(self) -> dict[str, Any]:
        rates = {"accuracy": self.accuracy, "length_baseline": self.length_baseline}
        return asdict(self) | {name: rate.as_dict() if rate else None for name, rate in rates.items()}


def score_labels(preferences: pd.DataFrame, scores: Sequence[ArrayLike]) -> pd.DataFrame:
    """The figures of each label: one row for each row of ``preferences``, with its split, round, kind and annotator.

    ``preferences`` has the columns of lineage.schemas.PREFERENCES; ``scores[i]`` has shape [K], the reward of each
    response of row i. The columns: ``credit``, the share of the highest-scored responses that are among the label's top
    ones (0 or 1 unless scores tie); ``length_credit``, the same with the number of words for a score; ``chance``, the
    label's top responses over K; ``log_likelihood``, the sum over responses of target times log softmax of the scores;
    ``uniform_log_likelihood``, -log K; ``confidence``, the largest softmax probability; ``tied``, whether the label
    ties all responses. Raises UserError where a score is not a finite number.
    """
    if len(preferences) != len(scores):
        raise ValueError(f"{len(scores)} rows of scores do not match {len(preferences)} preferences")
    keys = preferences[["label_id", "comparison_id", "split", "round", "kind", "annotator"]].reset_index(drop=True)
    rows = zip(keys["label_id"], preferences["responses"], preferences["target"], scores, strict=True)
    return keys.join(pd.DataFrame([_score_label(*row) for row in rows], index=keys.index, columns=FIGURES))


def summarise(rows: pd.DataFrame) -> RewardAccuracy:
    """The figures of :func:`score_labels` rows taken together.

    Several labels of one comparison are not independent, so the intervals are those of
    :func:`intervals.clustered_rate`, and their ``n`` counts comparisons.
    """
    counted = rows[~rows["tied"].astype(bool)]
    tied = len(rows) - len(counted)
    if counted.empty:
        return RewardAccuracy(None, None, None, None, None, None, labels=0, comparisons=0, tied=tied)
    clusters = counted["comparison_id"].tolist()
    return RewardAccuracy(
        accuracy=clustered_rate(counted["credit"], clusters),
        length_baseline=clustered_rate(counted["length_credit"], clusters),
        chance=float(counted["chance"].mean()),
        log_likelihood=float(counted["log_likelihood"].mean()),
        chance_log_likelihood=float(counted["uniform_log_likelihood"].mean()),
        calibration_error=expected_calibration_error(counted["confidence"], counted["credit"]),
        labels=len(counted),
        comparisons=len(set(clusters)),
        tied=tied,
    )


def summarise_by(rows: pd.DataFrame, column: str) -> dict[str, RewardAccuracy]:
    """:func:`summarise` for each value of ``column`` (split, round, kind or annotator) of :func:`score_labels` rows."""
    return {str(value): summarise(group) for value, group in rows.groupby(column, sort=True)}


def reward_accuracy(preferences: pd.DataFrame, scores: Sequence[ArrayLike]) -> dict[str, Any]:
    """The figures in JSON's form, ``splits`` by split, and by round, kind and annotator of the labels not trained on.

    The arguments are those of :func:`score_labels`. ``rounds``, ``kinds`` and ``annotators`` leave the split ``train``
    out, on which a reward model says little about its accuracy.
    """
    rows = score_labels(preferences, scores)
    unseen = rows[rows["split"] != "train"]
    groups = {
        "splits": summarise_by(rows, "split"),
        "rounds": summarise_by(unseen, "round"),
        "kinds": summarise_by(unseen, "kind"),
        "annotators": summarise_by(unseen, "annotator"),
    }
    return {name: {key: figures.as_dict() for key, figures in group.items()} for name, group in groups.items()}


def expected_calibration_error(confidence: ArrayLike, correct: ArrayLike, bins: int = CALIBRATION_BINS) -> float:
    """Mean over predictions of |accuracy - mean confidence| of their bin (Guo et al. 2017, section 2, equation 3).

    ``confidence`` (shape [n], in 0..1) is the predicted probability of the prediction made, ``correct`` (shape [n], in
    0..1) whether it came true; bins are equally wide and closed on the right.
    """
    sure, right = np.asarray(confidence, dtype=np.float64), np.asarray(correct, dtype=np.float64)
    bin_of = np.clip(np.ceil(sure * bins).astype(int) - 1, 0, bins - 1)
    gaps = np.bincount(bin_of, weights=right - sure, minlength=bins)
    return float(np.abs(gaps).sum() / sure.size)


def _score_label(label: str, responses: Sequence[str], target: ArrayLike, scores: ArrayLike) -> dict[str, Any]:
    wanted, reward = np.asarray(target, dtype=np.float64), np.asarray(scores, dtype=np.float64)
    if not len(responses) == wanted.size == reward.size:
        raise ValueError(f"label {label}: {len(responses)} responses, {wanted.size} targets, {reward.size} scores")
    if not np.isfinite(reward).all():
        raise UserError(f"The reward model's score for label {label} is not a finite number; train it again.")
    log_probs = reward - reward.max()
    log_probs -= np.log(np.exp(log_probs).sum())
    top = np.isclose(wanted, wanted.max())
    words = np.array([len(response.split()) for response in responses])
    return {
        "credit": float(top[reward == reward.max()].mean()),
        "length_credit": float(top[words == words.max()].mean()),
        "chance": float(top.mean()),
        "log_likelihood": float(wanted @ log_probs),
        "uniform_log_likelihood": -float(np.log(wanted.size)),
        "confidence": float(np.exp(log_probs.max())),
        "tied": bool(top.all()),
    }
