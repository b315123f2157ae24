import hashlib
import json
import math
import statistics
from itertools import combinations, permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlhf_dagster.errors import UserError
from rlhf_dagster.records.kinds import problem_with
from rlhf_dagster.records.outcome import ranks_from_ratings
from rlhf_dagster.tasks.sentiment import TASK
from rlhf_dagster.tasks.sentiment.annotators import Annotator, make_annotators

PROMPT = "we watched this new film on monday ."
GREAT, FINE, BAD, AWFUL = (f"the plot was {word} ." for word in ("great", "good", "bad", "awful"))
EXACT = Annotator("exact", seed=0, noise=0.0, tie_threshold=0.2)
ANNOTATORS = make_annotators(0)
BY_NAME = {annotator.name: annotator for annotator in ANNOTATORS}
PECULIAR = {"ann-04", "ann-07", "ann-09", "ann-11"}
GOOD = [annotator for annotator in ANNOTATORS if annotator.name not in PECULIAR]


def _comparisons(n: int) -> list[list[str]]:
    """Sets of four responses; the prompts differ, which the judgments below do not depend on."""
    responses = [" ".join(response.split()[:24]) for _, response in TASK.demonstrations(4 * n, 1, "train")]
    return [responses[4 * index : 4 * index + 4] for index in range(n)]


COMPARISONS = _comparisons(200)


def chosen(annotator: Annotator, kind: str) -> list[int | None]:
    """The position of the single best response in each comparison; None where there is none."""
    k = 2 if kind == "pair" else 4
    ranks = [annotator.judge("", texts[:k], kind, str(key)).ranks for key, texts in enumerate(COMPARISONS)]
    return [rank.index(1) if rank and rank.count(1) == 1 else None for rank in ranks]


def agreement(one: list[int | None], other: list[int | None]) -> float:
    return statistics.mean(a == b for a, b in zip(one, other, strict=True) if None not in (a, b))


def first_share(annotator: Annotator) -> float:
    return statistics.mean(best == 0 for best in chosen(annotator, "pair") if best is not None)


def test_without_noise_the_better_text_wins():
    assert EXACT.judge(PROMPT, [FINE, GREAT], "pair", "c").ranks == [2, 1]
    assert EXACT.judge(PROMPT, [GREAT, FINE], "pair", "c").ranks == [1, 2]
    assert EXACT.judge(PROMPT, [AWFUL, BAD, GREAT, FINE], "best_of_k", "c").ranks == [2, 2, 1, 2]


def test_equal_texts_tie():
    assert EXACT.judge(PROMPT, [GREAT, GREAT], "pair", "c").ranks == [1, 1]
    assert EXACT.judge(PROMPT, [GREAT, BAD, GREAT], "best_of_k", "c").ranks == [1, 2, 1]
    assert EXACT.judge(PROMPT, [GREAT] * 4, "best_of_k", "c").ranks is None


@pytest.mark.parametrize("threshold", [0.1, 3.0])
def test_the_threshold_decides_what_ties(threshold):
    # 4 ln(1 + 2/4) - 4 ln(1 + 1/4) = 0.73
    ranks = Annotator("a", 0, noise=0.0, tie_threshold=threshold).judge(PROMPT, [GREAT, FINE], "pair", "c").ranks
    assert ranks == ([1, 2] if threshold < 0.73 else [1, 1])


@given(st.integers(0, 10_000), st.sampled_from(GOOD))
def test_an_unbiased_judgment_does_not_depend_on_the_order_shown(key, annotator):
    texts = [GREAT, FINE, BAD, AWFUL]
    by_text = set()
    for shown in list(permutations(texts))[:6]:
        ranks = annotator.judge(PROMPT, shown, "best_of_k", str(key)).ranks
        by_text.add(tuple(dict(zip(shown, ranks, strict=True))[text] for text in texts) if ranks else None)
    assert len(by_text) == 1


