"""What the probes measure, on the small loop and on numbers that are known."""

import math
from collections.abc import Callable
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from loops import ROUND, Stages

from rlhf_dagster.cli.runner import LoopRunner
from rlhf_dagster.errors import UserError
from rlhf_dagster.loop.folder import LoopFolder
from rlhf_dagster.replication.base import Probe
from rlhf_dagster.replication.probes.annotator_folds import annotator_folds
from rlhf_dagster.replication.probes.best_of_n import best_of_n_gains, expected_best
from rlhf_dagster.replication.probes.kept import read_probe, take_probe
from rlhf_dagster.replication.probes.last_words import find_last_words, last_words
from rlhf_dagster.replication.probes.responses import test_prompts as prompts_of_test
from rlhf_dagster.replication.probes.responses import zero_shot
from rlhf_dagster.replication.probes.reward_accuracy import accuracy_on_new_pairs


@pytest.fixture(scope="module")
def loop(finished: LoopRunner) -> LoopFolder:
    return finished.loop


@pytest.mark.parametrize("n", [1, 2, 4, 5])
def test_the_best_of_n_is_the_mean_over_all_sets_of_n(n: int) -> None:
    rng = np.random.default_rng(0)
    proxy, values = rng.normal(size=(3, 5)), rng.normal(size=(3, 5))
    found = expected_best(proxy, values, n)
    for row in range(3):
        best = [values[row, max(chosen, key=lambda place: proxy[row, place])] for chosen in combinations(range(5), n)]
        assert found[row] == pytest.approx(np.mean(best))


def test_best_of_n_gains_by_the_model_that_chooses(loop: LoopFolder) -> None:
    found = best_of_n_gains(loop, [1, 2, 4], 12)
    assert found["kl"] == [0.0, pytest.approx(math.log(2) - 0.5), pytest.approx(math.log(4) - 0.75)]
    proxy = [rate["value"] for rate in found["proxy"]]
    assert proxy[0] == pytest.approx(0.0)
    assert proxy[0] < proxy[1] < proxy[2]
    assert [rate["n"] for rate in found["gold"]] == [12, 12, 12]
    assert found["gold"][0]["value"] == pytest.approx(0.0)


def test_zero_shot_answers_the_prompts_of_the_first_evaluation(loop: LoopFolder) -> None:
    rows = zero_shot(loop)
    judged = loop.table("evaluation_completions", ROUND)
    assert judged is not None
    assert {row["prompt_id"] for row in rows} == set(judged["prompt_id"])
    assert set(rows[0]) == {"prompt_id", "prompt", "text"}
    assert rows == zero_shot(loop)
    assert len(prompts_of_test(loop, 5)) == 5


def test_the_reward_model_is_asked_about_as_many_pairs_as_wanted(loop: LoopFolder) -> None:
    (found,) = accuracy_on_new_pairs(loop, 30)["rounds"]
    assert {name: len(values) for name, values in found.items()} == {
        "agrees_with_gold": 30,
        "agrees_with_people": 30,
        "strength": 30,
    }
    assert set(found["agrees_with_gold"]) <= {0.0, 0.5, 1.0}
    assert set(found["strength"]) <= {0.0, 0.5, 1.0}
    ties = [
        right for right, strength in zip(found["agrees_with_people"], found["strength"], strict=True) if not strength
    ]
    assert set(ties) <= {0.5}


def test_a_model_that_knows_the_gold_judge_agrees_with_it(loop: LoopFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    from rlhf_dagster.replication.probes import reward_accuracy as module

    monkeypatch.setattr(module, "proxy_scores", lambda loop, _, responses: module.gold_scores(loop, responses))
    (found,) = accuracy_on_new_pairs(loop, 20)["rounds"]
    assert set(found["agrees_with_gold"]) <= {0.5, 1.0}
    assert 1.0 in found["agrees_with_gold"]


def test_the_folds_hold_every_person_out_once(stages: Stages, copy_of: Callable[..., LoopRunner]) -> None:
    """Trains two reward models of ten comparisons, which is what is measured."""
    loop = copy_of(stages.finished).loop
    found = annotator_folds(loop, 2, 10)
    assert set(found) == {"own", "held_out", "gap"}
    assert 0 <= found["own"]["low"] <= found["own"]["value"] <= found["own"]["high"] <= 1
    assert found["gap"]["n"] == found["own"]["n"] == found["held_out"]["n"]
    assert [path.suffix for path in (loop.root / "work").iterdir()] in ([], [".lock"])


@pytest.mark.parametrize(
    ("folds", "comparisons", "sentence"),
    [(2, 4000, "24 comparisons, and 4,000 are asked for"), (40, 5, "into 40 folds")],
)
def test_folds_that_cannot_be_drawn_are_refused(loop: LoopFolder, folds: int, comparisons: int, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        annotator_folds(loop, folds, comparisons)


def test_last_words_are_found_by_policy_and_sft(loop: LoopFolder) -> None:
    found = last_words(loop)
    assert set(found) == {"policy", "sft"}
    assert found["policy"]["n"] == found["sft"]["n"] > 10


def test_a_last_word_is_found_where_the_model_says_it(loop: LoopFolder) -> None:
    """Of all words at most one is the likeliest after a beginning."""
    sft, candidates = loop.checkpoint("sft_checkpoint"), known_words(loop)
    assert sft is not None
    found = []
    for beginning in ("the film was", "i liked the", "it was a very"):
        ended = [f"{beginning} {word} ." for word in candidates]
        found.append(sum(find_last_words(sft.folder, ended, loop.config.compute)))
    assert max(found) == 1
    assert find_last_words(sft.folder, [". . .", "alone"], loop.config.compute) == []


def known_words(loop: LoopFolder) -> list[str]:
    texts = loop.table("pretraining_text")
    assert texts is not None
    return sorted({word for text in texts["text"] for word in text.split() if word.isalpha()})


def test_a_probe_is_taken_once(loop: LoopFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from rlhf_dagster.replication.probes import known

    taken: list[Any] = []
    monkeypatch.setitem(known.PROBES, "zero_shot", lambda loop, **options: taken.append(options) or {"n": 1})
    elsewhere = LoopFolder(loop.config, tmp_path)
    plain, other = Probe("zero_shot"), Probe("zero_shot", {"n": 2})
    assert [take_probe(elsewhere, one) for one in (plain, other, plain)] == [True, True, False]
    assert taken == [{}, {"n": 2}]
    assert read_probe(tmp_path, other) == {"n": 1}
    with pytest.raises(UserError, match="is not taken"):
        read_probe(tmp_path, Probe("zero_shot", {"n": 3}))
