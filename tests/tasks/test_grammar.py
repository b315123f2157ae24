import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlhf_dagster.tasks.sentiment.gold import sentence_sentiment
from rlhf_dagster.tasks.sentiment.grammar import (
    DOMAIN_BY_NAME,
    KINDS,
    SENTENCE_ENDS,
    alternatives,
    article,
    is_slot,
    patterns,
    sample_sentence,
    vocabulary,
)
from rlhf_dagster.tasks.sentiment.recogniser import recognise
from rlhf_dagster.tasks.sentiment.vocabulary import NEGATIVE, NEGATIVE_COMPANY, POSITIVE, POSITIVE_COMPANY, STRENGTHS

DOMAINS = sorted(DOMAIN_BY_NAME)
LONGEST_SENTENCE = 15
"""`my wife loved the plot from the first minute and wrote to the office .`"""


def value(sentence: list[str]) -> float:
    return sum(value for _, value in sentence_sentiment(sentence))


@st.composite
def sentences(draw: st.DrawFn, kinds: tuple[str, ...] = KINDS) -> tuple[str, list[str]]:
    domain, kind, seed = draw(st.sampled_from(DOMAINS)), draw(st.sampled_from(kinds)), draw(st.integers(0, 2**32))
    return domain, sample_sentence(random.Random(seed), DOMAIN_BY_NAME[domain], kind, set())


@given(sentences())
def test_every_beginning_of_a_sampled_sentence_is_recognised(case):
    domain, sentence = case
    for cut in range(len(sentence) + 1):
        found = recognise(sentence[:cut])
        assert found.legal_tokens == cut
        assert domain in found.domains


@given(sentences())
def test_a_sampled_sentence_is_one_sentence_of_known_tokens(case):
    _, sentence = case
    assert 5 <= len(sentence) <= LONGEST_SENTENCE
    assert set(sentence) <= vocabulary()
    assert [token in SENTENCE_ENDS for token in sentence] == [False] * (len(sentence) - 1) + [True]


@given(sentences(("positive", "positive_opening")))
def test_positive_sentences_are_positive(case):
    assert value(case[1]) > 0


@given(sentences(("negative", "negative_opening")))
def test_negative_sentences_are_negative(case):
    assert value(case[1]) < 0


@given(sentences(("fact", "opening")))
def test_facts_hold_no_sentiment(case):
    assert value(case[1]) == 0


@given(sentences())
def test_no_content_word_comes_twice_in_a_sentence(case):
    words = [word for word in case[1] if word in STRENGTHS]
    assert len(words) == len(set(words))


@pytest.mark.parametrize(
    ("sentence", "legal"),
    [
        ("the food was very good .", 6),
        ("the food was very", 4),
        ("the food was .", 3),
        ("the food food was good .", 2),
        ("the food was good . the", 5),
        ("it was an excellent film with good actors .", 9),
        ("it was a excellent film with good actors .", 3),
        ("it was an good film with good actors .", 3),
        ("the waiter was good and the actors were good .", 6),
        ("xyz", 0),
        ("", 0),
    ],
)
def test_the_recogniser_stops_at_the_first_wrong_token(sentence, legal):
    assert recognise(sentence.split()).legal_tokens == legal


def test_the_recogniser_names_the_domains():
    assert recognise(("the", "plot", "was", "good", ".")).domains == {"film", "book"}
    assert recognise(("the", "soup", "was", "good", ".")).domains == {"restaurant"}
    assert recognise(("the",)).domains == set(DOMAINS)


def test_the_article_follows_the_next_word():
    assert [article(word) for word in ("inn", "awful", "hotel", "unpleasant")] == ["an", "an", "a", "an"]


def test_the_grammar_is_a_few_hundred_words():
    assert 350 <= len(vocabulary()) <= 450


@pytest.mark.parametrize("kind", ["positive", "negative"])
def test_there_are_many_patterns_in_every_polarity(kind):
    assert all(len(set(patterns(domain, kind))) >= 25 for domain in DOMAINS)


def test_both_polarities_have_as_many_words_of_each_strength():
    for slot in POSITIVE:
        assert [len(set(words.split())) for words in POSITIVE[slot]] == [
            len(set(words.split())) for words in NEGATIVE[slot]
        ]


def test_company_words_go_with_one_polarity_and_have_no_strength_of_their_own():
    for slot in POSITIVE_COMPANY:
        assert len(set(POSITIVE_COMPANY[slot])) == len(set(NEGATIVE_COMPANY[slot]))
    phrases = [
        phrase for company in (POSITIVE_COMPANY, NEGATIVE_COMPANY) for slot in company for phrase in company[slot]
    ]
    assert len(phrases) == len(set(phrases))
    assert not STRENGTHS.keys() & {word for phrase in phrases for word in phrase.split()}


@pytest.mark.parametrize("domain", DOMAINS)
def test_every_slot_of_every_pattern_can_be_filled(domain):
    slots = {symbol for kind in KINDS for pattern in patterns(domain, kind) for symbol in pattern if is_slot(symbol)}
    for slot in slots:
        options, weights = alternatives(domain, slot)
        assert len(options) == len(weights) > 1
        assert all(options)
        assert all(weight > 0 for weight in weights)


def test_words_already_used_are_avoided():
    used: set[str] = set()
    rng = random.Random(0)
    words = [sample_sentence(rng, DOMAIN_BY_NAME["film"], "positive", used) for _ in range(4)]
    graded = [word for sentence in words for word in sentence if word in STRENGTHS]
    assert len(graded) == len(set(graded)) > 3
