"""How well a reward model predicts labels, beside what needs no model: chance, and the longest or shortest response."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from rlhf_dagster.common.intervals import Rate, clustered_rate
from rlhf_dagster.common.words import words
from rlhf_dagster.errors import UserError
from rlhf_dagster.evaluation.calibration import calibration_curve, expected_calibration_error

FIGURES = [
    "credit",
    "length_credit",
    "brevity_credit",
    "chance",
    "log_likelihood",
    "uniform_log_likelihood",
    "confidence",
    "tied",
    "length_difference",
]
LENGTH_STEP = 0.25
"""A response whose length differs from the others' by more than this share is much longer or shorter."""
LENGTH_DIFFERENCES = (
    "preferred is much shorter",
    "preferred is shorter",
    "same length",
    "preferred is longer",
    "preferred is much longer",
)
UNKNOWN_STRENGTH = "not asked"


@dataclass(frozen=True)
class RewardAccuracy:
    """Figures of a reward model on a set of labels; those that tie all responses are left out and counted as ``tied``.

    ``accuracy``, ``length_baseline`` (preferring the longest response) and ``brevity_baseline`` (the shortest) are
    Rates whose ``n`` counts comparisons, None where no label is left. ``chance`` is the mean share of responses at the
    top of a label. ``log_likelihood`` is the mean over labels, in nats, and ``chance_log_likelihood`` what equal scores
    would get; ``calibration_error`` is the expected calibration error.
    """

    accuracy: Rate | None
    length_baseline: Rate | None
    brevity_baseline: Rate | None
    chance: float | None
    log_likelihood: float | None
    chance_log_likelihood: float | None
    calibration_error: float | None
    labels: int
    comparisons: int
    tied: int

    def as_dict(self) -> dict[str, Any]:
        rates = {name: getattr(self, name) for name in ("accuracy", "length_baseline", "brevity_baseline")}
        return asdict(self) | {name: rate.as_dict() if rate else None for name, rate in rates.items()}


def score_labels(preferences: pd.DataFrame, scores: Sequence[ArrayLike], scale: float = 1.0) -> pd.DataFrame:
    """The figures of each label: one row for each row of ``preferences``, with its split, round, kind and annotator.

    ``preferences`` has the columns of records.schemas.PREFERENCES; ``scores[i]`` has shape [K], the reward of each
    response of row i. The softmax of ``scale`` times these is the predicted probability of each being the best.

    The columns: ``credit``, the share of the highest-scored responses that are among the label's top
    ones (0 or 1 unless scores tie); ``length_credit``, the same with the number of words for a score;
    ``brevity_credit``, with its negative; ``chance``, the label's top responses over K; ``log_likelihood``, the sum
    over responses of target times the logarithm of the predicted probability; ``uniform_log_likelihood``, -log K;
    ``confidence``, the largest predicted probability; ``tied``, whether the label ties all responses;
    ``length_difference``, one of :data:`LENGTH_DIFFERENCES`; ``strength``, as a text. Raises UserError where a score is
    not a finite number.
    """
    if len(preferences) != len(scores):
        raise ValueError(f"{len(scores)} rows of scores do not match {len(preferences)} preferences")
    keys = preferences[["label_id", "comparison_id", "split", "round", "kind", "annotator"]].reset_index(drop=True)
    keys["strength"] = _strengths(preferences)
    rows = zip(keys["label_id"], preferences["responses"], preferences["target"], scores, strict=True)
    return keys.join(pd.DataFrame([_score_label(*row, scale) for row in rows], index=keys.index, columns=FIGURES))


def _strengths(preferences: pd.DataFrame) -> list[str]:
    """The strength of each label as a text; tables of older versions have no such column."""
    given = preferences["strength"] if "strength" in preferences else [None] * len(preferences)
    return [UNKNOWN_STRENGTH if pd.isna(strength) else f"{strength:g}" for strength in given]


def summarise(rows: pd.DataFrame) -> RewardAccuracy:
    """The figures of :func:`score_labels` rows taken together.

    Several labels of one comparison are not independent, so the intervals are those of
    :func:`intervals.clustered_rate`, and their ``n`` counts comparisons.
    """
    counted = rows[~rows["tied"].astype(bool)]
    tied = len(rows) - len(counted)
    if counted.empty:
        return RewardAccuracy(None, None, None, None, None, None, None, labels=0, comparisons=0, tied=tied)
    clusters = counted["comparison_id"].tolist()
    return RewardAccuracy(
        accuracy=clustered_rate(counted["credit"], clusters),
        length_baseline=clustered_rate(counted["length_credit"], clusters),
        brevity_baseline=clustered_rate(counted["brevity_credit"], clusters),
        chance=float(counted["chance"].mean()),
        log_likelihood=float(counted["log_likelihood"].mean()),
        chance_log_likelihood=float(counted["uniform_log_likelihood"].mean()),
        calibration_error=expected_calibration_error(counted["confidence"], counted["credit"]),
        labels=len(counted),
        comparisons=len(set(clusters)),
        tied=tied,
    )


