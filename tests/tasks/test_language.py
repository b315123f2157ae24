"""A small language is said and read back."""

import random

import pytest

from rlhf_dagster.tasks.language import Language, sentences_of, tokens_of

LANGUAGE = Language(
    {"loss": ("{who} lost {who2} 's {thing} .",), "place": ("it was {where} .",), "call": ("it was me .",)},
    {"who": ("anna", "bob"), "thing": ("ring",), "where": ("near the park", "near the park gate")},
)


def read(text: str):
    return LANGUAGE.read(tokens_of(text))


def test_what_is_said_is_read_back():
    rng = random.Random(0)
    for _ in range(20):
        said = LANGUAGE.draw(rng, "loss", {"who": "bob"})
        reading = read(said)
        assert (reading.name, reading.values) == ("loss", {"who": "bob", "who2": "anna", "thing": "ring"})


def test_words_of_several_tokens_and_words_that_begin_alike_are_told_apart():
    assert read("it was near the park .").values == {"where": "near the park"}
    assert read("it was near the park gate .").values == {"where": "near the park gate"}
    assert read("it was me .").name == "call"


@pytest.mark.parametrize(
    ("text", "legal"),
    [("anna lost", 2), ("anna lost the ring .", 2), ("ring", 0), ("it was near the park . .", 6), ("", 0)],
)
def test_other_sentences_are_followed_as_far_as_they_go(text, legal):
    reading = read(text)
    assert (reading.name, reading.legal_tokens) == ("", legal)


def test_used_words_are_avoided_where_there_is_a_choice():
    used = {"anna"}
    assert LANGUAGE.draw(random.Random(0), "loss", {"who2": "x"}, used) == "bob lost x 's ring ."
    assert used == {"anna", "bob", "ring"}


def test_texts_are_cut_into_sentences_and_the_last_may_lack_its_end():
    tokens = tokens_of("Bob's ring. It was me")
    assert sentences_of(tokens) == [("bob", "'s", "ring", "."), ("it", "was", "me")]
    words = "anna bob lost 's ring . it was near the park gate me"
    assert LANGUAGE.vocabulary() == set(words.split())
