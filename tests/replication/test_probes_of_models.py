"""Probes that sample and train: what they count, and that they leave a loop as it was."""

import re
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd
import pytest

from rlhf_dagster.cli.runner import LoopRunner
from rlhf_dagster.common.kl import best_of_n_kl
from rlhf_dagster.evaluation.held_out_text import held_out_documents
from rlhf_dagster.loop.folder import LoopFolder
from rlhf_dagster.replication.probes import annotator_folds as folds
from rlhf_dagster.replication.probes import reward_accuracy as accuracy
from rlhf_dagster.replication.probes.annotator_folds import annotator_folds
from rlhf_dagster.replication.probes.best_of_n import best_of_n, expected_best
from rlhf_dagster.replication.probes.last_words import last_words
from rlhf_dagster.replication.probes.reward_accuracy import reward_accuracy
from rlhf_dagster.replication.probes.scoring import gold_scores
from rlhf_dagster.training.sampling.sample import sample


@pytest.fixture
def loop(finished: LoopRunner) -> LoopFolder:
    return finished.loop


def test_best_of_more_has_the_higher_reward(loop: LoopFolder) -> None:
    found = best_of_n(loop, n=[1, 2, 4], prompts=12)
    assert found["kl"] == [best_of_n_kl(n) for n in (1, 2, 4)]
    one, two, four = (rate["value"] for rate in found["proxy"])
    assert one == pytest.approx(0)
    assert one < two < four
    assert found["gold"][0]["value"] == pytest.approx(0)
    assert found["gold"][2]["n"] == 12


def test_the_best_of_all_sets_of_n() -> None:
    rng = np.random.default_rng(0)
    proxy, gold = rng.normal(size=(3, 6)), rng.normal(size=(3, 6))
    for n in (1, 2, 3, 6):
        sets = [list(places) for places in combinations(range(6), n)]
        expected = [np.mean([gold[row][places][proxy[row][places].argmax()] for places in sets]) for row in range(3)]
        assert expected_best(proxy, gold, n) == pytest.approx(expected)


def by_gold(sign: float) -> Any:
    """A reward model that agrees with the gold judge always, or never."""

    def scores(loop: LoopFolder, _: Any, responses: pd.DataFrame) -> np.ndarray:
        return sign * gold_scores(loop, responses)

    return scores


def test_accuracy_is_that_of_the_reward_model(loop: LoopFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    (own,) = reward_accuracy(loop, pairs=40)["rounds"]
    monkeypatch.setattr(accuracy, "proxy_scores", by_gold(1))
    (right,) = reward_accuracy(loop, pairs=40)["rounds"]
    monkeypatch.setattr(accuracy, "proxy_scores", by_gold(-1))
    (wrong,) = reward_accuracy(loop, pairs=40)["rounds"]
    assert min(right["agrees_with_gold"]) >= 0.5
    assert max(wrong["agrees_with_gold"]) <= 0.5
    # People are noisy, and know better than nothing.
    assert 0.5 < np.mean(right["agrees_with_people"]) < 1
    assert np.mean(right["agrees_with_people"]) + np.mean(wrong["agrees_with_people"]) == pytest.approx(1)
    # The same pairs and answers, whatever the reward model.
    assert own["strength"] == right["strength"] == wrong["strength"]
    assert set(own["strength"]) <= {0.0, 0.5, 1.0}


def test_the_last_word_is_the_likeliest_after_the_others(loop: LoopFolder) -> None:
    texts, demonstrations = loop.table("pretraining_text"), loop.table("demonstrations")
    assert texts is not None
    assert demonstrations is not None
    documents = held_out_documents(texts, demonstrations).documents
    cases = [re.fullmatch(r"(.*) (\w+)\W*", text) for text in documents]
    assert all(cases)
    pairs = [case.groups() for case in cases if case]
    sft = loop.checkpoint("sft_checkpoint")
    assert sft is not None
    one_token = loop.config.sampling.changed(prompt_tokens=63, response_tokens=1)
    said = sample(sft.folder, [before for before, _ in pairs], one_token, seed=0, greedy=True)
    hits = sum(one.text.strip() == word for one, (_, word) in zip(said, pairs, strict=True))
    found = last_words(loop)["sft"]
    assert (found["value"] * found["n"], found["n"]) == (pytest.approx(hits), len(pairs))


def test_folds_leave_people_out(loop: LoopFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    trained: list[set[str]] = []

    def predicted(_: LoopFolder, preferences: pd.DataFrame, tested: pd.DataFrame, number: int) -> pd.DataFrame:
        learned = preferences[preferences["split"] == "train"]
        assert not set(learned["prompt_id"]) & set(tested["prompt_id"])
        trained.append(set(learned["annotator"]))
        return pd.DataFrame({"credit": tested["annotator"].isin(learned["annotator"]).astype(float), "tied": False})

    monkeypatch.setattr(folds, "_predicted", predicted)
    found = annotator_folds(loop, folds=3, comparisons=10, measured=0.3)
    assert len(trained) == 3
    # Whom a model has learned from it knows here, and nobody else.
    assert (found["own"]["value"], found["held_out"]["value"], found["gap"]["value"]) == (1, 0, 1)