def summarise_by(rows: pd.DataFrame, column: str) -> dict[str, RewardAccuracy]:
    """:func:`summarise` for each value of ``column`` of :func:`score_labels` rows."""
    return {str(value): summarise(group) for value, group in rows.groupby(column, sort=True)}


def reward_accuracy(preferences: pd.DataFrame, scores: Sequence[ArrayLike], scale: float = 1.0) -> dict[str, Any]:
    """The figures in JSON's form: of each split, and of the labels not trained on, together and group by group.

    The arguments are those of :func:`score_labels`. ``unseen`` are all labels not trained on. ``rounds``, ``kinds``,
    ``annotators``, ``strengths`` and ``length_differences`` are the groups; they leave out the split ``train``, on
    which accuracy means little. ``calibration`` has the bins of :func:`~calibration.calibration_curve` of each split.
    """
    rows = score_labels(preferences, scores, scale)
    unseen = rows[rows["split"] != "train"]
    by_length = summarise_by(unseen, "length_difference")
    groups = {
        "splits": summarise_by(rows, "split"),
        "rounds": summarise_by(unseen, "round"),
        "kinds": summarise_by(unseen, "kind"),
        "annotators": summarise_by(unseen, "annotator"),
        "strengths": summarise_by(unseen, "strength"),
        "length_differences": {name: by_length[name] for name in LENGTH_DIFFERENCES if name in by_length},
    }
    figures: dict[str, Any] = {
        name: {key: figures.as_dict() for key, figures in group.items()} for name, group in groups.items()
    }
    curves = {str(split): _curve(group) for split, group in rows.groupby("split", sort=True)}
    return figures | {"unseen": summarise(unseen).as_dict(), "calibration": curves}


def perfect_accuracy(preferences: pd.DataFrame) -> dict[str, Any]:
    """What :func:`reward_accuracy` would be of a reward model that is always right: known before one is trained."""
    return reward_accuracy(preferences, preferences["target"].tolist())


def _curve(rows: pd.DataFrame) -> list[dict[str, Any]]:
    counted = rows[~rows["tied"].astype(bool)]
    return [
        one.as_dict()
        for one in calibration_curve(counted["confidence"], counted["credit"], counted["comparison_id"].tolist())
    ]


def _score_label(
    label: str, responses: Sequence[str], target: ArrayLike, scores: ArrayLike, scale: float
) -> dict[str, Any]:
    wanted, reward = np.asarray(target, dtype=np.float64), np.asarray(scores, dtype=np.float64)
    if not len(responses) == wanted.size == reward.size:
        raise ValueError(f"label {label}: {len(responses)} responses, {wanted.size} targets, {reward.size} scores")
    if not np.isfinite(reward).all():
        raise UserError(f"The reward model's score for label {label} is not a finite number; train it again.")
    log_probs = scale * (reward - reward.max())
    log_probs -= np.log(np.exp(log_probs).sum())
    top = np.isclose(wanted, wanted.max())
    lengths = np.array([len(words(response)) for response in responses])
    return {
        "credit": float(top[reward == reward.max()].mean()),
        "length_credit": float(top[lengths == lengths.max()].mean()),
        "brevity_credit": float(top[lengths == lengths.min()].mean()),
        "chance": float(top.mean()),
        "log_likelihood": float(wanted @ log_probs),
        "uniform_log_likelihood": -float(np.log(wanted.size)),
        "confidence": float(np.exp(log_probs.max())),
        "tied": bool(top.all()),
        "length_difference": _length_difference(lengths, top),
    }


def _length_difference(lengths: np.ndarray, top: np.ndarray) -> str:
    """How the label's top responses compare with the others in words, relative to the mean of all."""
    if top.all():
        return LENGTH_DIFFERENCES[2]
    gap = (lengths[top].mean() - lengths[~top].mean()) / max(lengths.mean(), 1.0)
    return LENGTH_DIFFERENCES[int(np.searchsorted([-LENGTH_STEP, -1e-9, 1e-9, LENGTH_STEP], gap))]
