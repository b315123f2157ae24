"""Sampling by a model's own `generate`, which knows what its architecture keeps of the tokens before.

Recurrent models and others that are no plain attention over keys and values are sampled in this way: rows of the same
length together, so that there is no padding that a state could take in. The tokens are drawn here, from the same
distribution and with the same random numbers as elsewhere; `generate` is made to take them.
"""

from typing import Any, cast

import torch
from torch import Tensor, nn
from transformers import GenerationConfig, LogitsProcessor, LogitsProcessorList, PreTrainedModel

from rlhf_dagster.training.models.layout import groups_of_length
from rlhf_dagster.training.models.log_probs import Decoding, head_inputs, policy_log_softmax
from rlhf_dagster.training.sampling.backend import Responses
from rlhf_dagster.training.sampling.steps import draw
from rlhf_dagster.training.texts.tokens import PaddedBatch


@torch.no_grad()
def sample_by_generate(
    model: PreTrainedModel,
    prompts: PaddedBatch,
    uniforms: Tensor | None,
    decoding: Decoding,
    value_head: nn.Module | None = None,
) -> Responses:
    """One response to each row of left-padded ``prompts`` [B, Q], as of
    :func:`~rlhf_dagster.training.sampling.native.generate`; a row that has ended stays until its group has."""
    shape, device = (len(prompts.input_ids), decoding.max_tokens), prompts.input_ids.device
    tokens = torch.full(shape, decoding.pad_id, device=device)
    mask, log_probs = torch.zeros_like(tokens), torch.zeros(shape, device=device)
    values = None if value_head is None else torch.zeros_like(log_probs)
    for rows, ids in groups_of_length(prompts):
        drawer = _Drawer(decoding, None if uniforms is None else uniforms[rows], value_head)
        _generate(model, ids, drawer)
        own = (rows[:, None], torch.arange(len(drawer.tokens), device=device))
        alive = _until_end(torch.stack(drawer.tokens, dim=1), decoding)
        mask[own] = alive.long()
        tokens[own] = torch.stack(drawer.tokens, dim=1).where(alive, decoding.pad_id)
        log_probs[own] = torch.stack(drawer.log_probs, dim=1) * alive
        if values is not None:
            values[own] = torch.stack(drawer.values, dim=1) * alive
    return Responses(tokens, mask, log_probs, values)


class _Drawer(LogitsProcessor):
    """Draws the next tokens [n] of a group, and leaves `generate` no other choice."""

    def __init__(self, decoding: Decoding, uniforms: Tensor | None, value_head: nn.Module | None) -> None:
        self.decoding, self.uniforms, self.value_head = decoding, uniforms, value_head
        self.tokens: list[Tensor] = []
        self.log_probs: list[Tensor] = []
        self.values: list[Tensor] = []
        self.states: list[Tensor] = []
        """The hidden states [n, L, d] that the output head has read; filled outside."""

    def __call__(self, input_ids: Any, scores: Any) -> Any:
        distribution = policy_log_softmax(scores, self.decoding)
        column = None if self.uniforms is None else self.uniforms[:, len(self.tokens)]
        drawn = distribution.argmax(dim=-1) if column is None else draw(distribution, column)
        self.tokens.append(drawn)
        self.log_probs.append(distribution.gather(1, drawn[:, None])[:, 0])
        if self.value_head is not None:
            self.values.append(self.value_head(self.states.pop()[:, -1])[:, 0].float())
            self.states.clear()
        return torch.full_like(scores, -torch.inf).scatter(1, drawn[:, None], 0.0)


def _generate(model: PreTrainedModel, ids: Tensor, drawer: _Drawer) -> None:
    decoding = drawer.decoding
    plain = GenerationConfig(
        do_sample=False,
        max_new_tokens=decoding.max_tokens,
        eos_token_id=None if decoding.fixed_length else list(decoding.end_ids),
        pad_token_id=decoding.pad_id,
        use_cache=True,
    )
    # What the settings leave open, such as a penalty for repetition, would come from the model's own.
    own, model.generation_config = model.generation_config, GenerationConfig()
    try:
        with head_inputs(model, drawer.value_head is not None) as states:
            drawer.states = states
            cast("Any", model).generate(
                ids,
                attention_mask=torch.ones_like(ids),
                generation_config=plain,
                logits_processor=LogitsProcessorList([drawer]),
            )
    finally:
        model.generation_config = own


def _until_end(tokens: Tensor, decoding: Decoding) -> Tensor:
    """[n, T] bool, up to the first end, the end included."""
    if decoding.fixed_length:
        return torch.ones_like(tokens, dtype=torch.bool)
    ends = decoding.is_end(tokens).long()
    return ends.cumsum(dim=1) - ends == 0
