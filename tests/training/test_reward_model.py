import json
import random
from dataclasses import replace
from math import inf, nan
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import torch
from toy_language import COMPUTE, FIXED, VARIABLE, Tables, good_share, preference_row, reward_spec, sentence, write
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from rlhf_dagster.config.training import SamplingSettings
from rlhf_dagster.errors import UserError
from rlhf_dagster.lineage.model_folders import folder_digest
from rlhf_dagster.records.schemas import PREFERENCES, PROMPTS
from rlhf_dagster.training.models.policies import load_policy
from rlhf_dagster.training.reward.heads import center, normalise, score_sequences
from rlhf_dagster.training.reward.labels import collate_labels, encode_labels, label_scores
from rlhf_dagster.training.reward.normalisation import reference_samples
from rlhf_dagster.training.reward.scores import encode_pairs, load_reward_model, score_responses
from rlhf_dagster.training.reward.train import initial_reward_model, train_reward_model
from rlhf_dagster.training.runtime.resuming import decisive
from rlhf_dagster.training.sampling.sample import sample
from rlhf_dagster.training.specs import RewardModelSpec, TrainingResult


@pytest.fixture(scope="module")
def trained(sft: Path, tables: Tables, tmp_path_factory: pytest.TempPathFactory) -> TrainingResult:
    return train_reward_model(reward_spec(sft, tables, tmp_path_factory.mktemp("models") / "reward"))


def test_it_learns_the_order_from_labels_of_mixed_size(trained: TrainingResult) -> None:
    rng = random.Random(11)
    responses = [sentence(rng, 5) for _ in range(300)]
    scores = score_responses(trained.folder, ["red dog ."] * 300, responses, FIXED, COMPUTE)
    assert np.corrcoef(scores, [good_share(response) for response in responses])[0, 1] > 0.8
    assert trained.metrics["accuracy_validation"] > 0.7


