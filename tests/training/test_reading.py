"""How models read rows: what is right is what each computes for a row alone."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from transformers import LlamaConfig, PreTrainedModel
from zoo.make import tiny_model

from rlhf_dagster.errors import UserError
from rlhf_dagster.lineage.model_folders import ABILITIES, folder_digest
from rlhf_dagster.training.checkpoints.context import context_of, require_context
from rlhf_dagster.training.models.abilities import Abilities, Drawing, Reading, abilities_of
from rlhf_dagster.training.models.layout import groups_of_length, moved_left
from rlhf_dagster.training.models.log_probs import response_outputs
from rlhf_dagster.training.models.policies import Policy, load_policy, save_policy
from rlhf_dagster.training.models.reading import Unreadable, outputs_of, reading_of
from rlhf_dagster.training.texts.tokens import PaddedBatch

RAGGED = [([0, 0, 9, 10], [11, 12, 13]), ([9, 10, 11, 12], [13, 0, 0]), ([0, 0, 0, 20], [21, 22, 0])]
"""Prompts padded on the left with 0, and responses padded on the right."""


def ragged() -> PaddedBatch:
    ids = torch.tensor([prompt + response for prompt, response in RAGGED])
    return PaddedBatch(ids, (ids != 0).long())


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(1, 5), st.integers(0, 4)), min_size=1, max_size=6))
def test_rows_move_to_the_left_edge_and_outputs_back(shapes: list[tuple[int, int, int]]) -> None:
    width = max(sum(shape) for shape in shapes)
    mask = torch.tensor([[0] * left + [1] * real + [0] * (width - left - real) for left, real, _ in shapes])
    ids = torch.arange(1, mask.numel() + 1).view(mask.shape) * mask
    moved = moved_left(PaddedBatch(ids, mask))
    lengths = mask.sum(dim=1).tolist()
    assert [row[:n] for row, n in zip(moved.batch.input_ids.tolist(), lengths, strict=True)] == [
        [token for token in row if token] for row in ids.tolist()
    ]
    assert torch.equal(moved.back(moved.batch.input_ids), ids)
    states = torch.stack([moved.batch.input_ids, -moved.batch.input_ids], dim=-1)
    assert torch.equal(moved.back(states), torch.stack([ids, -ids], dim=-1))


def test_rows_of_one_length_are_together_in_their_order() -> None:
    groups = {ids.shape[1]: (rows.tolist(), ids.tolist()) for rows, ids in groups_of_length(ragged())}
    assert groups == {3: ([2], [[20, 21, 22]]), 5: ([0, 1], [[9, 10, 11, 12, 13]] * 2)}


@pytest.mark.parametrize(
    ("name", "reading"),
    [
        ("gpt2", Reading()),
        ("llama", Reading()),
        ("bart", Reading("right", positions=False)),
        ("recurrent_gemma", Reading("right", positions=False)),
        ("rwkv", Reading("right", positions=False)),
    ],
)
@pytest.mark.parametrize("hidden", [False, True])
def test_outputs_beside_other_rows_are_those_of_each_row_alone(name: str, reading: Reading, hidden: bool) -> None:
    model = tiny_model(name)
    assert reading_of(model) == reading
    batch = ragged()
    with torch.no_grad():
        logits, states = response_outputs(model, *batch, 3, hidden)
    for row, ids in enumerate(batch.input_ids):
        alone, known = _alone(model, ids[ids != 0])
        count = int((ids[-3:] != 0).sum())
        assert torch.allclose(logits[row, :count], alone[-count - 1 : -1], atol=1e-4)
        if states is not None:
            assert torch.allclose(states[row, :count], known[-count - 1 : -1], atol=1e-4)


def _alone(model: PreTrainedModel, ids: Tensor) -> tuple[Tensor, Tensor]:
    states: list[Tensor] = []
    head: Any = model.get_output_embeddings()
    hook = head.register_forward_pre_hook(lambda module, inputs: states.append(inputs[0][0]))
    with torch.no_grad():
        logits = outputs_of(model, input_ids=ids[None], attention_mask=torch.ones_like(ids)[None])[0]
    hook.remove()
    return logits, states[0]


def test_a_model_that_looks_ahead_is_refused() -> None:
    with pytest.raises(
        Unreadable,
        match="BertLMHeadModel computes other numbers for a token when others follow it, so that it gives no",
    ):
        reading_of(tiny_model("bert-bidirectional"))


def test_a_model_that_mixes_rows_is_refused() -> None:
    model = tiny_model("gpt2")
    head: Any = model.get_output_embeddings()
    head.register_forward_pre_hook(lambda module, inputs: (inputs[0] + inputs[0].mean(dim=0, keepdim=True),))
    with pytest.raises(Unreadable, match="GPT2LMHeadModel computes other numbers for a row beside other rows"):
        reading_of(model)


def test_trying_a_model_draws_none_of_the_numbers_that_others_draw() -> None:
    model = tiny_model("llama")
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    reading_of(model)
    assert torch.equal(torch.rand(3), expected)


class TestKeptAbilities:
    """The record beside a model."""

    def test_what_was_found_goes_on_with_the_model(self, policy: Policy, tmp_path: Path) -> None:
        found = Abilities(Reading(positions=False), Drawing("whole"), "never", "transformer.h")
        abilities_of(policy.model).__dict__.update(vars(found))
        save_policy(policy, None, tmp_path)
        assert abilities_of(load_policy(tmp_path).model) == found

    def test_it_is_no_part_of_the_model(self, policy: Policy, tmp_path: Path) -> None:
        save_policy(policy, None, tmp_path)
        digest = folder_digest(tmp_path)
        (tmp_path / ABILITIES).unlink()
        assert folder_digest(tmp_path) == digest

    @pytest.mark.parametrize("change", ["versions", "config", "damage", "loss"])
    def test_where_it_does_not_hold_the_model_is_tried_again(self, policy: Policy, tmp_path: Path, change: str) -> None:
        abilities_of(policy.model).reading = Reading("right", positions=False)
        save_policy(policy, None, tmp_path)
        file = tmp_path / ABILITIES
        if change == "versions":
            # Without a checksum, a record is taken for one that a person wrote.
            record = json.loads(file.read_text()) | {"transformers": "4.0.0"}
            file.write_text(json.dumps({name: value for name, value in record.items() if name != "_sha256"}))
        elif change == "config":
            config = json.loads((tmp_path / "config.json").read_text())
            (tmp_path / "config.json").write_text(json.dumps(config | {"note": "changed"}))
        elif change == "damage":
            file.write_text(file.read_text().replace('"right"', '"left"'))
        else:
            file.unlink()
        assert reading_of(load_policy(tmp_path).model) == Reading()


def test_a_context_is_the_length_up_to_which_rows_are_independent(policy: Policy) -> None:
    scaled = {"rope_type": "dynamic", "factor": 4.0, "rope_theta": 1e4, "original_max_position_embeddings": 16}
    config = LlamaConfig(max_position_embeddings=64, rope_parameters=scaled)
    assert context_of(config) == 16
    with pytest.raises(
        UserError, match="context has 16, above which its numbers for a row depend on the rows beside it"
    ):
        require_context(config, 20, "sft.max_tokens")
    assert context_of(policy.model.config) == policy.model.config.n_positions


def test_abilities_have_a_place_for_each_thing_that_is_tried() -> None:
    assert {field.name for field in dataclasses.fields(Abilities)} == {"reading", "drawing", "batching", "trunk"}
