"""KL and diversity against numbers worked by hand."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlhf_dagster.evaluation.metrics import (
    copied_ngrams,
    distinct_n,
    distinct_responses,
    mean_sequence_kl,
    repetition,
    shared_ngrams,
)

TEXTS = st.lists(st.text(alphabet="ab \n", max_size=12), min_size=1, max_size=6)


def test_sequence_kl_is_the_mean_of_sums() -> None:
    # Sums of differences: (0.5 + 1.0) = 1.5 and 0.5, mean 1.0, deviation 0.7071; t(0.975, 1) = 12.706.
    kl = mean_sequence_kl([[-1.0, -1.0], np.array([-2.0])], [[-1.5, -2.0], np.array([-2.5])])
    assert (kl.value, kl.low, kl.high, kl.n) == pytest.approx((1.0, 1 - 6.353, 1 + 6.353, 2), abs=1e-3)


def test_sequence_kl_of_a_policy_with_itself_is_zero() -> None:
    log_probs = [[-0.3, -2.0], [-1.0], []]
    kl = mean_sequence_kl(log_probs, log_probs)
    assert (kl.value, kl.low, kl.high) == (0, 0, 0)


def test_sequence_kl_estimates_the_exact_kl() -> None:
    # Two tokens drawn from p, q: KL = 2 * sum p log p/q = 2 * 0.2231 for p = (0.8, 0.2), q = (0.5, 0.5) -> 0.3854.
    p, q = np.log([0.8, 0.2]), np.log([0.5, 0.5])
    tokens = (np.random.default_rng(1).random((4000, 2)) > 0.8).astype(int)
    kl = mean_sequence_kl(list(p[tokens]), list(q[tokens]))
    exact = 2 * float(np.exp(p) @ (p - q))
    assert kl.low < exact < kl.high
    assert kl.high - kl.low < 0.1


@pytest.mark.parametrize("reference", [[[-1.0]], [[-1.0, -1.0], []]])
def test_sequence_kl_refuses_other_tokens(reference: list[list[float]]) -> None:
    with pytest.raises(ValueError, match="do not match"):
        mean_sequence_kl([[-1.0, -1.0], [-2.0]], reference)


def test_distinct_responses() -> None:
    assert distinct_responses(["a b", "a b", "a  b", "c"]) == 0.75


def test_distinct_n_counts_over_all_responses() -> None:
    # Words a b a b a c: 3 of 6 differ; pairs (a b) (b a) | (b a) (a c): 3 of 4 differ.
    assert distinct_n(["A b a", "b a c"], 1) == 0.5
    assert distinct_n(["a b a", "b a c"], 2) == 0.75
    assert distinct_n(["a", ""], 2) == 0.0


def test_repetition_is_inside_a_response() -> None:
    # "a b a b": pairs ab ba ab, one of three repeats; "a b" repeats nothing although the other response holds it.
    assert repetition(["a b a b", "a b"]) == pytest.approx(1 / 6)
    assert repetition(["great great great great"]) == pytest.approx(2 / 3)
    assert repetition(["great", ""]) == 0.0


def test_shared_ngrams_is_between_responses() -> None:
    # abc is in both; bcd only in the first, xyz only in the third, and the short one has none.
    assert shared_ngrams(["a b c d", "A b c", "x y z", "x"]) == pytest.approx((0.5 + 1 + 0 + 0) / 4)
    assert shared_ngrams(["a b c a b c"]) == 0.0


def test_copied_ngrams_stand_in_the_prompt() -> None:
    # abc and bcd stand in the prompt, cdx does not; "a b" is too short to copy; x y z is another prompt's.
    prompts, texts = ["so a b c d", "a b c", "a b c"], ["A b c d x", "a b", "x y z"]
    assert copied_ngrams(prompts, texts) == pytest.approx(2 / 3 / 3)
    assert copied_ngrams(prompts, texts, 1) == pytest.approx((4 / 5 + 1 + 0) / 3)
    # A copied piece counts as often as it is said.
    assert copied_ngrams(["a b c"], ["a b c a b c"]) == pytest.approx(2 / 4)


def test_copied_ngrams_need_a_prompt_for_each_response() -> None:
    with pytest.raises(ValueError, match="zip"):
        copied_ngrams(["a"], ["a", "b"])
    with pytest.raises(ValueError, match="no responses"):
        copied_ngrams([], [])


@given(TEXTS)
def test_a_response_that_is_its_prompt_is_all_copied(texts: list[str]) -> None:
    assert copied_ngrams(texts, texts, 1) == pytest.approx(np.mean([bool(text.split()) for text in texts]))
    assert copied_ngrams([""] * len(texts), texts) == 0.0


@given(TEXTS)
def test_diversity_stays_within_0_and_1_and_ignores_the_order(texts: list[str]) -> None:
    for metric in (distinct_responses, repetition, shared_ngrams, lambda given: distinct_n(given, 2)):
        assert 0 <= metric(texts) <= 1
        assert metric(texts[::-1]) == pytest.approx(metric(texts))


@given(TEXTS)
def test_answering_everything_twice_lowers_diversity(texts: list[str]) -> None:
    assert distinct_responses(texts * 2) == distinct_responses(texts) / 2
    assert shared_ngrams(texts * 2, 1) == pytest.approx(np.mean([bool(text.split()) for text in texts]))


@pytest.mark.parametrize("metric", [distinct_responses, repetition, shared_ngrams])
def test_no_responses(metric) -> None:
    with pytest.raises(ValueError, match="no responses"):
        metric([])
