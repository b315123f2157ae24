"""KTO: its loss by hand, what labels and feedback say about responses, its reference point, and what it learns."""

import math
from dataclasses import replace
from itertools import product
from pathlib import Path

import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from toy_language import COMPUTE, FIXED, Tables, dpo_spec, preference_row, write

from rlhf_dagster.config.training import DpoSettings, LoraSettings
from rlhf_dagster.errors import UserError
from rlhf_dagster.lineage.model_folders import folder_digest
from rlhf_dagster.records.schemas import FEEDBACK, PREFERENCES
from rlhf_dagster.records.tables import read_table
from rlhf_dagster.training.dpo.losses import kto_loss, pair_numbers
from rlhf_dagster.training.dpo.objectives import objective_of
from rlhf_dagster.training.dpo.pairs import collate_pairs, encode_comparisons
from rlhf_dagster.training.dpo.singles import KindWeights, Opinion, beside_others, encode_singles, kind_weights
from rlhf_dagster.training.dpo.train import Comparisons, measure, reference_log_probs, train_dpo
from rlhf_dagster.training.models.log_probs import decoding_of
from rlhf_dagster.training.models.policies import Policy, load_policy
from rlhf_dagster.training.runtime.resuming import Checkpointing, TrainingStopped
from rlhf_dagster.training.sampling.sample import response_log_probs
from rlhf_dagster.training.specs import DpoSpec

KTO = DpoSettings(loss="kto", batch_size=16, learning_rate=3e-3)


def thought(number: int, prompt: str, response: str, liked: bool, weight: float = 1.0, split: str = "train") -> dict:
    return {
        "feedback_id": str(number),
        "prompt_id": prompt,
        "prompt": prompt,
        "messages": None,
        "response": response,
        "liked": liked,
        "weight": weight,
        "user": "",
        "source": "",
        "split": split,
    }


def said_of(policy: Policy, labels: list[dict], feedback: list[dict]) -> dict[tuple[str, str], tuple[float, float]]:
    frame = pd.DataFrame(labels)
    read = policy.tokenizer.decode
    found = encode_singles(frame, pd.DataFrame(feedback) if feedback else None, policy.tokenizer, FIXED)
    return {(read(one.prompt), read(one.response)): (one.liked, one.disliked) for one in found}


def test_loss_by_hand() -> None:
    """Ethayarajh et al. 2024, equation 8, with both weights 1: 1 - sigmoid(beta h), and 1 - sigmoid(-beta h)."""
    h, liked = torch.tensor([2.0, 2.0, 2.0]), torch.tensor([1.0, 0.0, 0.75])
    up, down = 1 / (1 + math.e), 1 / (1 + math.exp(-1))  # beta h is 1
    torch.testing.assert_close(kto_loss(h, liked, 0.5), torch.tensor([up, down, 0.75 * up + 0.25 * down]))


def test_labels_and_feedback_are_what_is_said_of_responses(policy: Policy) -> None:
    labels = [
        preference_row(0, "red dog", ["good", "bad"]),
        preference_row(1, "red cat", ["good", "bad"]) | {"target": [0.5, 0.5]},
        preference_row(2, "blue", ["good", "dog", "cat"])
        | {"kind": "ranking", "ranks": [1, 2, 3], "target": [1.0, 0.0, 0.0], "weight": 3.0},
    ]
    feedback = [thought(0, "red dog", "bad", True, 2.0), thought(1, "red", "cat", False)]
    assert said_of(policy, labels, feedback) == {
        ("red dog", "good"): (1.0, 0.0),
        ("red dog", "bad"): (2.0, 1.0),  # disliked in a comparison, and liked by itself
        ("blue", "good"): (2.0, 0.0),  # three pairs share the label's weight
        ("blue", "dog"): (1.0, 1.0),
        ("blue", "cat"): (0.0, 2.0),
        ("red", "cat"): (0.0, 1.0),
    }


def test_both_kinds_weigh_the_same_unless_it_is_said_otherwise() -> None:
    said = [Opinion([1], [1], liked=6.0), Opinion([2], [1], disliked=2.0)]
    assert kind_weights(said, KTO.changed(undesirable_weight=3.0)) == KindWeights(1.0, 3.0)
    assert kind_weights(said, KTO.changed(desirable_weight=0.5)) == KindWeights(0.5, 1.0)
    assert kind_weights(said[:1], KTO.changed(desirable_weight=0.5)) == KindWeights(0.5, 1.0)
    for kind, one in (("disliked", said[:1]), ("liked", said[1:])):
        with pytest.raises(UserError, match=rf"No response to train on is {kind}.*dpo\.desirable_weight"):
            kind_weights(one, KTO)


