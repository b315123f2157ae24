"""Gradient checkpointing: of each layer only its input is kept, and the backward pass computes the layer again.

Chen et al. 2016 (arXiv 1604.06174, *Training deep nets with sublinear memory cost*), a layer at a time. Transformers'
own is for models in training mode, which ours are never in (:mod:`~rlhf_dagster.training.checkpoints.randomness`).
"""

from functools import cache
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel

from rlhf_dagster.errors import UserError, first_line
from rlhf_dagster.training.models.passes.layer_lists import TRIAL_LENGTH, layer_list
from rlhf_dagster.training.models.reading import outputs_of, trial_rows

GRADIENT_TOLERANCE = 1e-3
"""Share of the largest number in a gradient: rounding stays below, also in bfloat16, as both passes round alike."""


def recompute_layers(model: PreTrainedModel) -> None:
    """Have the backward pass of ``model``, in place, compute its layers again instead of keeping what they computed.

    Raises UserError where that is not the same, tried on a few tokens with the weights that are trained.
    """
    found = layer_list(model)
    if found is None:
        raise _refused(model, "no list of layers runs once from first to last")
    layers = found[1]
    before = _gradients(model, layers)
    for layer in layers:
        layer.__class__ = _recomputed(cast("Any", type(layer)))
    try:
        after = _gradients(model, layers)
    except Exception as error:  # whatever an architecture raises where a layer runs twice
        raise _refused(model, first_line(error)) from None
    if not all(map(_same, before, after)):
        raise _refused(model, "its gradients are others then")


class _Recomputed(nn.Module):
    """A layer whose forward pass is done again in the backward pass."""

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        if not torch.is_grad_enabled():
            return super().forward(*args, **kwargs)
        # Nothing in a layer is random.
        own = super().forward
        return checkpoint(own, *args, use_reentrant=False, preserve_rng_state=False, **kwargs)


@cache
def _recomputed(kind: Any) -> type[nn.Module]:
    """The class ``kind`` of layers, under its own name; only the class changes, so copies and adapters work."""
    if issubclass(kind, _Recomputed):
        return kind
    return type(kind.__name__, (_Recomputed, kind), {"__module__": kind.__module__})


def _gradients(model: PreTrainedModel, layers: nn.ModuleList) -> list[Tensor]:
    """Of the last trained weight of each layer, which is small, or the outer half of an adapter."""
    trained = [[weight for weight in layer.parameters() if weight.requires_grad] for layer in layers]
    ids = torch.tensor(trial_rows(model, (TRIAL_LENGTH,)), device=model.device)
    with torch.enable_grad():
        outputs = outputs_of(model, input_ids=ids, attention_mask=torch.ones_like(ids))
        loss = outputs.float().square().mean()
    return list(torch.autograd.grad(loss, [weights[-1] for weights in trained if weights], allow_unused=True))


def _same(before: Tensor | None, after: Tensor | None) -> bool:
    if before is None or after is None:
        return before is after
    scale = float(before.abs().max())
    return torch.allclose(after, before, rtol=GRADIENT_TOLERANCE, atol=GRADIENT_TOLERANCE * scale)


def _refused(model: PreTrainedModel, why: str) -> UserError:
    return UserError(
        f"{type(model).__name__} cannot compute its layers again ({why}); set compute.gradient_checkpointing to false."
    )
