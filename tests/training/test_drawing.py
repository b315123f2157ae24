"""How models are sampled: log-probs, values and draws are those of a forward pass over each row alone."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from zoo.make import tiny_model

from rlhf_dagster.config.training import ComputeSettings
from rlhf_dagster.errors import UserError
from rlhf_dagster.training.models.abilities import Drawing, abilities_of
from rlhf_dagster.training.models.log_probs import Decoding, head_inputs
from rlhf_dagster.training.models.reading import outputs_of, reading_of
from rlhf_dagster.training.sampling.drawing import drawing_of, drawn_by, draws_right
from rlhf_dagster.training.sampling.native import draw_uniforms, generate
from rlhf_dagster.training.sampling.steps import CachedSteps
from rlhf_dagster.training.sampling.transformers_backend import TransformersRollouts
from rlhf_dagster.training.texts.tokens import pad

PROMPTS = [[9, 10, 11], [12, 13, 14, 15, 16, 17], [18], [19, 20], [21, 22, 23]]
TOKENS = 7


def decoding(**changes: Any) -> Decoding:
    values: dict[str, Any] = {"temperature": 0.8, "max_tokens": TOKENS, "fixed_length": True, "pad_id": 0, "end_id": 2}
    return Decoding(**(values | {"suppressed": (0, 2)} | changes))


def uniforms() -> Tensor:
    return draw_uniforms(len(PROMPTS), TOKENS, torch.Generator().manual_seed(7))


@torch.no_grad()
def right_numbers(model: PreTrainedModel, row: list[int], tokens: Tensor, head: nn.Linear) -> tuple[Tensor, Tensor]:
    """Log-probs and values [T] by plain transformers, one row, no cache."""
    ids = torch.tensor([[*row, *tokens.tolist()]])[:, :-1]
    with head_inputs(model) as states:
        logits = outputs_of(model, input_ids=ids, attention_mask=torch.ones_like(ids))[0, -len(tokens) :].clone()
    logits[:, [0, 2]] = -torch.inf
    values = head(states[0][0, -len(tokens) :])[:, 0]
    return (logits / 0.8).log_softmax(dim=-1).gather(1, tokens[:, None])[:, 0], values


@pytest.mark.parametrize(
    ("name", "by"),
    [
        ("gpt2", "cache"),
        ("jamba", "cache"),
        ("mamba", "generate"),
        ("recurrent_gemma", "generate"),
        ("bart", "generate"),
        ("rwkv", "whole"),
    ],
)
def test_recorded_numbers_are_those_of_each_row_alone(name: str, by: str) -> None:
    model = tiny_model(name)
    width = model.get_output_embeddings().weight.shape[1]
    head = nn.Linear(width, 1)
    drawn = generate(model, pad(PROMPTS, 0, "left"), uniforms(), decoding(), head)
    assert drawing_of(model).by == by
    assert drawn.mask.all()
    for row, tokens, log_probs, values in zip(PROMPTS, drawn.tokens, drawn.log_probs, drawn.values, strict=True):
        right, right_values = right_numbers(model, row, tokens, head)
        assert torch.allclose(log_probs, right, atol=2e-4)
        assert torch.allclose(values, right_values, atol=2e-4)


@pytest.mark.parametrize("name", ["llama", "jamba", "mamba", "bart", "rwkv"])
@pytest.mark.parametrize("greedy", [False, True])
def test_every_way_draws_the_same_responses(name: str, greedy: bool) -> None:
    model = tiny_model(name)
    noise = None if greedy else uniforms()
    prompts = pad(PROMPTS, 0, "left")
    first = generate(model, prompts, noise, decoding())
    ends = decoding(fixed_length=False, end_id=int(first.tokens[0, 2]), other_ends=(int(first.tokens[1, 4]),))
    ways = [
        way for way in (Drawing("whole"), Drawing("generate", rows_leave=False)) if name != "rwkv" or way.by == "whole"
    ]
    outcomes = [drawn_by(way, model, prompts, noise, ends) for way in ways] + [generate(model, prompts, noise, ends)]
    lengths = outcomes[0].mask.sum(dim=1)
    assert 1 <= int(lengths.min()) < TOKENS
    for one in outcomes[1:]:
        assert torch.equal(one.tokens, outcomes[0].tokens)
        assert torch.equal(one.mask, outcomes[0].mask)
        assert torch.allclose(one.log_probs, outcomes[0].log_probs, atol=2e-4)


def test_a_cache_that_gets_lost_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_model("llama")
    assert draws_right(model, Drawing())
    given = CachedSteps._given
    monkeypatch.setattr(CachedSteps, "_given", lambda self: given(self) | {self.past: None})
    assert not draws_right(model, Drawing())
    assert drawing_of(model).by == "generate"


def test_rows_that_get_each_other_s_past_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_model("llama")
    keep = CachedSteps.keep

    def wrong(self: CachedSteps, rows: Tensor) -> None:
        keep(self, rows)
        self.cache.batch_select_indices(torch.arange(len(rows)).flip(0))

    monkeypatch.setattr(CachedSteps, "keep", wrong)
    assert not draws_right(model, Drawing())
    assert drawing_of(model) == Drawing(rows_leave=False)


def test_the_model_s_own_generation_settings_change_nothing() -> None:
    model, plain = tiny_model("mamba"), tiny_model("mamba")
    model.generation_config.repetition_penalty = 5.0
    model.generation_config.suppress_tokens = list(range(5, 40))
    drawn, right = (generate(one, pad(PROMPTS, 0, "left"), uniforms(), decoding()) for one in (model, plain))
    assert torch.equal(drawn.tokens, right.tokens)
    assert model.generation_config.repetition_penalty == 5.0


def test_continuous_batching_of_positions_that_it_does_not_know_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_model("llama")
    backend = TransformersRollouts(ComputeSettings(rollout_backend="transformers"), 8)
    backend.require_right(model)
    assert abilities_of(model).batching == ""
    other = tiny_model("llama")
    # The position of every token but the first in its row is wrong in batches of packed rows alone.
    forward = other.forward

    def packed(*args: Any, **kwargs: Any) -> Any:
        if kwargs.get("cu_seq_lens_q") is not None:
            kwargs["position_ids"] = kwargs["position_ids"] // 2
        return forward(*args, **kwargs)

    monkeypatch.setattr(other, "forward", packed)
    reading_of(other)
    with pytest.raises(UserError, match="continuous batching samples from another policy than LlamaForCausalLM is"):
        backend.require_right(other)
    assert "another policy" in (abilities_of(other).batching or "")
