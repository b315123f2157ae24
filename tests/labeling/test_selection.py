from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlhf_dagster.config.labeling import LabelingSettings
from rlhf_dagster.labeling.comparisons import candidates
from rlhf_dagster.labeling.gold import clear_answers, known_answers
from rlhf_dagster.labeling.selection import both_orders, disagreement, repeated, score_gap, select, spread
from rlhf_dagster.records.outcome import best

ROUND = "round-0001"


def rows(n: int) -> list[dict]:
    return [
        {
            "comparison_id": f"c{index:03}",
            "completion_ids": [f"{index}a", f"{index}b"],
            "responses": ["a", "b"],
            "kind": "pair",
            "round": ROUND,
            "role": "label",
            "repeat_of": "",
            "display_order": [1, 0],
            "labels_wanted": 3,
        }
        for index in range(n)
    ]


def ids(chosen) -> list[str]:
    return [row["comparison_id"] for row in chosen]


def test_without_a_reward_model_the_first_are_taken() -> None:
    assert ids(select(rows(5), 3, None, 0.5, seed=0)) == ["c000", "c001", "c002"]


def test_the_closest_come_first_and_the_random_share_is_spread() -> None:
    gaps = {f"c{index:03}": 10.0 - index for index in range(10)}
    assert ids(select(rows(10), 4, gaps, 0.0, seed=0)) == ["c009", "c008", "c007", "c006"]
    mixed = ids(select(rows(10), 4, gaps, 0.5, seed=0))
    assert set(mixed) == {"c000", "c001", "c009", "c008"}
    assert mixed.index("c009") < mixed.index("c008")


@given(st.integers(0, 40), st.integers(0, 20), st.integers(0, 5))
def test_spreading_keeps_the_order_and_loses_nothing(n, extra, seed) -> None:
    main, more = rows(n), [row | {"comparison_id": f"x{index}"} for index, row in enumerate(rows(extra))]
    mixed = ids(spread(main, more, seed))
    assert [name for name in mixed if name.startswith("c")] == ids(main)
    assert sorted(mixed) == sorted(ids(main) + ids(more))


def test_extras_are_everywhere_in_the_batch() -> None:
    more = [row | {"comparison_id": f"x{index}"} for index, row in enumerate(rows(10))]
    mixed = ids(spread(rows(100), more, seed=1))
    places = [index for index, name in enumerate(mixed) if name.startswith("x")]
    assert all(after - before <= 23 for before, after in pairwise(places))
    assert places[0] < 12
    assert places[-1] > 95


@given(st.integers(1, 60), st.integers(0, 30), st.integers(0, 3))
def test_a_repeat_is_shown_after_its_first_showing_in_the_other_order(n, count, seed) -> None:
    main = rows(n)
    again = repeated(main, count, seed)
    mixed = ids(spread(main, again, seed))
    assert len(set(ids(again)) | set(ids(main))) == n + len(again)
    for row in again:
        assert (row["role"], row["labels_wanted"], row["display_order"]) == ("repeat", 1, [0, 1])
        assert mixed.index(row["comparison_id"]) > mixed.index(row["repeat_of"])


@given(st.integers(0, 30))
def test_both_orders_ask_everything_twice_far_apart(n) -> None:
    mixed = both_orders(rows(n))
    assert len(set(ids(mixed))) == 2 * n
    place = {row["comparison_id"]: index for index, row in enumerate(mixed)}
    others = [row for row in mixed if row["repeat_of"]]
    assert len(others) == n
    for row in others:
        assert (row["role"], row["display_order"], row["labels_wanted"]) == ("label", [0, 1], 3)
        assert place[row["comparison_id"]] > place[row["repeat_of"]]


def test_the_gap_is_between_the_two_best() -> None:
    assert score_gap([1.0, 4.0, 3.5, -2.0]) == 0.5


def test_gold_questions_are_the_clearest_and_know_the_answer(completions) -> None:
    given_rows = candidates(completions(30, 3), LabelingSettings(responses_per_prompt=3), ROUND, seed=0)
    scores = {row["comparison_id"]: [float(index), 0.0, 0.0] for index, row in enumerate(given_rows)}
    questions = clear_answers(given_rows, scores, 4, seed=0)
    assert len(questions) == 4
    assert {row["role"] for row in questions} == {"gold"}
    assert all(best(row["gold_ranks"]) == [0] for row in questions)
    assert not {row["comparison_id"] for row in questions} & {row["comparison_id"] for row in given_rows}
    drawn = sorted(scores.values(), reverse=True)
    assert all(scores_of[0] > drawn[15][0] for scores_of in (scores[_original(q, given_rows)] for q in questions))


def _original(question, given_rows) -> str:
    return next(
        row["comparison_id"] for row in given_rows if list(row["completion_ids"]) == list(question["completion_ids"])
    )


def test_imported_gold_questions_keep_their_answer_in_any_order() -> None:
    imported = [{"gold_id": "g", "prompt": "2 + 2?", "responses": ["five", "four", "six"], "best": 1}]
    (question,) = known_answers(imported, 3, "pair", ROUND, seed=0)
    assert question["kind"] == "best_of_k"
    assert question["responses"][best(question["gold_ranks"])[0]] == "four"
    assert question["role"] == "gold"
    assert question["comparison_id"] != known_answers(imported, 1, "pair", "round-0002", seed=0)[0]["comparison_id"]


def test_heads_disagree_where_they_name_another_best() -> None:
    # Both responses by two heads: probabilities (0.5, 0.5) and 2/3, 1/3; the variance of each is (1/12)^2.
    given = np.array([[0.0, np.log(2.0)], [0.0, 0.0]])
    assert disagreement(given) == pytest.approx(2 * (1 / 12) ** 2)
    torn, tied = np.array([[3.0, -3.0], [-3.0, 3.0]]), np.zeros((2, 2))
    assert disagreement(torn) > disagreement(given) > disagreement(tied) == 0.0


def test_what_a_head_adds_to_all_and_how_sure_it_is_do_not_count() -> None:
    one = np.array([[1.0, 5.0], [0.0, 4.0], [-1.0, 3.0]])
    assert disagreement(one) == pytest.approx(0.0)
    sure = np.array([[20.0, 60.0], [0.0, 0.0]])
    assert disagreement(sure) == pytest.approx(0.0, abs=1e-12)
    assert disagreement(one[:, :1]) == 0.0


def test_more_scale_is_more_disagreement_between_opposite_heads() -> None:
    torn = np.array([[0.1, -0.1], [-0.1, 0.1]])
    assert disagreement(torn, scale=2.0) > disagreement(torn)
