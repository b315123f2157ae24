"""Reward models of several kinds of labels, with ties, several heads and adapters; what they know of uncertainty."""

import json
import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import torch
from toy_language import COMPUTE, FIXED, Tables, good_share, preference_row, reward_spec, sentence, write
from transformers import AutoModelForSequenceClassification

from rlhf_dagster.config.training import LoraSettings, RewardModelSettings
from rlhf_dagster.errors import UserError
from rlhf_dagster.evaluation.reward_accuracy import reward_accuracy
from rlhf_dagster.lineage.model_folders import folder_digest
from rlhf_dagster.records.outcome import ranks_from_ratings, target
from rlhf_dagster.records.schemas import PREFERENCES
from rlhf_dagster.training.models.policies import load_policy
from rlhf_dagster.training.reward.heads import normalise
from rlhf_dagster.training.reward.normalisation import reference_samples
from rlhf_dagster.training.reward.scores import (
    load_reward_model,
    score_by_heads,
    score_responses,
    score_tokens,
    score_with_spread,
)
from rlhf_dagster.training.reward.train import initial_reward_model, train_reward_model
from rlhf_dagster.training.runtime.resuming import Checkpointing, TrainingStopped
from rlhf_dagster.training.specs import RewardModelSpec, TrainingResult
from rlhf_dagster.training.texts.tokens import pad

Train = Callable[..., TrainingResult]
EVERYTHING = RewardModelSettings(
    batch_size=16,
    learning_rate=1e-2,
    max_tokens=16,
    normalisation_samples=64,
    ties="davidson",
    rating="differences",
    margin=0.5,
    heads=3,
    lora=LoraSettings(rank=2),
)


def label(index: int, rng: random.Random, kind: str) -> dict[str, Any]:
    """A label of this kind, with noise, of what the toy language calls good."""
    responses = [sentence(rng, 5) for _ in range(2 if kind == "pair" else 4)]
    ratings = [good_share(response) + rng.randint(3, 4) for response in responses]
    ranks = ranks_from_ratings(ratings)
    if kind == "best_of_k":
        ranks = [min(rank, 2) for rank in ranks]
    decided = kind == "pair" and len(set(ranks)) == 2
    return preference_row(index, "red dog .", responses) | {
        "kind": kind,
        "ranks": ranks,
        "target": target(ranks),
        "strength": rng.choice((0.5, 1.0)) if decided else None,
        "ratings": ratings if kind == "rating" else None,
    }


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """120 labels, of all four kinds."""
    rng, kinds = random.Random(3), ("pair", "best_of_k", "ranking", "rating")
    rows = [label(index, rng, kinds[index % 4]) for index in range(120)]
    return write(tmp_path_factory.mktemp("mixed"), "preferences", rows, PREFERENCES)


@pytest.fixture(scope="module")
def spec(sft: Path, tables: Tables, mixed: Path, tmp_path_factory: pytest.TempPathFactory) -> RewardModelSpec:
    made = reward_spec(sft, tables, tmp_path_factory.mktemp("everything") / "reward")
    return replace(made, preferences=mixed, settings=EVERYTHING)


@pytest.fixture(scope="module")
def everything(spec: RewardModelSpec) -> TrainingResult:
    return train_reward_model(spec)


def order_of(folder: Path) -> float:
    """Correlation of scores with what the toy language calls good."""
    rng = random.Random(11)
    responses = [sentence(rng, 5) for _ in range(200)]
    scores = score_responses(folder, ["red dog ."] * 200, responses, FIXED, COMPUTE)
    return float(np.corrcoef(scores, [good_share(response) for response in responses])[0, 1])


@pytest.mark.parametrize(
    "changes",
    [
        {"ranking": "pairs", "ties": "rao_kupper"},
        {"ties": "davidson", "soft_targets": True},
        {"rating": "regression"},
        {"rating": "differences", "margin": 0.5},
        {"heads": 3},
        {"lora": {"rank": 4}, "learning_rate": 2e-2},
    ],
    ids=str,
)
def test_every_setting_learns_the_order_from_a_mixture_of_kinds(
    spec: RewardModelSpec, changes: dict[str, Any], tmp_path: Path
) -> None:
    plain = RewardModelSettings(epochs=12, batch_size=16, learning_rate=5e-3, max_tokens=16, normalisation_samples=64)
    result = train_reward_model(replace(spec, settings=plain.changed(**changes), output=tmp_path / "reward"))
    assert order_of(result.folder) > 0.8


