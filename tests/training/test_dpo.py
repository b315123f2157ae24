"""DPO: losses by hand, pairs of every kind of label, and a bandit whose optimum is known."""

import math
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from toy_language import COMPUTE, FIXED, VARIABLE, Tables, dpo_spec, preference_row, write

from rlhf_dagster.config.training import LoraSettings, SamplingSettings
from rlhf_dagster.errors import UserError
from rlhf_dagster.lineage.model_folders import folder_digest
from rlhf_dagster.records.kinds import ORDERED_KINDS
from rlhf_dagster.records.schemas import PREFERENCES
from rlhf_dagster.records.tables import read_table
from rlhf_dagster.training.dpo.losses import dpo_loss, ipo_loss, pair_numbers, smoothed
from rlhf_dagster.training.dpo.objectives import response_log_prob_sums
from rlhf_dagster.training.dpo.pairs import Pair, collate_pairs, encode_comparisons, label_pairs, merged_pairs
from rlhf_dagster.training.dpo.train import train_dpo
from rlhf_dagster.training.models.log_probs import decoding_of
from rlhf_dagster.training.models.policies import Policy, load_policy
from rlhf_dagster.training.sampling.sample import response_log_probs


def label(kind: str, target: list[float], ranks: list[int] | None = None, weight: float = 1.0) -> dict:
    return {"kind": kind, "target": target, "ranks": ranks, "weight": weight}


def test_losses_by_hand() -> None:
    h, preferred = torch.tensor([2.0, 2.0, 2.0]), torch.tensor([1.0, 0.0, 0.5])
    won, lost = math.log1p(math.exp(-1.0)), math.log1p(math.exp(1.0))  # beta h is 1
    torch.testing.assert_close(dpo_loss(h, preferred, 0.5), torch.tensor([won, lost, (won + lost) / 2]))
    # IPO's goal is 1 / (2 beta) = 1: squared errors of 2 to 1 and to -1.
    torch.testing.assert_close(ipo_loss(h, preferred, 0.5), torch.tensor([1.0, 9.0, 5.0]))


def test_label_smoothing_is_conservative_dpo() -> None:
    """Mitchell 2023: -(1 - e) log sigmoid(beta h) - e log sigmoid(-beta h)."""
    h, e, beta = torch.tensor([3.0, -1.0]), 0.1, 0.2
    expected = -(1 - e) * torch.sigmoid(beta * h).log() - e * torch.sigmoid(-beta * h).log()
    torch.testing.assert_close(dpo_loss(h, smoothed(torch.ones(2), e), beta), expected)
    torch.testing.assert_close(dpo_loss(-h, smoothed(torch.zeros(2), e), beta), expected)


@given(st.floats(-5, 5), st.floats(0, 1), st.floats(0.01, 2))
def test_either_order_of_the_responses_gives_the_same_loss(h: float, preferred: float, beta: float) -> None:
    for loss in (dpo_loss, ipo_loss):
        one = loss(torch.tensor([h]), torch.tensor([preferred]), beta)
        other = loss(torch.tensor([-h]), torch.tensor([1 - preferred]), beta)
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("preferred", [0.9, 0.6])
def test_a_soft_preference_is_met_at_its_log_odds(preferred: float) -> None:
    beta = 0.5
    h = torch.tensor([math.log(preferred / (1 - preferred)) / beta], requires_grad=True)
    dpo_loss(h, torch.tensor([preferred]), beta).sum().backward()
    assert h.grad is not None
    assert abs(float(h.grad)) < 1e-6


def test_an_untrained_policy_is_right_half_of_the_time() -> None:
    h, preferred = torch.tensor([0.0, 1e-6, -1e-6, 2.0]), torch.tensor([1.0, 0.0, 1.0, 1.0])
    assert pair_numbers(h, preferred, torch.tensor([1.0, 1.0, 1.0, 1.0]), 0.1)["accuracy"].item() == (3 / 2 + 1) / 4