@given(st.sampled_from(ANNOTATORS), st.sampled_from(["pair", "best_of_k"]), st.integers(0, 10_000))
def test_ranks_and_seconds_are_well_formed(annotator, kind, key):
    responses = [GREAT, FINE] if kind == "pair" else [GREAT, FINE, BAD, FINE]
    judgment = annotator.judge(PROMPT, responses, kind, str(key))
    assert judgment == annotator.judge(PROMPT, responses, kind, str(key))
    assert judgment.seconds > 0
    if judgment.ranks is None:
        assert kind == "best_of_k"
    else:
        assert len(judgment.ranks) == len(responses)
        assert 1 in judgment.ranks
        assert set(judgment.ranks) <= {1, 2}


def test_noise_follows_bradley_terry():
    annotator = Annotator("a", 0, noise=1.0, tie_threshold=0.0)
    wins = [annotator.judge(PROMPT, [GREAT, FINE], "pair", str(key)).ranks == [1, 2] for key in range(2000)]
    difference = 4 * math.log(1.5) - 4 * math.log(1.25)
    # Three standard errors of a share from 2000 draws.
    assert statistics.mean(wins) == pytest.approx(1 / (1 + math.exp(-difference)), abs=0.033)


def test_there_are_a_dozen_with_names_and_a_seed():
    assert [annotator.name for annotator in ANNOTATORS] == [f"ann-{number:02d}" for number in range(1, 13)]
    assert make_annotators(0) == ANNOTATORS
    assert make_annotators(1)[0].favourites != ANNOTATORS[0].favourites
    assert chosen(make_annotators(1)[0], "best_of_k") != chosen(ANNOTATORS[0], "best_of_k")


@pytest.mark.parametrize(("kind", "low", "high"), [("pair", 0.72, 0.83), ("best_of_k", 0.53, 0.67)])
def test_good_annotators_agree_as_people_do(kind, low, high):
    choices = [chosen(annotator, kind) for annotator in GOOD]
    assert low < statistics.mean(agreement(one, other) for one, other in combinations(choices, 2)) < high


def test_one_prefers_the_first_position_and_the_others_do_not():
    shares = {annotator.name: first_share(annotator) for annotator in ANNOTATORS}
    assert shares["ann-04"] > 0.6
    assert statistics.mean(shares[annotator.name] for annotator in GOOD) == pytest.approx(0.5, abs=0.06)


def test_one_is_careless_and_fast():
    good = [chosen(annotator, "best_of_k") for annotator in GOOD]
    careless = chosen(BY_NAME["ann-07"], "best_of_k")
    among_good = statistics.mean(agreement(one, other) for one, other in combinations(good, 2))
    assert statistics.mean(agreement(careless, other) for other in good) < among_good - 0.05


def test_one_ties_often():
    undecided = {annotator.name: chosen(annotator, "pair").count(None) for annotator in ANNOTATORS}
    assert undecided.pop("ann-11") > 2 * max(undecided.values())


def test_one_is_slow_and_one_is_fast():
    seconds = {
        annotator.name: statistics.median(
            annotator.judge("", texts, "best_of_k", str(key)).seconds for key, texts in enumerate(COMPARISONS[:100])
        )
        for annotator in ANNOTATORS
    }
    assert max(seconds, key=seconds.__getitem__) == "ann-09"
    assert min(seconds, key=seconds.__getitem__) == "ann-07"


def test_longer_texts_take_longer():
    short = [EXACT.judge(PROMPT, [GREAT, FINE], "pair", str(key)).seconds for key in range(200)]
    long = [EXACT.judge(PROMPT, [GREAT * 10, FINE * 10], "pair", str(key)).seconds for key in range(200)]
    assert statistics.median(long) > 1.5 * statistics.median(short)