def test_the_checkpoint_of_everything_is_a_plain_classifier(everything: TrainingResult, sft: Path) -> None:
    model = AutoModelForSequenceClassification.from_pretrained(everything.folder)
    assert model.config.num_labels == 3
    assert len(json.loads((everything.folder / "config.json").read_text())["score_bias"]) == 3
    assert {name for name, _ in model.named_parameters()} == {
        *(name for name, _ in load_policy(sft, COMPUTE).model.named_parameters()),
        "score.weight",
    }
    changed = dict(model.named_parameters())["transformer.h.0.attn.c_attn.weight"]
    before = dict(load_policy(sft, COMPUTE).model.named_parameters())["transformer.h.0.attn.c_attn.weight"]
    # The adapters are in the weights: a change of rank 2.
    assert torch.linalg.matrix_rank(changed - before, rtol=1e-3) == 2
    assert everything.metrics["tie_prevalence_2"] > 0
    assert everything.metrics["reference_mean"] == pytest.approx(0, abs=1e-5)
    assert everything.metrics["reference_std"] == pytest.approx(1, abs=1e-5)


def test_taken_up_again_with_everything_it_ends_as_if_it_had_not_been_stopped(
    spec: RewardModelSpec, everything: TrainingResult, tmp_path: Path
) -> None:
    reasons = iter(["", "", "", "", "enough"])
    again = replace(spec, output=tmp_path / "again")
    with pytest.raises(TrainingStopped, match="enough"):
        train_reward_model(again, checkpointing=Checkpointing(tmp_path / "state", 3600, lambda: next(reasons)))
    steps: list[int] = []
    result = train_reward_model(
        again, lambda step, *_, **__: steps.append(step), Checkpointing(tmp_path / "state", 3600)
    )
    assert steps[0] == 6
    assert folder_digest(result.folder) == folder_digest(everything.folder)
    assert (result.curves, result.metrics) == (everything.curves, everything.metrics)


def test_the_score_is_the_mean_of_the_heads(everything: TrainingResult) -> None:
    model = load_reward_model(everything.folder, COMPUTE)
    ids = [model.tokenizer("red dog . good good").input_ids, model.tokenizer("bad").input_ids]
    batch = pad(ids, model.tokenizer.pad_token_id, "right")
    with torch.no_grad():
        logits = torch.stack([model.model(torch.tensor([row])).logits[0] for row in ids])
        heads = logits + torch.tensor(model.model.config.score_bias)
        torch.testing.assert_close(score_tokens(model.model, batch), heads.mean(dim=1), atol=1e-5, rtol=0)
    scores = score_with_spread(model, ["red dog .", "bad"], ["good good", ""], FIXED)
    np.testing.assert_allclose(scores.spread, heads.std(dim=1, correction=0), atol=1e-5)
    np.testing.assert_allclose(scores.mean, heads.mean(dim=1), atol=1e-5)
    each = score_by_heads(model, ["red dog .", "bad"], ["good good", ""], FIXED)
    np.testing.assert_allclose(each, heads, atol=1e-5)


def test_normalising_heads_sets_each_before_training_and_their_mean_after(spec: RewardModelSpec) -> None:
    model = initial_reward_model(spec)
    reference = reference_samples(spec, load_policy(spec.sft, COMPUTE))
    batch = pad(reference, model.tokenizer.pad_token_id, "right")

    def heads() -> np.ndarray:
        with torch.no_grad():
            return (model.model(**batch._asdict()).logits + torch.tensor(model.model.config.score_bias)).numpy()

    normalise(model, reference, each_head=True)
    np.testing.assert_allclose((heads().mean(axis=0), heads().std(axis=0)), ([0] * 3, [1] * 3), atol=1e-4)
    before = heads()
    scale = normalise(model, reference)
    assert scale == pytest.approx(before.mean(axis=1).std(), rel=1e-4)
    np.testing.assert_allclose(heads(), before / scale, atol=1e-3)