def test_ties_are_neither_right_nor_wrong() -> None:
    h, preferred, weight = torch.tensor([2.0, 3.0, 9.0]), torch.tensor([1.0, 0.0, 0.5]), torch.tensor([3.0, 1.0, 5.0])
    numbers = pair_numbers(h, preferred, weight, beta=0.1)
    assert float(numbers["accuracy"]) == pytest.approx(0.75)
    assert float(numbers["reward_margin"]) == pytest.approx(0.1 * (3 * 2 - 3) / 4)
    assert float(numbers["decided"]) == 4
    assert float(pair_numbers(h[2:], preferred[2:], weight[2:], 0.1)["accuracy"]) == 0


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        (label("pair", [0.0, 1.0], weight=2.0), [(0, 1, 0.0, 2.0)]),
        (label("pair", [0.5, 0.5]), [(0, 1, 0.5, 1.0)]),
        (label("best_of_k", [0.0, 1.0, 0.0], weight=3.0), [(0, 1, 0.0, 1.5), (1, 2, 1.0, 1.5)]),
        (label("best_of_k", [0.5, 0.5, 0.0]), [(0, 1, 0.5, 1 / 3), (0, 2, 1.0, 1 / 3), (1, 2, 1.0, 1 / 3)]),
        (label("ranking", [0.0, 1.0, 0.0], [2, 1, 3], 3.0), [(0, 1, 0.0, 1.0), (0, 2, 1.0, 1.0), (1, 2, 1.0, 1.0)]),
        (label("rating", [1.0, 0.0, 0.0], [1, 2, 2]), [(0, 1, 1.0, 1 / 3), (0, 2, 1.0, 1 / 3), (1, 2, 0.5, 1 / 3)]),
    ],
)
def test_a_label_of_each_kind_gives_pairs_that_share_its_weight(row: dict, expected: list[tuple]) -> None:
    assert label_pairs(row) == [Pair(*pair) for pair in expected]
    assert sum(pair.weight for pair in label_pairs(row)) == pytest.approx(row["weight"])


def test_labels_of_one_comparison_are_merged_without_changing_the_loss() -> None:
    labels = [label("pair", [1.0, 0.0]), label("pair", [0.0, 1.0], weight=2.0), label("pair", [0.5, 0.5])]
    merged, h = merged_pairs(labels), torch.tensor([0.7])
    assert merged == [Pair(0, 1, pytest.approx(1.5 / 4), 4.0)]
    for loss in (dpo_loss, ipo_loss):
        apart = sum(
            pair.weight * loss(h, torch.tensor([pair.preferred]), 0.3) for row in labels for pair in label_pairs(row)
        )
        torch.testing.assert_close(4 * loss(h, torch.tensor([merged[0].preferred]), 0.3), apart)


def test_responses_are_what_the_policy_could_have_sampled(policy: Policy) -> None:
    frame = pd.DataFrame([preference_row(0, "red dog", ["good cat", "bad " * 9])])
    for sampling, ends in ((FIXED, ""), (VARIABLE, " <eos>")):
        [comparison] = encode_comparisons(frame, policy.tokenizer, sampling)
        texts = [policy.tokenizer.decode(ids) for ids in comparison.responses]
        assert texts == ["good cat" + ends, "bad bad bad bad bad"]


def test_a_batch_holds_each_response_once_and_points_to_it(policy: Policy) -> None:
    frame = pd.DataFrame(
        [preference_row(0, "red", ["good", "bad dog"]), preference_row(1, "blue cat", ["bad", "good", "dog"])]
    )
    rows = encode_comparisons(frame, policy.tokenizer, FIXED)
    batch = collate_pairs(rows, [torch.zeros(2), torch.ones(3)], policy.tokenizer.pad_token_id)
    assert batch["input_ids"].shape == (5, 4)
    assert batch["reference"].tolist() == [0, 0, 1, 1, 1]
    assert list(zip(batch["first"].tolist(), batch["second"].tolist(), batch["preferred"].tolist(), strict=True)) == [
        (0, 1, 1.0),
        (2, 3, 0.0),
        (3, 4, 1.0),
    ]
    assert batch["weight"].tolist() == [1.0, 0.5, 0.5]


@pytest.mark.parametrize("sampling", [FIXED, VARIABLE])
def test_a_response_counts_by_the_sum_of_its_tokens(policy: Policy, sampling: SamplingSettings) -> None:
    responses = ["good", "bad dog cat", "blue . red good dog"]
    [comparison] = encode_comparisons(
        pd.DataFrame([preference_row(0, "red dog", responses)]), policy.tokenizer, sampling
    )
    batch = collate_pairs([comparison], [torch.zeros(3)], policy.tokenizer.pad_token_id)
    tokens = response_log_probs(policy, ["red dog"] * 3, comparison.responses, sampling)
    sums = response_log_prob_sums(policy.model, batch, decoding_of(policy.tokenizer, sampling))
    assert sums.tolist() == pytest.approx([sum(row) for row in tokens], abs=1e-5)


