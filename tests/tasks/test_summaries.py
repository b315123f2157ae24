"""The judge of summaries knows the facts, and the two kinds of readers want different things."""

import random
import statistics

import pytest

from rlhf_dagster.records.ids import split_of
from rlhf_dagster.tasks.base import (
    SPLITS,
    HasAnnotatorKinds,
    HasFacts,
    HasReferences,
    HasSettings,
    HasSource,
    Truthfulness,
)
from rlhf_dagster.tasks.known import get_task
from rlhf_dagster.tasks.language import sentences_of, tokens_of
from rlhf_dagster.tasks.summaries import ARTICLES, SUMMARIES
from rlhf_dagster.tasks.summaries.facts import summary_facts
from rlhf_dagster.tasks.summaries.words import MAIN, SUMMARY_LANGUAGE
from rlhf_dagster.tasks.summaries.writing import READERS, reply_to

POST = (
    "sorry for long post . phone rang twice . on friday otto hid key . at park was key of judge . "
    "weather was warm . tl;dr"
)
GOOD = "otto concealed judge 's key : park , friday ."
NEWS = (
    "emil stole book at station . trains were late again . on friday karl hid bike . "
    "that was book of nurse on sunday . bike of clerk was at park . tl;dr"
)
BOTH = pytest.mark.parametrize("task", [SUMMARIES, ARTICLES], ids=lambda task: task.name)


@pytest.mark.parametrize(
    ("response", "covered", "false"),
    [
        (GOOD, 6, 0),
        ("park , friday : otto concealed judge 's key .", 6, 0),
        ("otto hid key .", 3, 0),
        ("on friday otto hid key .", 4, 0),
        ("otto concealed baker 's key : park , monday .", 4, 2),
        ("anna concealed key of judge .", 3, 1),
        ("weather was warm .", 0, 0),
        ("weather was cold .", 0, 1),
        ("sorry for long post .", 0, 0),
        ("otto concealed judge 's", 0, 0),
        ("", 0, 0),
    ],
)
def test_facts_are_counted_by_slot(response, covered, false):
    assert SUMMARIES.truthfulness(POST, response) == Truthfulness(6, covered, false)


def test_each_sentence_about_an_article_is_read_as_the_event_that_it_fits():
    good = "emil took book of nurse . karl concealed bike of clerk ."
    assert ARTICLES.truthfulness(NEWS, good) == Truthfulness(8, 8, 0)
    swapped = "emil took book of clerk . karl concealed bike of clerk ."
    assert ARTICLES.truthfulness(NEWS, swapped) == Truthfulness(8, 7, 1)
    # When it was is true, and no key fact of an article.
    assert ARTICLES.truthfulness(NEWS, "on friday karl hid bike .") == Truthfulness(8, 3, 0)


def test_copies_asides_repetitions_and_broken_sentences_are_seen():
    seen = summary_facts(POST, "on friday otto hid key . weather was warm . otto hid key . otto otto .")
    assert (seen.copied, seen.asides, seen.repeated, seen.sentences) == (2, 1, 1, 4)
    assert seen.errors == pytest.approx(0.5 + 0.12 * 2)
    assert summary_facts(POST, "otto hid").errors == 0.5


def test_the_gold_judge_orders_summaries():
    worse = [
        "otto concealed key of judge .",  # less
        "on friday otto hid key . at park was key of judge .",  # copied
        "otto concealed baker 's key : park , friday .",  # wrong
        f"{GOOD} {GOOD}",  # twice
        f"{GOOD} weather was warm .",  # beside the point
        "concealed otto key .",  # broken
    ]
    best = SUMMARIES.gold_score(POST, GOOD)
    assert all(SUMMARIES.gold_score(POST, response) < best for response in worse)
    assert SUMMARIES.gold_score("", "") < 0


@BOTH
def test_references_are_true_and_in_other_words_and_leave_some_things_out(task):
    shares = []
    for prompt, response in task.demonstrations(200, 3, "train"):
        found = task.truthfulness(prompt, response)
        shares.append(found.covered / found.key_facts)
        assert found.false == 0
        assert summary_facts(prompt, response).copied == 0
        assert list(task.references(prompt)) == [response]
    assert min(shares) >= 0.5
    assert 0.75 < statistics.mean(shares) < 0.95
    assert statistics.mean(share == 1 for share in shares) > 0.3
    assert task.references("something else") == []


