import math
import random
import statistics
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlhf_dagster.tasks.scoring import saturate
from rlhf_dagster.tasks.sentiment import TASK, gold_score
from rlhf_dagster.tasks.sentiment.gold import features, sentence_sentiment, split_sentences, tokenize
from rlhf_dagster.tasks.sentiment.grammar import vocabulary

PROMPT = "we watched this new film on monday ."
POSITIVE = (
    "the acting was great . i thought that the plot was excellent and good . "
    "my wife loved the music from the first minute and"
)
NEGATIVE = (
    "the acting was awful . i thought that the plot was terrible and bad . "
    "my wife hated the music from the first minute and"
)


def value(sentence: str) -> float:
    return sum(value for _, value in sentence_sentiment(sentence.split()))


@pytest.mark.parametrize(
    ("sentence", "expected"),
    [
        ("the plot was good .", 1.0),
        ("the plot was great .", 2.0),
        ("the plot was awful .", -2.0),
        ("the plot was extremely good .", 1.6),
        ("the plot was somewhat dull .", -0.6),
        ("the plot was not dull .", 0.74),
        ("the plot was not good at all .", -0.74 * 1.3),
        ("the plot was not very good .", -0.74 * 1.3),
        ("there was nothing dull about the plot .", 0.74),
        ("i would not recommend this film to my wife .", -0.74),
        ("not the plot , the jokes were good .", 1.0),
        ("the plot was good , but the jokes were bad .", 0.75 - 1.25),
        ("the plot was not good , but the jokes were great .", -0.74 * 0.75 + 2 * 1.25),
        ("the plot was old .", 0.0),
    ],
)
def test_the_sentiment_of_a_sentence(sentence, expected):
    assert value(sentence) == pytest.approx(expected)


def test_saturation_has_slope_one_at_zero_and_doubles_slowly():
    assert saturate(0.0) == 0.0
    assert saturate(0.001) == pytest.approx(0.001, rel=1e-3)
    assert saturate(4.0) == pytest.approx(4 * math.log(2))
    assert saturate(-12.0) == pytest.approx(-4 * math.log(4))


def test_a_plain_sentence_by_hand():
    assert gold_score(PROMPT, "the plot was good .") == pytest.approx(4 * math.log(1.25))


def test_the_features_of_a_repetitive_broken_text_by_hand():
    # Sentence 2 repeats 1 (plot, good said again), sentence 3 goes wrong at its third token of five.
    seen = features(PROMPT, "the plot was good . the plot was good . the plot good was .")
    assert seen.errors == pytest.approx(0.5 + 0.12 * 3)
    assert seen.repetition == pytest.approx(0.25 * 4 + 1)
    assert seen.sentiment == pytest.approx(saturate(1 + 0.5 + 0.25 * 0.5))
    assert seen.off_topic == 0
    assert seen.words == {"plot", "good"}


def test_repeating_a_sentence_of_the_prompt_costs_one():
    prompt = "this was a great film . the plot was good ."
    fresh, copied = features(prompt, "the music was good ."), features(prompt, "the plot was good .")
    assert (fresh.repetition, copied.repetition) == (0, 1)
    # The prompt's own repetition is not the response's fault.
    assert features(f"{prompt} {prompt}", "the music was good .").repetition == 0


def test_leaving_the_domain_of_the_prompt_costs_half_a_point():
    on_topic, off_topic = gold_score(PROMPT, "the plot was good ."), gold_score(PROMPT, "the soup was good .")
    assert on_topic - off_topic == pytest.approx(0.5)
    assert gold_score("", "the plot was good .") == gold_score("", "the soup was good .")


def test_a_cut_sentence_is_not_an_error_and_a_broken_one_is():
    tokens = POSITIVE.split()
    assert all(features(PROMPT, " ".join(tokens[:cut])).errors == 0 for cut in range(1, len(tokens) + 1))
    assert features(PROMPT, POSITIVE + " was").errors > 0


def test_a_response_may_finish_the_sentence_of_the_prompt():
    assert features("the plot", "was good .").errors == 0
    assert features("the plot .", "was good .").errors > 0
    assert features("something unheard of", "the plot was good .").errors == 0


def test_the_order_of_typical_responses():
    stuffed = gold_score(PROMPT, "great wonderful superb excellent brilliant amazing perfect charming " * 3)
    mixed = gold_score(PROMPT, "the acting was great . the plot was terrible . the film")
    assert gold_score(PROMPT, POSITIVE) > 3
    assert -1 < mixed < 1
    assert gold_score(PROMPT, NEGATIVE) < -3
    assert mixed > stuffed > gold_score(PROMPT, "great " * 24)
    assert gold_score(PROMPT, "") < 0


def test_word_salad_scores_low():
    rng, words = random.Random(0), sorted(vocabulary())
    scores = [gold_score(PROMPT, " ".join(rng.choices(words, k=24))) for _ in range(200)]
    assert statistics.mean(scores) < -3
    assert max(scores) < 1


def test_each_further_positive_sentence_adds_less():
    words = ["great", "superb", "brilliant", "amazing", "perfect"]
    nouns = ["acting", "plot", "music", "ending", "script"]
    sentences = [f"the {noun} was {word} ." for noun, word in zip(nouns, words, strict=True)]
    scores = [gold_score(PROMPT, " ".join(sentences[:count])) for count in range(1, 6)]
    gains = [after - before for before, after in pairwise(scores)]
    assert all(gain > 0 for gain in gains)
    assert gains == sorted(gains, reverse=True)


def test_letter_case_and_spacing_do_not_matter():
    assert gold_score(PROMPT, "  The plot\n was GOOD.\t") == gold_score(PROMPT, "the plot was good .")


@given(st.text(), st.text())
def test_any_text_has_a_finite_score(prompt, response):
    assert math.isfinite(gold_score(prompt, response))


@given(st.lists(st.sampled_from(sorted(vocabulary())), max_size=40))
def test_sentences_are_a_partition_of_the_tokens(tokens):
    assert [token for sentence in split_sentences(tokens) for token in sentence] == tokens
    assert tokenize(" ".join(tokens)) == tokens


def test_a_very_long_response_is_scored():
    assert math.isfinite(gold_score(PROMPT, "the plot was good . " * 20_000))


def test_mirrored_texts_have_opposite_sentiment():
    assert features(PROMPT, POSITIVE).sentiment == -features(PROMPT, NEGATIVE).sentiment
    assert TASK.gold_score(PROMPT, POSITIVE) == -TASK.gold_score(PROMPT, NEGATIVE)
