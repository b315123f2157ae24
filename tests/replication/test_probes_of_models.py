"""Probes that sample and train: what they count, and that they leave a loop as it was."""

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from rlhf_dagster.cli.runner import LoopRunner
from rlhf_dagster.common.kl import best_of_n_kl
from rlhf_dagster.errors import UserError
from rlhf_dagster.evaluation.held_out_text import held_out_documents
from rlhf_dagster.loop.folder import LoopFolder
from rlhf_dagster.replication.probes import annotator_folds as folds
from rlhf_dagster.replication.probes import last_words as words
from rlhf_dagster.replication.probes import reward_accuracy as accuracy
from rlhf_dagster.replication.probes.annotator_folds import annotator_folds
from rlhf_dagster.replication.probes.best_of_n import best_of_n
from rlhf_dagster.replication.probes.last_words import last_words
from rlhf_dagster.replication.probes.reward_accuracy import reward_accuracy
from rlhf_dagster.training.sampling.sample import sample


@pytest.fixture
def loop(finished: LoopRunner) -> LoopFolder:
    return finished.loop


def files(loop: LoopFolder) -> set[Path]:
    return set(loop.root.rglob("*"))


def test_best_of_more_has_the_higher_reward(loop: LoopFolder) -> None:
    found = best_of_n(loop, n=[1, 2, 4], prompts=12)
    assert found["kl"] == [best_of_n_kl(n) for n in (1, 2, 4)]
    one, two, four = (rate["value"] for rate in found["proxy"])
    assert one == pytest.approx(0)
    assert one < two < four
    assert found["gold"][0]["value"] == pytest.approx(0)
    assert found["gold"][2]["n"] == 12
    with pytest.raises(UserError, match="3 does not divide 4"):
        best_of_n(loop, n=[1, 3, 4], prompts=12)


def by_gold(sign: float) -> Any:
    """A reward model that agrees with the gold judge always, or never."""

    def scores(loop: LoopFolder, prompts: Sequence[Any], texts: Sequence[str]) -> np.ndarray:
        return np.array([sign * loop.task.gold_score(*pair) for pair in zip(prompts, texts, strict=True)])

    return scores


def test_accuracy_is_that_of_the_reward_model(loop: LoopFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    (own,) = reward_accuracy(loop, pairs=40)["rounds"]
    monkeypatch.setattr(accuracy, "reward_scores", by_gold(1))
    (right,) = reward_accuracy(loop, pairs=40)["rounds"]
    monkeypatch.setattr(accuracy, "reward_scores", by_gold(-1))
    (wrong,) = reward_accuracy(loop, pairs=40)["rounds"]
    assert min(right["agrees_with_gold"]) >= 0.5
    assert max(wrong["agrees_with_gold"]) <= 0.5
    # People are noisy, and know better than nothing.
    assert 0.5 < np.mean(right["agrees_with_people"]) < 1
    assert np.mean(right["agrees_with_people"]) + np.mean(wrong["agrees_with_people"]) == pytest.approx(1)
    assert own["round"] == "round-0001"
    # The same pairs and answers, whatever the reward model.
    assert own["strength"] == right["strength"] == wrong["strength"]
    assert set(own["strength"]) <= {0.0, 0.5, 1.0}


def test_pairs_need_prompts_of_their_own(loop: LoopFolder) -> None:
    with pytest.raises(UserError, match="prompts are held out, and 5000 pairs need one each"):
        reward_accuracy(loop, pairs=5000)


def test_the_last_word_is_the_likeliest_after_the_others(loop: LoopFolder) -> None:
    texts, demonstrations = loop.table("pretraining_text"), loop.table("demonstrations")
    assert texts is not None
    assert demonstrations is not None
    cases = [words._before_last_word(text) for text in held_out_documents(texts, demonstrations).documents]
    sft = loop.checkpoint("sft_checkpoint")
    assert sft is not None
    one_token = loop.config.sampling.changed(prompt_tokens=63, response_tokens=1)
    said = sample(sft.folder, [before for before, _ in cases], one_token, seed=0, greedy=True)
    hits = sum(one.text.strip() == word for one, (_, word) in zip(said, cases, strict=True))
    found = last_words(loop)["sft"]
    assert (found["value"] * found["n"], found["n"]) == (pytest.approx(hits), len(cases))


def test_the_last_word_is_no_punctuation() -> None:
    assert words._before_last_word("the food was good .") == ("the food was", "good")
    assert words._before_last_word("good .") == ("", "")
    assert words._before_last_word("") == ("", "")


def test_folds_leave_people_out(loop: LoopFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    trained: list[pd.DataFrame] = []

    def credit(_: LoopFolder, labels: pd.DataFrame, measured: pd.DataFrame) -> np.ndarray:
        trained.append(labels)
        return measured["annotator"].isin(labels["annotator"]).to_numpy(dtype=np.float64)

    monkeypatch.setattr(folds, "_credit", credit)
    found = annotator_folds(loop, folds=3, comparisons=25)
    people = set().union(*(set(labels["annotator"]) for labels in trained))
    left_out = [people - set(labels["annotator"]) for labels in trained]
    assert set().union(*left_out) == people
    assert sum(map(len, left_out)) == len(people)
    # Whom a model has learned from it knows here, and nobody else.
    assert (found["own"]["value"], found["held_out"]["value"], found["gap"]["value"]) == (1, 0, 1)
    with pytest.raises(UserError, match="cannot make 1 folds"):
        annotator_folds(loop, folds=1, comparisons=25)
    with pytest.raises(UserError, match="learns from all"):
        annotator_folds(loop, folds=3, comparisons=500)


def test_folds_are_measured_on_other_prompts(loop: LoopFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[SimpleNamespace] = []

    def credit(_: LoopFolder, labels: pd.DataFrame, measured: pd.DataFrame) -> np.ndarray:
        seen.append(SimpleNamespace(trained=set(labels["prompt_id"]), measured=set(measured["prompt_id"])))
        return np.zeros(len(measured))

    monkeypatch.setattr(folds, "_credit", credit)
    annotator_folds(loop, folds=2, comparisons=20)
    assert all(one.trained and one.measured and not one.trained & one.measured for one in seen)


def test_folds_are_trained_and_leave_nothing_behind(loop: LoopFolder) -> None:
    before = files(loop)
    found = annotator_folds(loop, folds=2, comparisons=20)
    assert files(loop) == before
    assert found["own"]["n"] == found["held_out"]["n"] > 0
    assert 0 <= found["held_out"]["value"] <= 1
