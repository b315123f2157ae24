"""Reward-model accuracy and its baselines, by hand and by their properties."""

import json
import math
from collections.abc import Sequence

import numpy as np
import pandas as pd
import pytest
from numpy.typing import ArrayLike

from rlhf_dagster.common.intervals import wilson
from rlhf_dagster.errors import UserError
from rlhf_dagster.evaluation.reward_accuracy import (
    LENGTH_DIFFERENCES,
    RewardAccuracy,
    reward_accuracy,
    score_labels,
    summarise,
    summarise_by,
)


def preferences(*rows: tuple[list[str], list[float]], **columns: list[str]) -> pd.DataFrame:
    count = len(rows)
    frame = pd.DataFrame({name: [f"{name}-{i}" for i in range(count)] for name in ("label_id", "comparison_id")})
    frame = frame.assign(split="validation", round="round-0001", kind="best_of_k", annotator="ann-01")
    frame["responses"] = [responses for responses, _ in rows]
    frame["target"] = [np.array(target, dtype=np.float32) for _, target in rows]
    return frame.assign(**columns)


def figures_of(frame: pd.DataFrame, scores: Sequence[ArrayLike]) -> RewardAccuracy:
    return summarise(score_labels(frame, scores))


PAIR = ["one", "one two"]
THREE = ["one", "one two", "one two three"]
SCALED = (([[0.5, 0.0], [1.0, 0.0]], 3.0), ([[1.5, 0.0], [3.0, 0.0]], 1.0))
"""The same scores before and after they are multiplied."""


def test_one_label_by_hand() -> None:
    row = score_labels(preferences((THREE, [0.5, 0.5, 0.0])), [[2.0, 1.0, 0.0]]).iloc[0]
    normaliser = math.log(math.exp(2) + math.exp(1) + 1)
    assert row["credit"] == 1.0
    assert row["length_credit"] == 0.0
    assert row["chance"] == pytest.approx(2 / 3)
    assert row["log_likelihood"] == pytest.approx(1.5 - normaliser)
    assert row["uniform_log_likelihood"] == pytest.approx(-math.log(3))
    assert row["confidence"] == pytest.approx(math.exp(2 - normaliser))
    assert not row["tied"]


@pytest.mark.parametrize(
    ("target", "scores", "credit"),
    [
        ([0, 1, 0], [1, 1, 0], 1 / 2),
        ([0, 1, 0], [1, 1, 1], 1 / 3),
        ([0.5, 0.5, 0], [1, 1, 1], 2 / 3),
        ([0, 1, 0], [1, 0, 0], 0),
    ],
)
def test_tied_scores_get_a_share(target: list[float], scores: list[float], credit: float) -> None:
    assert score_labels(preferences((THREE, target)), [scores])["credit"].item() == pytest.approx(credit)


@pytest.mark.parametrize(
    ("responses", "credit"), [(["a b", "a"], 0.0), (["a", "a b"], 1.0), (["a b", "c d"], 0.5), (["", ""], 0.5)]
)
def test_length_baseline_takes_the_longer_response(responses: list[str], credit: float) -> None:
    rows = score_labels(preferences((responses, [0.0, 1.0])), [[0.0, 1.0]])
    assert rows["length_credit"].item() == credit


def test_labels_that_tie_everything_are_left_out_and_counted() -> None:
    figures = figures_of(preferences((PAIR, [1, 0]), (PAIR, [0.5, 0.5])), [[1.0, 0.0], [0.0, 1.0]])
    assert (figures.labels, figures.tied, figures.comparisons) == (1, 1, 1)
    assert figures.accuracy is not None
    assert figures.accuracy.value == 1.0
    only_ties = figures_of(preferences((PAIR, [0.5, 0.5])), [[0.0, 1.0]])
    assert (only_ties.accuracy, only_ties.chance, only_ties.labels, only_ties.tied) == (None, None, 0, 1)


def test_figures_of_several_labels() -> None:
    figures = figures_of(preferences((PAIR, [1, 0]), (PAIR, [0, 1]), (THREE, [0, 0, 1])), [[1, 0], [1, 0], [0, 0, 5]])
    assert figures.accuracy is not None
    assert figures.length_baseline is not None
    assert (figures.accuracy.value, figures.length_baseline.value) == pytest.approx((2 / 3, 2 / 3))
    assert figures.chance == pytest.approx((0.5 + 0.5 + 1 / 3) / 3)
    assert figures.chance_log_likelihood == pytest.approx(-(2 * math.log(2) + math.log(3)) / 3)
    assert figures.as_dict()["accuracy"]["n"] == 3


def test_labels_of_one_comparison_count_as_one_observation() -> None:
    frame = preferences(*[(PAIR, [1, 0])] * 6, comparison_id=["a", "a", "a", "b", "b", "b"])
    figures = figures_of(frame, [[1, 0]] * 3 + [[0, 1]] * 3)
    assert figures.accuracy is not None
    assert (figures.labels, figures.comparisons, figures.accuracy.n) == (6, 2, 2)
    assert (figures.accuracy.low, figures.accuracy.high) == pytest.approx((wilson(1, 2).low, wilson(1, 2).high))


