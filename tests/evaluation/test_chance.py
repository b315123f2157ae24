"""Whether a reward model is known to be better than guessing."""

import numpy as np
import pandas as pd
import pytest

from rlhf_dagster.common.intervals import wilson
from rlhf_dagster.evaluation.chance import cannot_be_told, not_above_chance
from rlhf_dagster.evaluation.reward_accuracy import perfect_accuracy, reward_accuracy


def pairs(n: int, right: float, longest: float = 0.5) -> tuple[pd.DataFrame, list[list[float]]]:
    """``n`` judgments of pairs kept from training; the share of them that is scored right, and whose best is longer."""
    frame = pd.DataFrame({name: [f"{name}-{i}" for i in range(n)] for name in ("label_id", "comparison_id")})
    frame = frame.assign(split="validation", round="round-0001", kind="pair", annotator="ann-01")
    # Spread differently, so that who is right does not depend on which is longer.
    long = [(i * 7) % n < round(longest * n) for i in range(n)]
    frame["responses"] = [["one two", "one"] if is_long else ["one", "one two"] for is_long in long]
    frame["target"] = [np.array([1.0, 0.0])] * n
    return frame, [[1.0, 0.0] if i < round(right * n) else [0.0, 1.0] for i in range(n)]


def verdict(n: int, right: float, longest: float = 0.5) -> str:
    return not_above_chance(reward_accuracy(*pairs(n, right, longest)))


def test_a_reward_model_that_guesses_is_refused_with_its_figures() -> None:
    low, high = wilson(55, 100).low, wilson(55, 100).high
    assert verdict(100, 0.55) == (
        "It picks what people picked on 55.0% of 100 comparisons that it never saw (95% interval "
        f"{low:.1%} to {high:.1%}); the lower end must be above chance (50.0%), picking the longest response (50.0%) "
        "and picking the shortest response (50.0%)"
    )


def test_the_lower_end_decides_and_not_the_accuracy() -> None:
    assert wilson(12, 20).low < 0.5 < wilson(600, 1000).low
    assert verdict(20, 0.6)
    assert not verdict(1000, 0.6)


@pytest.mark.parametrize("longest", [0.75, 0.25])
def test_a_reward_model_that_is_no_better_than_picking_by_length_is_refused(longest: float) -> None:
    assert not verdict(1000, 0.7)
    assert verdict(1000, 0.7, longest)
    assert not verdict(1000, 0.85, longest)


def test_both_splits_that_are_not_trained_on_count_and_training_labels_do_not() -> None:
    frame, scores = pairs(80, 0.7)
    assert not not_above_chance(reward_accuracy(frame, scores))
    # The labels scored right in the one split, those scored wrong in the other: neither alone tells.
    parted = frame.assign(split=["held_out_annotators" if i % 2 else "validation" for i in range(80)])
    assert not not_above_chance(reward_accuracy(parted, scores))
    only_right_is_trained_on = frame.assign(split=["train" if i < 56 else "validation" for i in range(80)])
    assert not_above_chance(reward_accuracy(only_right_is_trained_on, scores))


def test_without_labels_that_tell_nothing_is_known() -> None:
    frame, scores = pairs(10, 1.0)
    sentence = "No label that names a best response is kept from training, so nothing tells it from chance"
    assert not_above_chance(reward_accuracy(frame.assign(split="train"), scores)) == sentence
    ties = frame.assign(target=[np.array([0.5, 0.5])] * 10)
    assert not_above_chance(reward_accuracy(ties, scores)) == sentence


def test_figures_of_version_0_1_are_not_judged() -> None:
    figures = reward_accuracy(*pairs(10, 0.0))
    assert not_above_chance(figures)
    del figures["unseen"]
    assert not_above_chance(figures) == ""


@pytest.mark.parametrize(("n", "can"), [(3, False), (4, True), (100, True)])
def test_it_is_known_before_training_that_so_few_labels_cannot_tell(n: int, can: bool) -> None:
    """A reward model that is right on 3 of 3 pairs has an interval that begins below one half, on 4 of 4 above it."""
    assert (wilson(n, n).low > 0.5) == can
    frame, _ = pairs(n, 0.0)
    said = cannot_be_told(perfect_accuracy(frame))
    assert (said == "") == can
    if not can:
        assert said.startswith("3 comparisons are kept from training, and picking the ")


def test_where_the_longest_response_always_wins_no_reward_model_can_show_that_it_knows_more() -> None:
    frame, _ = pairs(100, 0.0, longest=1.0)
    said = cannot_be_told(perfect_accuracy(frame))
    assert said == "100 comparisons are kept from training, and picking the longest response is right on 100.0% of them"
    assert cannot_be_told(perfect_accuracy(frame.assign(split="train"))) == (
        "no label that names a best response is kept from training"
    )