@pytest.mark.parametrize(
    ("responses", "kind", "message"),
    [
        ([GREAT], "pair", "has 1 responses; give it exactly 2"),
        ([GREAT, FINE, BAD], "pair", "has 3 responses; give it exactly 2"),
        ([], "best_of_k", "has 0 responses; give it at least 2"),
        ([GREAT], "ranking", "has 1 responses; give it at least 2"),
        ([GREAT, FINE], "demonstration", "`demonstration` is no kind of comparison"),
    ],
)
def test_a_comparison_that_cannot_be_judged_is_refused(responses, kind, message):
    with pytest.raises(UserError, match=message):
        EXACT.judge(PROMPT, responses, kind, "c")


def test_judgments_of_pairs_and_best_of_four_stay_what_they_were():
    """The figures of a loop with simulated annotators rest on them."""
    judgments = [
        (kind, annotator.name, key, judgment.ranks, judgment.seconds)
        for kind, k in (("pair", 2), ("best_of_k", 4))
        for annotator in ANNOTATORS
        for key, texts in enumerate(COMPARISONS)
        for judgment in [annotator.judge("", texts[:k], kind, str(key))]
    ]
    digest = hashlib.sha256(json.dumps(judgments).encode()).hexdigest()
    assert digest == "9390a8ce9601d9ace900e3364123cfb85f565a1a0942a66d56d8ea489bf5fb75"


def test_a_ranking_orders_all_and_ties_what_is_close():
    assert EXACT.judge(PROMPT, [AWFUL, GREAT, GREAT, FINE], "ranking", "c").ranks == [3, 1, 1, 2]
    assert EXACT.judge(PROMPT, [GREAT] * 3, "ranking", "c").ranks == [1, 1, 1]
    # Within 0.8 of the best are two; ties do not chain, so the others start a rank of their own.
    tolerant = Annotator("a", 0, noise=0.0, tie_threshold=0.8)
    assert tolerant.judge(PROMPT, [GREAT, FINE, BAD, AWFUL], "ranking", "c").ranks[:3] == [1, 1, 2]


@given(st.sampled_from(ANNOTATORS), st.sampled_from(["ranking", "rating"]), st.integers(0, 10_000))
def test_rankings_and_ratings_are_outcomes(annotator, kind, key):
    judgment = annotator.judge(PROMPT, [GREAT, FINE, BAD, FINE], kind, str(key))
    assert judgment == annotator.judge(PROMPT, [GREAT, FINE, BAD, FINE], kind, str(key))
    assert problem_with(judgment.ranks, kind) == ""
    assert judgment.strength is None
    if kind == "rating":
        assert judgment.ranks == ranks_from_ratings(judgment.ratings["overall"])
        assert set(judgment.ratings["overall"]) <= set(range(1, 8))


def test_ratings_rise_with_the_utility():
    texts = [AWFUL, BAD, FINE, GREAT]
    utilities = [EXACT.utility(PROMPT, text, "c") for text in texts]
    assert utilities == sorted(utilities)
    ratings = EXACT.judge(PROMPT, texts, "rating", "c").ratings["overall"]
    assert ratings == sorted(ratings)
    assert len(set(ratings)) > 1


def test_an_unbiased_ranking_and_the_best_of_four_name_the_same_best():
    for annotator in GOOD:
        for key, texts in enumerate(COMPARISONS[:50]):
            top = annotator.judge("", texts, "best_of_k", str(key)).ranks
            ranking = annotator.judge("", texts, "ranking", str(key)).ranks
            assert top is None or [rank == 1 for rank in ranking] == [rank == 1 for rank in top]


def test_strength_says_how_far_apart_a_pair_is():
    assert EXACT.judge(PROMPT, [AWFUL, GREAT], "pair", "c").strength == 1.0
    assert EXACT.judge(PROMPT, [FINE, GREAT], "pair", "c").strength == 0.5
    assert EXACT.judge(PROMPT, [GREAT, GREAT], "pair", "c").strength is None
    assert EXACT.judge(PROMPT, [GREAT, FINE, BAD], "best_of_k", "c").strength is None
    careless = Annotator("careless", 0, careless=1.0)
    assert {careless.judge(PROMPT, [GREAT, BAD], "pair", str(key)).strength for key in range(30)} == {0.5, 1.0}
