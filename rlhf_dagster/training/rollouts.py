"""What draws a policy's responses: one interface, whichever program does it."""

from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import TYPE_CHECKING, Protocol

from torch import Tensor, nn
from transformers import PreTrainedModel

from rlhf_dagster.training.log_probs import Decoding
from rlhf_dagster.training.settings import ComputeSettings
from rlhf_dagster.training.tokens import PaddedBatch

if TYPE_CHECKING:
    from rlhf_dagster.training.sampling import Responses

BACKENDS = {
    "native": ("sampling", "NativeRollouts"),
    "transformers": ("rollouts_transformers", "TransformersRollouts"),
    "vllm": ("rollouts_vllm", "VllmRollouts"),
}
"""Module and class of each choice of `compute.rollout_backend`."""


class RolloutBackend(Protocol):
    """Draws responses from softmax(logits / temperature) without the suppressed tokens, and from nothing else."""

    own_arithmetic: bool
    """Whether log-probs are those of the trainer's own forward pass, up to the rounding of a cache. Where not, the
    trainer computes its own, and corrects for the difference (:mod:`~rlhf_dagster.training.importance`)."""

    def generate(
        self,
        model: PreTrainedModel,
        prompts: PaddedBatch,
        uniforms: Tensor | None,
        decoding: Decoding,
        value_head: nn.Module | None = None,
    ) -> "Responses":
        """One response to each row of left-padded ``prompts`` [B, Q], from ``model`` as it is now.

        ``uniforms`` [B, T] decide every draw, directly or as seeds; None takes the likeliest tokens. Values are
        recorded with ``value_head`` by a backend of the trainer's own arithmetic alone.
        """
        ...

    def close(self) -> None:
        """Give back memory and threads; the next call of :meth:`generate` would begin anew."""
        ...


@contextmanager
def rollout_backend(compute: ComputeSettings | None, rows: int) -> Iterator[RolloutBackend]:
    """The backend of ``compute``, which samples at most ``rows`` responses at once.

    Raises:
        UserError: it is not installed, or cannot run here.
    """
    compute = compute or ComputeSettings()
    module, name = BACKENDS[compute.rollout_backend]
    backend: RolloutBackend = getattr(import_module(f"rlhf_dagster.training.{module}"), name)(compute, rows)
    try:
        yield backend
    finally:
        backend.close()