def test_scores_do_not_depend_on_how_many_rows_are_read_at_once(
    trained: TrainingResult, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = load_reward_model(trained.folder)
    sequences = [[5 + at % 3] * (1 + at % 7) for at in range(23)]
    whole = score_sequences(model, sequences)
    monkeypatch.setattr("rlhf_dagster.training.reward.memory.SCORED_TOKENS", 20)
    np.testing.assert_allclose(score_sequences(model, sequences), whole, atol=1e-5)
    assert trained.metrics["comparisons"] + trained.metrics["labels_validation"] == 400


def test_scores_have_mean_0_and_deviation_1_on_fresh_samples_of_the_sft_policy(
    trained: TrainingResult, sft: Path, tables: Tables
) -> None:
    assert trained.metrics["reference_mean"] == pytest.approx(0, abs=1e-5)
    assert trained.metrics["reference_std"] == pytest.approx(1, abs=1e-5)
    frame = pq.read_table(tables.prompts).to_pandas()
    prompts = frame[frame["split"] == "train"]["text"].tolist()
    samples = sample(sft, prompts, FIXED, 99, 8, compute=COMPUTE)
    repeated = [prompt for prompt in prompts for _ in range(8)]
    scores = score_responses(trained.folder, repeated, [drawn.text for drawn in samples], FIXED, COMPUTE)
    # The gain and bias come from 128 samples: their errors are about 1 / sqrt(128) and 1 / sqrt(256).
    assert abs(scores.mean()) < 0.35
    assert 0.75 < scores.std() < 1.3


def test_normalising_keeps_the_order_and_is_exact(sft: Path, tables: Tables, tmp_path: Path) -> None:
    spec = reward_spec(sft, tables, tmp_path / "reward")
    reward_model = initial_reward_model(spec)
    reference = reference_samples(spec, load_policy(sft, COMPUTE))
    before = score_sequences(reward_model, reference)
    normalise(reward_model, reference)
    after = score_sequences(reward_model, reference)
    np.testing.assert_allclose(after, (before - before.mean()) / before.std(), atol=1e-5)


def by_demonstrations(spec: RewardModelSpec, tables: Tables) -> RewardModelSpec:
    settings = spec.settings.changed(normalisation="demonstrations")
    return replace(spec, settings=settings, demonstrations=tables.demonstrations)


@pytest.mark.parametrize("heads", [1, 2])
def test_the_mean_alone_is_fixed_on_demonstrations(sft: Path, tables: Tables, tmp_path: Path, heads: int) -> None:
    spec = by_demonstrations(reward_spec(sft, tables, tmp_path / "reward"), tables)
    result = train_reward_model(replace(spec, settings=spec.settings.changed(heads=heads)))
    frame = pq.read_table(tables.demonstrations).to_pandas()
    rows = frame[frame["split"] == "train"]
    scores = score_responses(result.folder, rows["prompt"].tolist(), rows["response"].tolist(), FIXED, COMPUTE)
    # Of all demonstrations, since normalisation_samples allows more than there are.
    assert scores.mean() == pytest.approx(0, abs=1e-5)
    assert result.metrics["reference_mean"] == pytest.approx(0, abs=1e-5)
    assert result.metrics["reference_std"] == pytest.approx(scores.std(), rel=1e-4)
    assert abs(scores.std() - 1) > 0.05
    assert result.metrics["score_scale"] == 1.0


def test_centering_keeps_differences(sft: Path, tables: Tables, tmp_path: Path) -> None:
    spec = reward_spec(sft, tables, tmp_path / "reward")
    reward_model = initial_reward_model(spec)
    reference = reference_samples(spec, load_policy(sft, COMPUTE))
    before = score_sequences(reward_model, reference)
    center(reward_model, reference)
    np.testing.assert_allclose(score_sequences(reward_model, reference), before - before.mean(), atol=1e-6)


def test_demonstrations_are_given_where_they_are_read(sft: Path, tables: Tables, tmp_path: Path) -> None:
    spec = reward_spec(sft, tables, tmp_path / "reward")
    with pytest.raises(UserError, match="needs a table of them"):
        train_reward_model(replace(by_demonstrations(spec, tables), demonstrations=None))
    with pytest.raises(UserError, match="does not read them"):
        train_reward_model(replace(spec, demonstrations=tables.demonstrations))
    assert "demonstrations" not in decisive(spec)
    assert decisive(by_demonstrations(spec, tables))["demonstrations"]


def test_the_head_begins_with_deviation_one_over_root_d_plus_one(sft: Path, tables: Tables, tmp_path: Path) -> None:
    head = initial_reward_model(reward_spec(sft, tables, tmp_path)).model.score.weight
    # Of 32 draws: the deviation is known to about 1 / sqrt(64) of itself.
    assert head.std().item() == pytest.approx(1 / 33**0.5, rel=0.4)


def test_plain_transformers_opens_it(trained: TrainingResult) -> None:
    model = AutoModelForSequenceClassification.from_pretrained(trained.folder)
    tokenizer = AutoTokenizer.from_pretrained(trained.folder)
    bias = json.loads((trained.folder / "config.json").read_text())["score_bias"]
    with torch.no_grad():
        plain = model(**tokenizer("red dog . good good cat", return_tensors="pt")).logits[0, 0].item() + bias
    ours = score_responses(trained.folder, ["red dog ."], ["good good cat"], FIXED, COMPUTE)[0]
    assert ours == pytest.approx(plain, abs=1e-5)


def test_padding_and_company_do_not_change_a_score(trained: TrainingResult) -> None:
    model = load_reward_model(trained.folder, COMPUTE)
    prompts = ["red", "good cat dog bad .", "cat"]
    responses = ["dog", "good good bad red green", "bad bad"]
    together = score_responses(model, prompts, responses, FIXED)
    alone = [score_responses(model, [p], [r], FIXED)[0] for p, r in zip(prompts, responses, strict=True)]
    np.testing.assert_allclose(together, alone, atol=1e-5)


def test_scores_reach_the_right_label(sft: Path, tables: Tables, tmp_path: Path) -> None:
    spec = reward_spec(sft, tables, tmp_path / "reward")
    reward_model = initial_reward_model(spec)
    rows = [preference_row(0, "red", ["dog", "cat cat"]), preference_row(1, "blue .", ["bad", "good", "good red"])]
    labels = encode_labels(pd.DataFrame(rows), reward_model.tokenizer, spec)
    batch = collate_labels(labels, reward_model.tokenizer.pad_token_id)
    assert batch["mask"].tolist() == [[1, 1, 0], [1, 1, 1]]
    torch.testing.assert_close(batch["target"], torch.tensor([[0.5, 0.5, 0], [0, 0.5, 0.5]]))
    with torch.no_grad():
        scores = label_scores(reward_model.model, batch)
    flat = score_responses(
        reward_model,
        ["red", "red", "blue .", "blue .", "blue ."],
        ["dog", "cat cat", "bad", "good", "good red"],
        FIXED,
    )
    np.testing.assert_allclose(scores[0, :2].numpy(), flat[:2], atol=1e-5)
    np.testing.assert_allclose(scores[1].numpy(), flat[2:], atol=1e-5)


def test_the_score_is_read_at_the_end_token_where_lengths_vary(sft: Path) -> None:
    tokenizer = load_policy(sft, COMPUTE).tokenizer
    for sampling, expected in ((FIXED, "red dog cat"), (VARIABLE, "red dog cat <eos>")):
        assert tokenizer.decode(encode_pairs(tokenizer, ["red dog"], ["cat"], sampling, 16)[0]) == expected


def test_a_long_response_is_cut_before_the_end_token(sft: Path) -> None:
    tokenizer = load_policy(sft, COMPUTE).tokenizer
    for sampling, expected in ((FIXED, "red dog cat bad good"), (VARIABLE, "red dog cat bad <eos>")):
        ids = encode_pairs(tokenizer, ["red dog"], ["cat bad good ."], sampling, 5)[0]
        assert tokenizer.decode(ids) == expected


@pytest.mark.parametrize("sampling", [FIXED, VARIABLE])
def test_a_response_is_scored_at_the_length_of_training(trained: TrainingResult, sampling: SamplingSettings) -> None:
    model = load_reward_model(trained.folder, COMPUTE)
    assert model.model.config.score_max_tokens == 16
    fits = " ".join(["cat", "dog"] * 7)[: None if sampling.fixed_length else -len(" dog")]
    fitting, longer = score_responses(model, ["red ."] * 2, [fits, f"{fits} good good"], sampling)
    assert longer == pytest.approx(fitting, abs=1e-5)
    assert abs(score_responses(model, ["red ."], [fits.replace("dog", "good")], sampling)[0] - fitting) > 0.1


@pytest.mark.parametrize(("sampling", "needed"), [(FIXED, 11), (VARIABLE, 12)])
def test_a_sampled_response_must_fit(
    sft: Path, tables: Tables, tmp_path: Path, sampling: SamplingSettings, needed: int
) -> None:
    spec = replace(reward_spec(sft, tables, tmp_path), sampling=sampling)
    exact = initial_reward_model(replace(spec, settings=spec.settings.changed(max_tokens=needed)))
    assert exact.model.config.score_max_tokens == needed
    short = replace(spec, settings=spec.settings.changed(max_tokens=needed - 1))
    with pytest.raises(UserError, match=rf"reward_model\.max_tokens is {needed - 1} but .* up to {needed} tokens"):
        initial_reward_model(short)


def test_the_same_seed_makes_the_same_weights(
    trained: TrainingResult, sft: Path, tables: Tables, tmp_path: Path
) -> None:
    again = train_reward_model(reward_spec(sft, tables, tmp_path / "again"))
    assert folder_digest(again.folder) == folder_digest(trained.folder)
    assert again.metrics == trained.metrics


def test_bad_labels_are_user_errors(sft: Path, tables: Tables, tmp_path: Path) -> None:
    spec = reward_spec(sft, tables, tmp_path / "reward")
    row = preference_row(0, "red", ["dog", "good"])
    cases = [(row | {"target": [0.5, 0.2]}, "sum to 1"), (row | {"target": [1.0]}, "as many targets")]
    cases += [(row | {"target": [1.5, -0.5]}, "is negative")]
    cases += [(row | {"weight": weight}, "weight (0|-1|inf), which must be") for weight in (0.0, -1.0, inf)]
    cases += [(row | {"weight": nan}, "column 'weight' is null in row 1")]
    for bad, problem in cases:
        path = write(tmp_path, "bad", [bad], PREFERENCES)
        with pytest.raises(UserError, match=problem):
            train_reward_model(replace(spec, preferences=path))
    with pytest.raises(UserError, match="not a reward model"):
        load_reward_model(_classifier_without_bias(sft, tmp_path / "plain"), COMPUTE)
    with pytest.raises(UserError, match=r"no row of split 'train'"):
        train_reward_model(replace(spec, prompts=write(tmp_path, "none", [], PROMPTS)))


def _classifier_without_bias(sft: Path, folder: Path) -> Path:
    model = AutoModelForSequenceClassification.from_pretrained(sft, num_labels=1)
    model.save_pretrained(folder)
    return folder