def test_heads_disagree_more_where_there_were_no_labels(spec: RewardModelSpec, tmp_path: Path) -> None:
    """No label is about a text with an end token in its middle."""
    settings = EVERYTHING.changed(heads=5, lora=None, learning_rate=5e-3, epochs=6)
    folder = train_reward_model(replace(spec, settings=settings, output=tmp_path / "reward")).folder
    rng = random.Random(5)
    known = [sentence(rng, 5) for _ in range(100)]
    unknown = [" ".join("<eos>" if rng.random() < 0.5 else word for word in text.split()) for text in known]
    spreads = [
        score_with_spread(folder, ["red dog ."] * 100, texts, FIXED, COMPUTE).spread for texts in (known, unknown)
    ]
    assert np.median(spreads[1]) > 2 * np.median(spreads[0])


def rankings(count: int, seed: int, split: str) -> list[dict[str, Any]]:
    """Orders of four drawn from the Plackett-Luce model, whose utility is what the toy language calls good."""
    rng, noise, rows = random.Random(seed), np.random.default_rng(seed), []
    for number in range(count):
        responses = [sentence(rng, 5) for _ in range(4)]
        utilities = [good_share(response) + noise.gumbel() for response in responses]
        ranks = ranks_from_ratings(utilities)  # type: ignore[arg-type]
        row = preference_row(number, "red dog .", responses) | {"kind": "ranking", "ranks": ranks}
        rows.append(row | {"target": target(ranks), "split": split, "label_id": f"{split}{number}"})
    return rows


@pytest.mark.parametrize("ranking", ["plackett_luce", "pairs"])
def test_synthetic_rankings_give_back_order_and_probabilities(
    ranking: str, sft: Path, tables: Tables, tmp_path: Path
) -> None:
    held_out = pd.DataFrame(rankings(400, 2, "validation"))
    path = write(tmp_path, "rankings", rankings(500, 1, "train"), PREFERENCES)
    made = replace(reward_spec(sft, tables, tmp_path / "reward"), preferences=path)
    result = train_reward_model(replace(made, settings=made.settings.changed(epochs=4, ranking=ranking)))
    assert order_of(result.folder) > 0.9
    texts = [text for texts in held_out["responses"] for text in texts]
    scores = score_responses(result.folder, ["red dog ."] * len(texts), texts, FIXED, COMPUTE).reshape(-1, 4)
    errors = [
        reward_accuracy(held_out, list(scores), factor * result.metrics["score_scale"])["splits"]["validation"][
            "calibration_error"
        ]
        for factor in (1, 1 / 3, 3)
    ]
    # Scores a third or three times as large would predict the same order, with wrong probabilities.
    assert errors[0] < 0.08 < min(errors[1:])


def test_older_tables_lack_columns_that_only_some_settings_need(
    spec: RewardModelSpec, mixed: Path, tmp_path: Path
) -> None:
    older = pq.read_table(mixed).drop(["strength", "ratings"])
    pq.write_table(older, tmp_path / "older.parquet")
    small = spec.settings.changed(ties="share", rating="ranks", margin=0.0, heads=1, lora=None, epochs=1)
    made = replace(spec, preferences=tmp_path / "older.parquet", settings=small, output=tmp_path / "reward")
    assert train_reward_model(made).metrics["comparisons"] == 105
    for changes, problem in (
        ({"margin": 1.0}, r"no label has a strength, which `reward_model\.margin` needs"),
        ({"soft_targets": True}, r"which `reward_model\.soft_targets` needs"),
        ({"rating": "regression"}, r"needs a rating of each response for `reward_model\.rating: regression`"),
    ):
        with pytest.raises(UserError, match=problem):
            train_reward_model(replace(made, settings=small.changed(**changes)))


def test_strength_is_used_once() -> None:
    with pytest.raises(UserError, match="two uses of the same strength"):
        RewardModelSettings.parse({"margin": 1.0, "soft_targets": True}, "f")
