"""Copying against texts worked by hand."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlhf_dagster.evaluation.texts.copying import (
    common_bigrams,
    copied_sentences,
    copied_start,
    copying_figures,
    longest_common_subsequence,
    novel_ngrams,
    sentences_in,
)

SOURCE = "Hi all, a long post. Anna lost the dog of Bob in the park! It was cold."
WORDS = st.lists(st.sampled_from("abc"), max_size=9)


def naive_subsequence(one: list[str], other: list[str]) -> int:
    """The textbook's table (Cormen et al., section 14.4)."""
    row = [0] * (len(other) + 1)
    for gram in one:
        before = row[:]
        for place, held in enumerate(other):
            row[place + 1] = before[place] + 1 if gram == held else max(before[place + 1], row[place])
    return row[-1]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("One two. Three!  Four?\nfive", [["one", "two"], ["three"], ["four"], ["five"]]),
        ("hi all , a post . cold .", [["hi", "all", "a", "post"], ["cold"]]),
        ('He said "Go." Then 3.5 km', [["he", "said", "go"], ["then", "3", "5", "km"]]),
        ("天气很好。我走了！", [list("天气很好"), list("我走了")]),
        ("... !\n", []),
    ],
)
def test_sentences(text: str, expected: list[list[str]]) -> None:
    assert sentences_in(text) == expected


def test_a_copied_sentence_stands_in_the_source_word_for_word() -> None:
    # Of the first response one of two sentences is copied; a part of a source's sentence is; words apart are not.
    texts = ["anna lost the dog of bob in the park . it was warm .", "Lost the dog", "anna the dog", ""]
    found = copied_sentences([SOURCE] * 4, texts)
    assert (found.value, found.n) == (pytest.approx((0.5 + 1 + 0) / 3), 3)
    # "in" stands in "in the", and not in "inside".
    assert copied_sentences(["an inside job"], ["side job"]).value == 0.0


def test_copying_nothing_at_all_has_an_interval() -> None:
    found = copied_sentences(["a b"] * 20, ["c d"] * 20)
    # Wilson: z^2 / (n + z^2).
    assert (found.low, found.high) == (0.0, pytest.approx(3.8415 / 23.8415, abs=1e-4))


def test_novel_ngrams() -> None:
    texts = ["the dog of Anna", "dog"]
    # the dog, dog of | of anna is new.
    found = novel_ngrams([SOURCE] * 2, texts, 2)
    assert (found.value, found.n) == (pytest.approx(1 / 3), 1)
    assert novel_ngrams([SOURCE] * 2, texts, 1).value == 0.0


def test_common_bigrams_are_in_order_with_gaps() -> None:
    # ab, bc, cd | ab, bx, xc, cd: two of three stand in the source in their order.
    assert common_bigrams(["a b x c d"], ["a b c d"]).value == pytest.approx(2 / 3)
    # The source says them in another order: one of ab, cd, and not bc.
    assert common_bigrams(["c d a b"], ["a b c d"]).value == pytest.approx(1 / 3)


@given(WORDS, WORDS)
def test_the_longest_common_subsequence_is_the_textbooks(one: list[str], other: list[str]) -> None:
    found = longest_common_subsequence([(gram,) for gram in one], [(gram,) for gram in other])
    assert found == naive_subsequence(one, other)


def test_copying_at_the_start() -> None:
    texts = ["hi ALL a post", "Hi all", "a long post", "hi all my friends", "  "]
    found = copied_start([SOURCE] * 5, texts)
    assert (found.value, found.n) == (pytest.approx(2 / 4), 4)


def test_a_response_that_is_its_source_is_all_copied() -> None:
    figures = {name: rate.value for name, rate in copying_figures([SOURCE], [SOURCE]).items()}
    assert figures == {
        "copied_sentences": 1.0,
        **{f"novel_{n}": 0.0 for n in (1, 2, 3, 4)},
        "lcs_bigrams": 1.0,
        "copied_start": 1.0,
    }


def test_copying_is_seen_without_spaces() -> None:
    source = "昨天小明在公园里丢了自行车。天气很好。"
    copied = {name: rate.value for name, rate in copying_figures([source], ["天气很好。"]).items()}
    assert (copied["copied_sentences"], copied["novel_2"], copied["lcs_bigrams"]) == (1.0, 0.0, 1.0)
    assert copied_sentences([source], ["小明丢了自行车。"]).value == 0.0


def test_a_source_for_each_response() -> None:
    with pytest.raises(ValueError, match="zip"):
        copied_sentences(["a"], ["a", "b"])
    with pytest.raises(ValueError, match="no responses"):
        copying_figures([], [])
    assert copied_sentences(["a"], [""]).n == 0
