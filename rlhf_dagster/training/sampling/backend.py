"""What draws a policy's responses: one interface, whichever program does it."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from torch import Tensor, nn
from transformers import PreTrainedModel

from rlhf_dagster.training.models.log_probs import Decoding
from rlhf_dagster.training.texts.tokens import PaddedBatch


@dataclass(frozen=True)
class Responses:
    """A batch of sampled responses; T is the longest response allowed."""

    tokens: Tensor
    """[B, T] ids, padding after the end."""
    mask: Tensor
    """[B, T] int64, 1 at response tokens, the end-of-text token included."""
    log_probs: Tensor
    """[B, T] under the sampling policy, 0 at padding."""
    values: Tensor | None
    """[B, T] of the value head before each token, 0 at padding; None without one."""


class RolloutBackend(Protocol):
    """Draws responses from softmax(logits / temperature) without the suppressed tokens, and from nothing else."""

    own_arithmetic: bool
    """Whether log-probs are those of the trainer's own forward pass, up to the rounding of a cache. Where not, the
    trainer computes its own, and corrects for the difference (:mod:`~rlhf_dagster.training.sampling.importance`)."""

    def generate(
        self,
        model: PreTrainedModel,
        prompts: PaddedBatch,
        uniforms: Tensor | None,
        decoding: Decoding,
        value_head: nn.Module | None = None,
    ) -> Responses:
        """One response to each row of left-padded ``prompts`` [B, Q], from ``model`` as it is now.

        ``uniforms`` [B, T] decide every draw, directly or as seeds; None takes the likeliest tokens. Values are
        recorded with ``value_head`` by a backend of the trainer's own arithmetic alone.
        """
        ...

    def close(self) -> None:
        """Give back memory and threads; the next call of :meth:`generate` would begin anew."""
        ...


@runtime_checkable
class OutsideBackend(RolloutBackend, Protocol):
    """A backend whose sampler is another process: it samples while this one trains."""

    def begin(
        self, model: PreTrainedModel, prompts: PaddedBatch, uniforms: Tensor | None, decoding: Decoding
    ) -> Callable[[], Responses]:
        """Begin what :meth:`generate` does; what is returned waits for the responses.

        The sampler has a copy of the weights of ``model`` when this returns, so that they may be changed. Nothing else
        may be begun or generated before the responses are there.
        """
        ...
