"""Best-of-n: which response is kept, and how far that is from the policy."""

import math
from collections import Counter
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from toy_language import FIXED

from rlhf_dagster.common.kl import best_of_n_kl
from rlhf_dagster.errors import UserError
from rlhf_dagster.training.models.policies import Policy
from rlhf_dagster.training.sampling.best_of_n import best_of_n
from rlhf_dagster.training.sampling.sample import sample

PROMPTS = ["red dog .", "good", "blue cat bad", "green", "bad bad"]


def good_words(prompts: Sequence[str], responses: Sequence[str]) -> list[int]:
    assert len(prompts) == len(responses)
    return [text.split().count("good") for text in responses]


def test_kl_by_hand() -> None:
    assert best_of_n_kl(1) == 0
    assert best_of_n_kl(2) == pytest.approx(math.log(2) - 0.5)
    assert best_of_n_kl(16) == pytest.approx(1.8351, abs=1e-4)


@given(st.lists(st.floats(0.01, 1), min_size=1, max_size=6), st.integers(1, 8))
def test_it_is_an_upper_bound(weights: list[float], n: int) -> None:
    """Outcomes in the order of their scores: the best of n is at most the i-th with probability F(i)^n."""
    p = np.array(weights) / sum(weights)
    cumulative = np.append(0, p.cumsum())
    q = np.diff(cumulative**n)
    assert float((q * np.log(np.maximum(q, 1e-300) / p)).sum()) <= best_of_n_kl(n) + 1e-9


def test_it_is_exact_where_no_score_comes_twice() -> None:
    p = np.full(20_000, 1 / 20_000)
    q = np.diff(np.append(0, p.cumsum()) ** 4)
    assert float((q * np.log(q / p)).sum()) == pytest.approx(best_of_n_kl(4), abs=1e-3)


def test_the_best_is_kept_and_belongs_to_its_prompt(policy: Policy) -> None:
    n, asked = 6, Counter()

    def score(prompts: Sequence[str], responses: Sequence[str]) -> list[int]:
        asked.update(prompts)
        return good_words(prompts, responses)

    kept = best_of_n(policy, PROMPTS, score, n, FIXED, seed=4)
    assert asked == Counter(dict.fromkeys(PROMPTS, n))
    for index, best in enumerate(kept):
        # Batches of 16 hold two prompts.
        own = sample(policy, PROMPTS[index // 2 * 2 : index // 2 * 2 + 2], FIXED, 4 + index // 2 * 2, n)
        scores = good_words([""] * n, [drawn.text for drawn in own[index % 2 * n : (index % 2 + 1) * n]])
        assert (best.score, best.mean_score) == (max(scores), pytest.approx(sum(scores) / n))
        assert best.sample == own[index % 2 * n + scores.index(max(scores))]


def test_of_one_it_is_the_policy(policy: Policy) -> None:
    kept = best_of_n(policy, PROMPTS, good_words, 1, FIXED, seed=4)
    assert [best.sample for best in kept] == sample(policy, PROMPTS, FIXED, 4)


@pytest.mark.parametrize("scores", [lambda n: [math.nan] * n, lambda n: [0.0] * (n - 1)])
def test_a_score_that_is_none_is_a_user_error(policy: Policy, scores) -> None:
    with pytest.raises(UserError, match="a finite score for each of 6 responses"):
        best_of_n(policy, PROMPTS[:1], lambda prompts, responses: scores(len(responses)), 6, FIXED, seed=0)
