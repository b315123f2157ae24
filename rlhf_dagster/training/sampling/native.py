"""Sampling by this package, with the log-probs and values that learning needs recorded on the way."""

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from rlhf_dagster.config.training import ComputeSettings
from rlhf_dagster.training.models.log_probs import Decoding
from rlhf_dagster.training.sampling.backend import Responses
from rlhf_dagster.training.sampling.drawing import drawing_of, drawn_by
from rlhf_dagster.training.texts.tokens import PaddedBatch


class NativeRollouts:
    """The rollout backend of this package (:func:`generate`)."""

    own_arithmetic = True

    def __init__(self, compute: ComputeSettings | None = None, rows: int = 0) -> None:
        """Device, threads and precision are those around a call."""

    def generate(
        self,
        model: PreTrainedModel,
        prompts: PaddedBatch,
        uniforms: Tensor | None,
        decoding: Decoding,
        value_head: nn.Module | None = None,
    ) -> "Responses":
        return generate(model, prompts, uniforms, decoding, value_head)

    def close(self) -> None:
        """Nothing is kept."""


def draw_uniforms(rows: int, tokens: int, generator: torch.Generator) -> Tensor:
    """[rows, tokens] uniform numbers in [0, 1), drawn on the CPU: the same whatever the model runs on."""
    return torch.rand(rows, tokens, generator=generator, dtype=torch.float64)


@torch.no_grad()
def generate(
    model: PreTrainedModel,
    prompts: PaddedBatch,
    uniforms: Tensor | None,
    decoding: Decoding,
    value_head: nn.Module | None = None,
) -> Responses:
    """Sample one response for each row of left-padded ``prompts`` [B, Q].

    Log-probs (and values) are recorded on the way, which saves PPO a forward pass over its rollout. How the model is
    stepped through is found out by trying (:func:`~rlhf_dagster.training.sampling.drawing.drawing_of`).

    Args:
        model: a causal language model.
        prompts: ids and mask [B, Q].
        uniforms: [B, T] the random number behind each token; None takes the likeliest token.
        decoding: temperature, length, and which tokens are never drawn.
        value_head: maps hidden states [B, d] to values [B, 1].
    """
    return drawn_by(drawing_of(model), model, prompts, uniforms, decoding, value_head)
