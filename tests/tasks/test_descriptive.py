"""The judge of descriptions, and how far people agree who were told much or little."""

import statistics
from itertools import combinations

import pytest

from rlhf_dagster.records.ids import split_of
from rlhf_dagster.tasks.base import SPLITS, HasAnnotatorKinds, HasReferences
from rlhf_dagster.tasks.descriptive.gold import descriptive_score, story_features
from rlhf_dagster.tasks.descriptive.words import STORY_LANGUAGE
from rlhf_dagster.tasks.known import get_task

TASK = get_task("descriptive")
PROMPT = "anna came to the forest on monday with bob ."
SEEN, PLAIN = "the tree was crimson and jagged .", "bob said nothing for a while ."


def test_what_the_senses_notice_is_better_than_what_people_do():
    assert descriptive_score(PROMPT, SEEN) > descriptive_score(PROMPT, "the tree was red and big .")
    assert descriptive_score(PROMPT, "the tree was red and big .") > descriptive_score(PROMPT, PLAIN)


@pytest.mark.parametrize(
    "worse",
    [
        f"{SEEN} {SEEN}",
        "the ship was crimson and jagged .",
        "the tree crimson jagged .",
        "crimson crimson jagged jagged .",
        "",
    ],
)
def test_repetition_other_places_and_broken_sentences_are_worse(worse):
    assert descriptive_score(PROMPT, worse) < descriptive_score(PROMPT, SEEN)


def test_a_sentence_that_is_cut_off_is_no_error():
    assert story_features(PROMPT, "the tree was crimson and").errors == 0
    assert story_features(PROMPT, "the tree crimson").errors == pytest.approx(0.62)


def test_texts_splits_and_lengths():
    for split in SPLITS:
        prompts = TASK.prompts(60, 2, split)
        assert len(set(prompts)) == 60
        assert {split_of(prompt, 0.1, 0.1) for prompt in prompts} == {split}
        assert TASK.prompts(30, 2, split) == prompts[:30]
    pairs = TASK.demonstrations(300, 0, "train")
    assert all(8 <= len(prompt.split()) <= 20 for prompt, _ in pairs)
    assert min(len(response.split()) for _, response in pairs) >= 24
    texts = TASK.pretraining_text(300, 0, "train")
    assert {word for text in texts for word in text.split()} <= STORY_LANGUAGE.vocabulary()
    assert max(len(text.split()) for text in texts) < 64
    scores = [TASK.gold_score(*pair) for pair in pairs]
    assert abs(statistics.mean(scores)) < 1.0
    assert statistics.stdev(scores) > 1.0


def agreement(kind: str) -> float:
    crew = [one for index, one in enumerate(TASK.annotators_of_kind(kind, 0)) if index not in (3, 6, 8, 10)]
    pairs = TASK.demonstrations(160, 1, "train")
    same = []
    for index in range(0, len(pairs), 2):
        shown = [response for _, response in pairs[index : index + 2]]
        ranks = [one.judge(PROMPT, shown, "pair", str(index)).ranks for one in crew]
        same += [a == b for a, b in combinations(ranks, 2) if [1, 1] not in (a, b)]
    return statistics.mean(same)


def test_people_with_vague_instructions_agree_less():
    assert agreement("clear") > agreement("vague") + 0.1


def test_what_the_task_has():
    assert isinstance(TASK, HasAnnotatorKinds)
    assert not isinstance(TASK, HasReferences)
    assert TASK.annotators(1) == TASK.annotators_of_kind("clear", 1)