@given(st.lists(st.integers(0, 3), min_size=1, max_size=12))
def test_each_response_stands_beside_the_next_one_to_another_prompt(prompts: list[int]) -> None:
    said = [Opinion([prompt], [100 + index], liked=1.0) for index, prompt in enumerate(prompts)]
    found = beside_others(said, KindWeights(1.0, 1.0), seed=1)
    if len(set(prompts)) == 1:
        assert found == []
        return
    order = [one.responses[0][0] - 100 for one in found]
    assert sorted(order) == list(range(len(prompts)))
    for place, one in enumerate(found):
        circle = [*order[place + 1 :], *order[:place]]
        assert one.responses[1] == [100 + next(other for other in circle if prompts[other] != prompts[order[place]])]


def test_the_responses_beside_are_a_sample_of_all() -> None:
    """In the order of the table, each would stand beside the first response to the next prompt."""
    said = [Opinion([prompt], [response], liked=1.0) for prompt in range(500) for response in range(4)]
    beside = [one.responses[1][0] for one in beside_others(said, KindWeights(1.0, 1.0), seed=1)]
    assert all(400 < beside.count(response) < 600 for response in range(4))


def test_the_reference_point_is_the_mean_over_the_whole_batch_and_at_least_0(policy: Policy) -> None:
    """z0 and the loss from the log-probs of each response alone, whatever parts a batch is read in."""
    words = ["good", "bad", "dog cat", "red . blue", "cat"]
    said = [Opinion(prompt, policy.tokenizer(word).input_ids, 1.0 + i, i % 2) for i, (prompt, word) in enumerate(
        zip([policy.tokenizer(word).input_ids for word in reversed(words)], words, strict=True)
    )]  # fmt: skip
    rows = beside_others(said, KindWeights(1.0, 2.0), seed=1)
    texts = [policy.tokenizer.decode(row.prompt) for row in rows for _ in row.responses]
    known = response_log_probs(policy, texts, [ids for row in rows for ids in row.responses], FIXED)
    own, other = torch.tensor([sum(row) for row in known]).reshape(-1, 2).T
    pair_loss = objective_of(KTO.changed(beta=0.3), decoding_of(policy.tokenizer, FIXED))
    for shift in (-1.5, 1.5):  # of the reference's log-probs, by which the mean log-ratio is above and below 0
        point = max(-shift, 0.0)
        h = -shift - point
        for size in (5, 2):
            reference = [torch.tensor(pair) + shift for pair in zip(own.tolist(), other.tolist(), strict=True)]
            parts = [
                collate_pairs(
                    rows[start : start + size], reference[start : start + size], policy.tokenizer.pad_token_id
                )
                for start in range(0, len(rows), size)
            ]
            pair_loss.prepare(policy.model, parts)
            assert [float(part["reference_point"]) for part in parts] == pytest.approx([point] * len(parts), abs=1e-5)
            weights = [float(part["weight"].sum()) for part in parts]
            losses = [float(pair_loss(policy.model, part)[0].detach()) for part in parts]
            liked, disliked = sum(one.liked for one in said), 2.0 * sum(one.disliked for one in said)
            expected = liked / (1 + math.exp(0.3 * h)) + disliked / (1 + math.exp(-0.3 * h))
            assert sum(map(math.prod, zip(weights, losses, strict=True))) == pytest.approx(expected, rel=1e-5)


def test_a_response_is_right_on_its_side_of_the_reference_point() -> None:
    h, liked, weight = torch.tensor([1.0, 1.0, -2.0]), torch.tensor([1.0, 0.0, 0.0]), torch.tensor([1.0, 1.0, 2.0])
    numbers = pair_numbers(h, liked, weight, beta=0.1)
    assert float(numbers["accuracy"]) == pytest.approx(0.75)
    assert float(numbers["reward_margin"]) == pytest.approx(0.1 * (1 - 1 + 2 * 2) / 4)