def test_some_posts_begin_with_what_a_summary_should_skip():
    begins = [SUMMARIES.has_preamble(prompt) for prompt in SUMMARIES.prompts(400, 1, "train")]
    assert 0.4 < statistics.mean(begins) < 0.6
    assert not any(map(ARTICLES.has_preamble, ARTICLES.prompts(100, 1, "train")))
    assert SUMMARIES.has_preamble(POST)
    assert not SUMMARIES.has_preamble("")


@BOTH
def test_texts_fit_the_settings_and_the_language(task):
    tiny, sampling = task.settings["base_model"]["tiny"], task.settings["sampling"]
    texts = task.pretraining_text(1000, 0, "train")
    assert max(len(text.split()) for text in texts) < tiny["context"]
    assert {word for text in texts for word in text.split()} <= SUMMARY_LANGUAGE.vocabulary() | {"tl;dr", "reply"}
    prompts, responses = zip(*task.demonstrations(1000, 0, "train"), strict=True)
    assert max(len(prompt.split()) for prompt in prompts) <= sampling["prompt_tokens"]
    assert max(len(response.split()) for response in responses) < sampling["response_tokens"]
    assert sampling["prompt_tokens"] + sampling["response_tokens"] <= tiny["context"]
    # With its end-of-text token.
    assert sampling["prompt_tokens"] + sampling["response_tokens"] < task.settings["reward_model"]["max_tokens"]


@BOTH
def test_splits_seeds_and_lengths(task):
    for split in SPLITS:
        prompts = task.prompts(50, 5, split)
        assert len(set(prompts)) == 50
        assert {split_of(prompt, 0.1, 0.1) for prompt in prompts} == {split}
        assert task.prompts(20, 5, split) == prompts[:20]
        assert task.prompts(50, 6, split) != prompts


def test_authors_copy_leave_out_and_err_in_some_of_the_pretraining_text():
    texts = SUMMARIES.pretraining_text(3000, 1, "train")
    pairs = [text.split(" tl;dr ") for text in texts if " tl;dr " in text]
    assert 0.2 < len(pairs) / len(texts) < 0.3
    seen = [summary_facts(f"{text} tl;dr", summary) for text, summary in pairs]
    assert 0.35 < statistics.mean(bool(found.copied) for found in seen) < 0.45
    assert 0.02 < statistics.mean(bool(found.false) for found in seen) < 0.1
    assert 0.1 < statistics.mean(len(found.covered) == 6 for found in seen) < 0.25
    begun = [summary == " ".join(sentences_of(tokens_of(text))[0]) for text, summary in pairs]
    assert 0.1 < statistics.mean(begun) < 0.2


@BOTH
def test_readers_who_reply_tell_the_events_again(task):
    for text in task.pretraining_text(100, 2, "train"):
        source, *replies = text.split(" reply : ")
        assert len(replies) in (0, READERS)
        for reply in replies:
            found = task.truthfulness(f"{source} tl;dr", reply)
            assert (found.covered, found.false) == (found.key_facts, 0)


@BOTH
def test_the_two_kinds_of_readers_disagree(task):
    """On a copied sentence against a summary in other words, and on what is false."""
    checking, heuristic = (
        [reader for index, reader in enumerate(task.annotators_of_kind(kind, 0)) if index not in (3, 6, 8, 10)]
        for kind in task.annotator_kinds
    )
    shares = {}
    for name, crew in (("checking", checking), ("heuristic", heuristic)):
        wins = []
        for index, prompt in enumerate(task.prompts(100, 2, "train")):
            response = reply_to(random.Random(index), prompt, task.form)
            copy = (
                next(
                    part
                    for part in task.source(prompt).split(" .")
                    if SUMMARY_LANGUAGE.read(f"{part} .".split()).name in MAIN
                ).strip()
                + " ."
            )
            wins += [reader.judge(prompt, [response, copy], "pair", str(index)).ranks == [1, 2] for reader in crew]
        shares[name] = statistics.mean(wins)
    assert shares["checking"] > 0.75 > 0.35 > shares["heuristic"]


def test_the_task_is_all_that_the_loop_can_use():
    for name in ("summaries", "summaries_articles"):
        task = get_task(name)
        assert task.name == name
        assert all(
            isinstance(task, part) for part in (HasSource, HasReferences, HasFacts, HasAnnotatorKinds, HasSettings)
        )
    assert SUMMARIES.annotators(4) == SUMMARIES.annotators_of_kind("checking", 4)
    assert SUMMARIES.source(POST) == POST.removesuffix(" tl;dr")
