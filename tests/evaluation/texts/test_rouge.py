"""ROUGE is the package's on English text, and sees other languages."""

import pytest
from rouge_score.rouge_scorer import RougeScorer

from rlhf_dagster.evaluation.texts.rouge import ROUGE_KINDS, rouge, rouge_scores

REFERENCE = "Anna's dogs were running in the parks, on Monday 3.5 km!"
TEXTS = ["anna ran a dog in the park on monday", "The parks; running dogs 3 5", "nothing", ""]


@pytest.mark.parametrize("text", TEXTS)
def test_english_is_as_the_package_scores_it(text: str) -> None:
    expected = RougeScorer(list(ROUGE_KINDS), use_stemmer=True).score(REFERENCE, text)
    found = rouge([[REFERENCE]], [text])
    assert {kind: rate.value for kind, rate in found.items()} == {kind: expected[kind].fmeasure for kind in ROUGE_KINDS}


def test_worked_by_hand() -> None:
    # Precision 2/3, recall 2/4 of words; one pair of two, of three; subsequence "a b".
    found = rouge([["a b c d"]], ["a b x"])
    assert found["rouge1"].value == pytest.approx(2 * (2 / 3) * (2 / 4) / (2 / 3 + 2 / 4))
    assert found["rouge2"].value == pytest.approx(2 * (1 / 2) * (1 / 3) / (1 / 2 + 1 / 3))
    assert found["rougeL"].value == found["rouge1"].value


@pytest.mark.parametrize(
    ("reference", "text"), [("天气很好", "天气不好"), ("सेब लाल है", "सेब हरा है"), ("über alles", "über")]
)
def test_other_languages_overlap(reference: str, text: str) -> None:
    assert 0 < rouge([[reference]], [text])["rouge1"].value < 1
    assert rouge([[reference]], [reference])["rouge2"].value == 1.0


def test_the_closest_reference_counts_and_prompts_without_one_are_left_out() -> None:
    found = rouge([["a b", "c d"], [], ["e f"]], ["c d", "a b", "x"])
    assert (found["rouge1"].value, found["rouge1"].n) == (0.5, 2)
    assert rouge([[], []], ["a", "b"]) == {}


def test_scores_of_each_response_stand_in_their_order() -> None:
    found = rouge_scores([["a b", "c d"], [], ["e f"]], ["c d", "a b", "e x"])
    assert [one.get("rouge1") for one in found] == [1.0, None, 0.5]
    assert rouge_scores([], []) == []