@pytest.mark.parametrize("loss", ["dpo", "ipo"])
def test_it_learns_to_prefer_what_the_labels_prefer(sft: Path, tables: Tables, tmp_path: Path, loss: str) -> None:
    spec = dpo_spec(sft, tables, tmp_path / "dpo")
    spec = replace(spec, settings=spec.settings.changed(epochs=6, loss=loss))
    result = train_dpo(spec)
    assert result.metrics["accuracy_train"] > 0.8
    assert result.metrics["accuracy_validation"] > 0.7
    assert result.curves["reward_margin"][0] == pytest.approx(0, abs=1e-5)  # the policy is its own reference
    assert {len(curve) for curve in result.curves.values()} == {6 * 22}


def test_the_first_loss_is_log_2(sft: Path, tables: Tables, tmp_path: Path) -> None:
    result = train_dpo(dpo_spec(sft, tables, tmp_path / "dpo"))
    assert result.curves["loss"][0] == pytest.approx(math.log(2), abs=1e-4)


def test_adapters_are_merged_into_a_plain_checkpoint(sft: Path, tables: Tables, tmp_path: Path) -> None:
    spec = dpo_spec(sft, tables, tmp_path / "dpo")
    lora = spec.settings.changed(lora=LoraSettings(rank=4), learning_rate=2e-2, epochs=4)
    result = train_dpo(replace(spec, settings=lora))
    assert result.metrics["accuracy_validation"] > 0.7
    assert {file.name for file in result.folder.iterdir()} == {file.name for file in sft.iterdir()}
    trained, reference = load_policy(result.folder, COMPUTE), load_policy(sft, COMPUTE)
    assert trained.model.state_dict().keys() == reference.model.state_dict().keys()


def test_the_same_seed_makes_the_same_weights(sft: Path, tables: Tables, tmp_path: Path) -> None:
    one, two = (train_dpo(dpo_spec(sft, tables, tmp_path / name)).folder for name in ("one", "two"))
    assert folder_digest(one) == folder_digest(two)


def test_tokens_that_cannot_be_drawn_do_not_count(sft: Path, tables: Tables, tmp_path: Path) -> None:
    rows = [preference_row(i, "red", ["good xylophone", "bad dog"]) for i in range(20)]
    path = write(tmp_path, "unknown", rows, PREFERENCES)
    result = train_dpo(replace(dpo_spec(sft, tables, tmp_path / "dpo"), preferences=path))
    assert all(math.isfinite(value) for value in result.metrics.values())
    assert result.metrics["accuracy_train"] == 1


def test_rankings_and_ratings_that_were_written_and_read_become_pairs(tmp_path: Path) -> None:
    ranked = {"kind": "ranking", "ranks": [2, 1, 2], "target": [0.0, 1.0, 0.0]}
    rows = [preference_row(0, "red", ["good", "bad", "dog"]) | ranked | {"kind": kind} for kind in ORDERED_KINDS]
    read = read_table(write(tmp_path, "ranked", rows, PREFERENCES), PREFERENCES).to_dict("records")
    expected = [Pair(0, 1, 0.0, 1 / 3), Pair(0, 2, 0.5, 1 / 3), Pair(1, 2, 1.0, 1 / 3)]
    assert [label_pairs(row) for row in read] == [expected] * len(ORDERED_KINDS)


def test_bad_input_is_a_user_error(sft: Path, tables: Tables, tmp_path: Path) -> None:
    spec = dpo_spec(sft, tables, tmp_path / "dpo")
    rows = [preference_row(0, "red", ["good", "bad"]) | {"target": [0.5, 0.4]}]
    polls = [preference_row(0, "red", ["good", "bad"]) | {"kind": "poll"}]
    cases = {
        "one": (replace(spec, preferences=tmp_path / "none.parquet"), "no such table"),
        "kind": (replace(spec, preferences=write(tmp_path, "poll", polls, PREFERENCES)), "kind 'poll'.*best_of_k"),
        "two": (replace(spec, preferences=write(tmp_path, "bad", rows, PREFERENCES)), "does not sum to 1"),
        "three": (replace(spec, sampling=FIXED.changed(response_tokens=64)), "context"),
    }
    for wrong, problem in cases.values():
        with pytest.raises(UserError, match=problem):
            train_dpo(wrong)
    assert not spec.output.exists()
