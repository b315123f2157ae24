from collections import Counter

import pandas as pd
import pytest

from rlhf_dagster.config.labeling import LabelingSettings
from rlhf_dagster.errors import UserError
from rlhf_dagster.labeling.comparisons import build_ab_comparisons, build_comparisons
from rlhf_dagster.records.ids import comparison_id
from rlhf_dagster.records.schemas import COMPARISONS

ROUND = "round-0001"


def build(frame: pd.DataFrame, seed: int = 0, **settings) -> pd.DataFrame:
    return build_comparisons(frame, LabelingSettings(**settings), ROUND, seed=seed)


def test_a_comparison_holds_its_completions_in_canonical_order(completions) -> None:
    frame = completions(3, k=4)
    rows = build(frame)
    assert list(rows.columns) == COMPARISONS.names
    assert len(rows) == 3
    texts = dict(zip(frame["completion_id"], frame["text"], strict=True))
    for row in rows.to_dict("records"):
        ids = list(row["completion_ids"])
        assert ids == sorted(ids)
        assert list(row["responses"]) == [texts[identity] for identity in ids]
        assert sorted(row["display_order"]) == [0, 1, 2, 3]
        assert row["comparison_id"] == comparison_id(ids, "best_of_k", ROUND)


def test_completions_are_grouped_in_chunks_and_a_single_one_is_left_over(completions) -> None:
    assert sorted(len(ids) for ids in build(completions(1, k=9))["completion_ids"]) == [4, 4]
    assert sorted(len(ids) for ids in build(completions(1, k=6))["completion_ids"]) == [2, 4]
    assert sorted(len(ids) for ids in build(completions(1, k=5), kind="pair")["completion_ids"]) == [2, 2]


def test_equal_responses_are_not_compared(completions) -> None:
    rows = build(completions({"all equal": ["x", "x ", "x", "x"], "two": ["x", "y", "x", "y"], "one": ["x"]}))
    assert [row["prompt"] for row in rows.to_dict("records")] == ["two"]
    assert sorted(rows["responses"].iloc[0]) == ["x", "y"]


def test_overlap_share_and_limit_are_exact(completions) -> None:
    rows = build(completions(60), overlap=0.15, overlap_labels=3, comparisons_per_round=40)
    assert Counter(rows["labels_wanted"]) == {3: 6, 1: 34}


def test_the_same_seed_gives_the_same_and_input_order_does_not_matter(completions) -> None:
    frame = completions(30)
    shuffled = frame.sample(frac=1, random_state=1)
    pd.testing.assert_frame_equal(build(frame, seed=3), build(shuffled, seed=3))
    other = build(frame, seed=4)
    assert set(other["comparison_id"]) == set(build(frame, seed=3)["comparison_id"])
    assert [list(order) for order in other["display_order"]] != [
        list(order) for order in build(frame, seed=3)["display_order"]
    ]


def test_every_response_is_shown_first_about_equally_often(completions) -> None:
    first = Counter(int(order[0]) for order in build(completions(800))["display_order"])
    # Standard deviation of each count is sqrt(800 * 1/4 * 3/4) = 12.2; the bound is 5 of them.
    assert all(abs(first[index] - 200) < 62 for index in range(4))


def test_a_b_comparisons_share_n_between_the_pairs_and_hide_the_policies(completions) -> None:
    frame = pd.concat([completions(40, k=1, policy=policy) for policy in ("new", "sft", "old")])
    rows = build_ab_comparisons(frame, [("new", "sft"), ("new", "old")], 21, ROUND, seed=0)
    assert Counter(tuple(sorted(pair)) for pair in rows["policy_ids"]) == {("new", "sft"): 11, ("new", "old"): 10}
    assert set(rows["kind"]) == {"pair"}
    assert set(rows["purpose"]) == {"evaluation"}
    shown_first = Counter(row["policy_ids"][row["display_order"][0]] == "new" for row in rows.to_dict("records"))
    assert 3 <= shown_first[True] <= 18


def test_a_b_comparisons_leave_out_equal_responses_and_repeated_pairs(completions) -> None:
    frame = pd.concat([completions({"p": ["same"], "q": [f"by {name}"]}, policy=name) for name in ("a", "b")])
    rows = build_ab_comparisons(frame, [("a", "b"), ("a", "b")], 10, ROUND, seed=0)
    assert list(rows["prompt"]) == ["q"]


def test_a_b_comparisons_need_both_policies(completions) -> None:
    with pytest.raises(UserError, match="no completions of ghost"):
        build_ab_comparisons(completions(2, k=1), [("policy-a", "ghost")], 10, ROUND, seed=0)