def test_groups_keep_their_rows_whatever_the_index() -> None:
    frame = preferences((PAIR, [1, 0]), (PAIR, [1, 0]), (PAIR, [0, 1]), split=["train", "validation", "train"])
    frame.index = pd.Index([7, 7, 3])
    groups = summarise_by(score_labels(frame, [[1, 0], [0, 1], [0, 1]]), "split")
    values = {split: figures.accuracy.value for split, figures in groups.items() if figures.accuracy}
    assert values == {"train": 1.0, "validation": 0.0}


def test_a_model_without_information_is_at_chance() -> None:
    rng = np.random.default_rng(0)
    frame = preferences(*[(THREE, rng.permutation([1.0, 0.0, 0.0]).tolist()) for _ in range(2000)])
    figures = figures_of(frame, list(rng.normal(size=(2000, 3))))
    assert figures.accuracy is not None
    assert figures.accuracy.low < 1 / 3 < figures.accuracy.high
    assert figures.log_likelihood is not None
    assert figures.log_likelihood < -math.log(3)


def test_true_scores_are_calibrated_and_scaled_ones_are_not() -> None:
    rng = np.random.default_rng(2)
    scores = rng.normal(size=(4000, 2))
    first = rng.random(4000) < 1 / (1 + np.exp(scores[:, 1] - scores[:, 0]))
    frame = preferences(*[(PAIR, [float(won), float(not won)]) for won in first])
    honest, boastful = figures_of(frame, list(scores)), figures_of(frame, list(5 * scores))
    assert honest.calibration_error is not None
    assert honest.calibration_error < 0.03
    assert boastful.calibration_error is not None
    assert boastful.calibration_error > 0.15
    assert honest.accuracy == boastful.accuracy


def test_groups_in_json_form_leave_training_labels_out_of_all_but_the_splits() -> None:
    frame = preferences(
        *[(PAIR, [1, 0])] * 3,
        split=["train", "validation", "held_out_annotators"],
        annotator=["a", "a", "b"],
        round=["round-0001", "round-0001", "round-0002"],
    )
    figures = reward_accuracy(frame, [[0, 1], [1, 0], [1, 0]])
    assert {split: group["accuracy"]["value"] for split, group in figures["splits"].items()} == {
        "train": 0.0,
        "validation": 1.0,
        "held_out_annotators": 1.0,
    }
    assert {name: group["labels"] for name, group in figures["annotators"].items()} == {"a": 1, "b": 1}
    assert figures["rounds"]["round-0001"]["accuracy"]["value"] == 1.0
    assert list(figures["kinds"]) == ["best_of_k"]
    assert {split: [one["labels"] for one in curve] for split, curve in figures["calibration"].items()} == {
        "train": [1],
        "validation": [1],
        "held_out_annotators": [1],
    }
    json.dumps(figures, allow_nan=False)


def test_labels_are_grouped_by_strength_and_by_length() -> None:
    words = ["a", "a b", "a b c d e f g h i", "a b c d e f g h i j"]
    rows = [([words[i], words[j]], target) for i, j in ((0, 1), (2, 3)) for target in ([1, 0], [0, 1])]
    rows += [(["a b", "c d"], [1, 0]), (["a b", "c d"], [0.5, 0.5])]
    frame = preferences(*rows).assign(strength=[0.5, 1.0, None, 1.0, 0.5, None])
    figures = reward_accuracy(frame, [[1.0, 0.0]] * 6)
    assert {name: group["labels"] for name, group in figures["strengths"].items()} == {"0.5": 2, "1": 2, "not asked": 1}
    assert figures["strengths"]["0.5"]["accuracy"]["value"] == 1.0
    assert figures["strengths"]["1"]["accuracy"]["value"] == 0.0
    # 1 word against 2 is much shorter (a gap of 1 where the mean is 1.5), 9 against 10 is not.
    accuracy = {name: group["accuracy"]["value"] for name, group in figures["length_differences"].items()}
    assert accuracy == {
        "preferred is much shorter": 1.0,
        "preferred is shorter": 1.0,
        "same length": 1.0,
        "preferred is longer": 0.0,
        "preferred is much longer": 0.0,
    }
    assert list(accuracy) == list(LENGTH_DIFFERENCES)
    baseline = figures["length_differences"]["preferred is shorter"]["length_baseline"]
    assert baseline["value"] == 0.0


def test_probabilities_are_those_of_scaled_scores() -> None:
    frame = preferences((PAIR, [1, 0]), (PAIR, [0, 1]))
    scaled, plain = (reward_accuracy(frame, scores, scale)["splits"]["validation"] for scores, scale in SCALED)
    assert scaled == plain


def test_tables_without_strength_are_measured_too() -> None:
    figures = reward_accuracy(preferences((PAIR, [1, 0])), [[1.0, 0.0]])
    assert list(figures["strengths"]) == ["not asked"]


def test_no_labels() -> None:
    assert summarise(score_labels(preferences(), [])).labels == 0


def test_bad_scores() -> None:
    frame = preferences((PAIR, [1, 0]))
    with pytest.raises(UserError, match="label_id-0 is not a finite number"):
        score_labels(frame, [[math.nan, 0.0]])
    with pytest.raises(ValueError, match="2 responses, 2 targets, 3 scores"):
        score_labels(frame, [[1, 2, 3]])
    with pytest.raises(ValueError, match="do not match"):
        score_labels(frame, [])