def of_thumbs(spec: DpoSpec, folder: Path) -> DpoSpec:
    """The spec with no label of the train split: what is liked is known from feedback alone."""
    prompts = [
        f"{one} {other}" for one in ("red", "blue", "dog", "cat", ".") for other in ("red", "blue", "dog", "cat")
    ]
    rows = [
        thought(number, prompt, response, response == "good", split="validation" if prompt[0] == "." else "train")
        for number, (prompt, response) in enumerate(product(prompts, ("good", "bad", "dog", "cat")))
    ]
    held_out = [preference_row(0, "red", ["good", "bad"]) | {"split": "held_out_annotators"}]
    return replace(
        spec,
        preferences=write(folder, "labels", held_out, PREFERENCES),
        feedback=write(folder, "feedback", rows, FEEDBACK),
        settings=KTO.changed(epochs=30, beta=0.5),
    )


def test_it_learns_from_thumbs_alone(sft: Path, tables: Tables, tmp_path: Path) -> None:
    spec = of_thumbs(dpo_spec(sft, tables, tmp_path / "kto"), tmp_path)
    result = train_dpo(spec)
    assert result.metrics["accuracy_validation"] > 0.9
    assert result.metrics["responses_train"] == 4 * 16
    assert result.curves["loss"][0] == pytest.approx(0.5, abs=1e-4)  # the policy is its own reference
    after, before = (load_policy(folder, COMPUTE) for folder in (result.folder, sft))
    ids = [[after.tokenizer.convert_tokens_to_ids(word)] for word in ("good", "bad")]
    good, bad = (
        sum(one) - sum(other)
        for one, other in zip(
            *(response_log_probs(policy, ["red"] * 2, ids, FIXED) for policy in (after, before)), strict=True
        )
    )
    assert good > 0 > bad


def test_it_learns_what_labels_prefer(sft: Path, tables: Tables, tmp_path: Path) -> None:
    """Measured as DPO measures: whether the preferred response is the likelier one against SFT."""
    spec = dpo_spec(sft, tables, tmp_path / "kto")
    result = train_dpo(replace(spec, settings=spec.settings.changed(epochs=6, loss="kto")))
    policy = load_policy(result.folder, COMPUTE)
    labels = read_table(spec.preferences, PREFERENCES)
    rows = encode_comparisons(labels[labels["split"] == "validation"], policy.tokenizer, FIXED)
    reference = reference_log_probs(load_policy(sft, COMPUTE), rows, spec)
    held_out = Comparisons(rows, reference)
    plain = objective_of(spec.settings, decoding_of(policy.tokenizer, FIXED))
    assert measure(policy, held_out, plain, 16)["accuracy"] > 0.7


def test_a_batch_in_parts_trains_the_same(sft: Path, tables: Tables, tmp_path: Path) -> None:
    spec = of_thumbs(dpo_spec(sft, tables, tmp_path / "whole"), tmp_path)
    spec = replace(spec, settings=spec.settings.changed(epochs=1))
    parts = replace(spec, output=tmp_path / "parts", settings=spec.settings.changed(accumulate=3))
    whole, cut = (load_policy(train_dpo(one).folder, COMPUTE).model.state_dict() for one in (spec, parts))
    for name, weights in whole.items():
        torch.testing.assert_close(cut[name], weights, rtol=1e-3, atol=2e-5)


def test_what_cannot_be_learned_from_is_refused(sft: Path, tables: Tables, tmp_path: Path) -> None:
    spec = of_thumbs(dpo_spec(sft, tables, tmp_path / "kto"), tmp_path)
    same = [thought(number, "red", word, word == "good") for number, word in enumerate(["good", "bad"])]
    with pytest.raises(UserError, match="all 2 judged responses answer the same prompt"):
        train_dpo(replace(spec, feedback=write(tmp_path, "same", same, FEEDBACK)))
    with pytest.raises(UserError, match="no label or feedback of split 'train'"):
        train_dpo(replace(spec, feedback=None))
    assert not spec.output.exists()


def test_taken_up_again_it_ends_as_if_it_had_not_been_stopped(sft: Path, tables: Tables, tmp_path: Path) -> None:
    spec = of_thumbs(dpo_spec(sft, tables, tmp_path / "whole"), tmp_path)
    spec = replace(spec, settings=spec.settings.changed(epochs=2, lora=LoraSettings(rank=2)))
    again, left = replace(spec, output=tmp_path / "again"), iter(["", "", "enough"])
    with pytest.raises(TrainingStopped):
        train_dpo(again, checkpointing=Checkpointing(tmp_path / "state", 3600, lambda: next(left)))
    one, other = train_dpo(spec), train_dpo(again, checkpointing=Checkpointing(tmp_path / "state", 3600))
    assert folder_digest(one.folder) == folder_digest(other.folder)
    assert (one.metrics, one.curves) == (other.metrics, other.curves)
