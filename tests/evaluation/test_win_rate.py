"""Win rates by scalar judges and by judgments of pairs."""

import math

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlhf_dagster.common.intervals import wilson
from rlhf_dagster.errors import UserError
from rlhf_dagster.evaluation.length_control import length_controlled
from rlhf_dagster.evaluation.win_rate import (
    ANNOTATORS,
    GOLD_JUDGE,
    WinRate,
    find_win_rate,
    win_rate,
    win_rate_from_labels,
    win_rate_from_ranks,
)

SCORES = st.lists(st.tuples(*[st.integers(-3, 3)] * 2), min_size=1, max_size=30)


def test_ties_count_half() -> None:
    rate = win_rate([1.0, 2.0, 3.0, 0.0], [0.0, 2.0, 1.0, 5.0], judge=GOLD_JUDGE, against="sft")
    expected = wilson(2.5, 4)
    assert (rate.wins, rate.ties, rate.losses, rate.n, rate.value) == (2, 1, 1, 4, 0.625)
    assert (rate.low, rate.high) == pytest.approx((expected.low, expected.high))


@given(SCORES)
def test_win_rates_of_both_sides_add_up(scores: list[tuple[int, int]]) -> None:
    a, b = zip(*scores, strict=True)
    one, other = (win_rate(x, y, judge=GOLD_JUDGE, against="sft") for x, y in ((a, b), (b, a)))
    assert one.value + other.value == pytest.approx(1)
    assert (one.wins, one.ties, one.losses) == (other.losses, other.ties, other.wins)
    assert one.low == pytest.approx(1 - other.high)
    assert 0 <= one.low <= one.value <= one.high <= 1


@pytest.mark.parametrize("scores", [([1.0, math.nan], [0.0, 0.0]), ([0.0, 0.0], [1.0, math.inf])])
def test_a_score_that_is_no_number_is_an_error_and_not_a_loss(scores: tuple[list[float], list[float]]) -> None:
    with pytest.raises(UserError, match=r"gold judge gave a score that is not a finite number"):
        win_rate(*scores, judge=GOLD_JUDGE, against="sft")


def test_scores_must_be_of_the_same_prompts() -> None:
    with pytest.raises(ValueError, match="cannot be compared"):
        win_rate([1.0], [0.0, 0.0], judge=GOLD_JUDGE, against="sft")


def test_lower_ranks_win() -> None:
    rate = win_rate_from_ranks([[1, 2], [1, 2], [2, 1], [1, 1], None], ANNOTATORS, "sft")
    assert (rate.wins, rate.ties, rate.losses, rate.n, rate.undecided, rate.value) == (2, 1, 1, 4, 1, 0.625)
    assert rate.low == pytest.approx(wilson(2.5, 4).low)


COMPARISONS = pd.DataFrame(
    [
        ("c1", "evaluation", ["new", "sft"], ["a long one", "short"]),
        ("c2", "evaluation", ["sft", "new"], ["abc", "a"]),
        ("c3", "evaluation", ["old", "new"], ["a", "b"]),
        ("c4", "train", ["new", "sft"], ["a", "b"]),
    ],
    columns=["comparison_id", "purpose", "policy_ids", "responses"],
)


def labels(*rows: tuple[str, list[int] | None]) -> pd.DataFrame:
    """One by each of as many people."""
    frame = pd.DataFrame(rows, columns=["comparison_id", "ranks"])
    names = [f"person {number}" for number in range(len(frame))]
    time = pd.Timestamp("2026-01-01", tz="UTC")
    return frame.assign(latest=True, status="submitted", annotator=names, label_id=names, updated_at=time)


def ranked(frame: pd.DataFrame, against: str = "sft") -> WinRate:
    return win_rate_from_labels(frame, COMPARISONS, "new", against, judge=ANNOTATORS, against="sft")


def test_ranks_follow_the_policies_and_not_the_places() -> None:
    rate = ranked(labels(("c1", [1, 2]), ("c2", [2, 1]), ("c2", [1, 1]), ("c1", [2, 1])))
    assert (rate.wins, rate.ties, rate.losses, rate.n, rate.value) == (2, 1, 1, 4, 0.625)


def test_lengths_follow_the_policies_and_undecided_judgments_have_none() -> None:
    rate = ranked(labels(("c1", [1, 2]), ("c2", None), ("c2", [1, 1]), ("c1", [2, 1])))
    assert rate.length_controlled == length_controlled([1.0, 0.5, 0.0], [5, -2, 5], ["c1", "c2", "c1"])
    assert rate.as_dict()["length_controlled"] == rate.length_controlled.as_dict()
    assert "length_controlled" not in win_rate([1.0], [0.0], GOLD_JUDGE, "sft").as_dict()


def test_undecided_judgments_are_counted_apart() -> None:
    rate = ranked(labels(("c1", [1, 2]), ("c1", None), ("c2", None)))
    assert (rate.value, rate.n, rate.undecided) == (1.0, 1, 2)


def test_the_last_of_two_annotations_by_one_person_counts() -> None:
    frame = labels(("c1", [1, 2]), ("c1", [2, 1]), ("c1", [1, 2]))
    frame.loc[:1, "annotator"] = "the same"
    frame.loc[0, "updated_at"] = pd.Timestamp("2026-01-02", tz="UTC")
    assert (ranked(frame).wins, ranked(frame).losses) == (2, 0)
    frame.loc[0, "ranks"] = None
    assert (ranked(frame).wins, ranked(frame).losses, ranked(frame).undecided) == (1, 0, 1)


def test_other_pairs_training_labels_and_old_versions_do_not_count() -> None:
    frame = labels(("c1", [1, 2]), ("c3", [1, 2]), ("c4", [2, 1]), ("c2", [1, 2]), ("c2", [1, 2]))
    frame.loc[3, "latest"] = False
    frame.loc[4, "status"] = "deleted"
    assert (ranked(frame).n, ranked(frame).value) == (1, 1.0)
    assert (ranked(frame, "old").losses, ranked(frame, "old").n) == (1, 1)


def test_repeated_judgments_of_a_pair_do_not_narrow_the_interval_like_new_pairs() -> None:
    rate = ranked(labels(*[("c1", [1, 2])] * 50, *[("c2", [2, 1])] * 50))
    assert rate.n == 100
    assert rate.low == pytest.approx(wilson(2, 2).low)


def test_no_judgment_says_nothing() -> None:
    rate = ranked(labels(("c1", None)))
    assert (rate.n, rate.low, rate.high, rate.undecided) == (0, 0.0, 1.0, 1)
    assert rate.as_dict()["value"] is None


def test_a_policy_is_not_compared_with_itself() -> None:
    with pytest.raises(ValueError, match="itself"):
        ranked(labels(("c1", [1, 2])), "new")


def test_find_win_rate_prefers_earlier_judges() -> None:
    rates = [{"judge": "a", "against": "sft"}, {"judge": "b", "against": "sft"}, {"judge": "b", "against": "behaviour"}]
    assert find_win_rate(rates, ("b", "a"), "sft") is rates[1]
    assert find_win_rate(rates, ("a",), "behaviour") is None
