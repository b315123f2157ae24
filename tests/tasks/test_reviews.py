import random
import statistics

import pytest

from rlhf_dagster.errors import UserError
from rlhf_dagster.tasks.base import SPLITS
from rlhf_dagster.tasks.sentiment import TASK, gold_score, sample_prompts
from rlhf_dagster.tasks.sentiment.gold import features, split_sentences
from rlhf_dagster.tasks.sentiment.grammar import sample_sentence, vocabulary
from rlhf_dagster.tasks.sentiment.recogniser import recognise
from rlhf_dagster.tasks.sentiment.reviews import prompt_of, split_of_prompt
from rlhf_dagster.tasks.sentiment.vocabulary import DOMAINS

TEXTS = TASK.pretraining_text(6000, 0, "train")
DEMONSTRATIONS = TASK.demonstrations(2000, 0, "train")


@pytest.mark.parametrize("split", SPLITS)
def test_prompts_are_whole_sentences_of_their_split(split):
    prompts = TASK.prompts(300, 0, split)
    assert len(set(prompts)) == 300
    for prompt in prompts:
        assert 8 <= len(prompt.split()) <= 20
        assert prompt_of(prompt) == prompt
        assert split_of_prompt(prompt) == split
        sentences = split_sentences(prompt.split())
        assert all(recognise(sentence).legal_tokens == len(sentence) for sentence in sentences)


@pytest.mark.parametrize("split", ["train", "validation"])
def test_no_text_of_another_split_begins_with_a_test_prompt(split):
    texts = TASK.pretraining_text(500, 3, split)
    texts += [f"{prompt} {response}" for prompt, response in TASK.demonstrations(500, 3, split)]
    assert {split_of_prompt(prompt_of(text)) for text in texts} == {split}
    unseen = sample_prompts(2000, 0)
    assert not set(unseen) & {prompt_of(text) for text in texts}


def test_demonstrations_begin_with_their_prompt_and_go_on_in_whole_legal_sentences():
    assert len(set(DEMONSTRATIONS)) == len(DEMONSTRATIONS)
    for prompt, response in DEMONSTRATIONS[:300]:
        assert prompt_of(f"{prompt} {response}") == prompt
        # The last sentence begins before token 24 and has at most 15 tokens.
        assert 24 <= len(response.split()) <= 23 + 15
        seen = features(prompt, response)
        assert response[-1] in ".!"
        assert seen.errors == seen.off_topic == 0


def test_texts_mostly_have_45_to_64_tokens():
    lengths = [len(text.split()) for text in TEXTS]
    assert min(lengths) >= 45
    assert statistics.mean(length <= 64 for length in lengths) > 0.95


def test_texts_hold_every_word_of_the_grammar_and_no_other():
    assert {token for text in TEXTS for token in text.split()} == vocabulary()


def test_some_raw_texts_repeat_a_sentence():
    repeats = [len(split_sentences(text.split())) > len(set(split_sentences(text.split()))) for text in TEXTS]
    assert 0.05 < statistics.mean(repeats) < 0.15


def test_continuations_are_symmetric_and_widely_spread():
    scores = [gold_score(prompt, " ".join(response.split()[:24])) for prompt, response in DEMONSTRATIONS]
    # The standard error of the mean is 0.04.
    assert abs(statistics.mean(scores)) < 0.2
    assert statistics.pstdev(scores) > 1.5
    ties = [first == second for first, second in zip(scores[::2], scores[1::2], strict=True)]
    assert statistics.mean(ties) < 0.05


def test_positive_continuations_are_distinct_and_beat_most_others():
    mixed = [gold_score(prompt, " ".join(response.split()[:24])) for prompt, response in DEMONSTRATIONS]
    rng = random.Random(0)
    positive = [_in_one_mood(rng, "positive") for _ in range(512)]
    assert len(set(positive)) == 512
    typical = statistics.median(gold_score("", response) for response in positive)
    assert statistics.mean(typical > score for score in mixed) > 0.9


def _in_one_mood(rng: random.Random, kind: str) -> str:
    domain, used, tokens = rng.choice(DOMAINS), set(), []
    while len(tokens) < 24:
        tokens += sample_sentence(rng, domain, kind, used)
    return " ".join(tokens[:24])


def test_everything_is_determined_by_seed_split_and_purpose():
    assert TASK.prompts(20, 1, "train") == TASK.prompts(30, 1, "train")[:20]
    assert TASK.prompts(20, 1, "train") != TASK.prompts(20, 2, "train")
    assert TASK.demonstrations(20, 1, "train") == TASK.demonstrations(20, 1, "train")
    assert TASK.pretraining_text(20, 1, "train") == TASK.pretraining_text(20, 1, "train")
    assert sample_prompts(5, 0) == TASK.prompts(5, 0, "test")


def test_the_texts_of_a_seed_stay_the_same():
    """A change here changes every cached base model and every recorded result; make it on purpose."""
    assert sample_prompts(1, 0) == ["we attended this concert this morning . it rained when we saw the show ."]


def test_different_seeds_draw_mostly_different_prompts():
    assert len(set(sample_prompts(512, 0)) & set(sample_prompts(512, 1))) < 51


@pytest.mark.parametrize(
    "text", ["", "great .", "no end mark in this text at all", "a " * 20 + ".", "good film . " + "x " * 18 + "."]
)
def test_a_text_without_a_prompt_is_refused(text):
    with pytest.raises(UserError, match="whole sentences of 8 to 20 tokens"):
        prompt_of(text)


def test_prompt_of_takes_the_shortest_run_of_sentences():
    text = "this was a great film . the plot was good . the jokes were bad ."
    assert prompt_of(text) == "this was a great film . the plot was good ."


def test_a_wrong_split_or_number_is_refused():
    with pytest.raises(UserError, match="`dev` is not a split"):
        TASK.prompts(1, 0, "dev")
    with pytest.raises(UserError, match="ask for 0 or more"):
        TASK.prompts(-1, 0, "train")


def test_all_domains_occur():
    found = [recognise(split_sentences(text.split())[0]).domains for text in TEXTS[:500]]
    assert set.union(*(set(domains) for domains in found)) == {domain.name for domain in DOMAINS}
