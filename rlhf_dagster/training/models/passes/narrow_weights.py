"""Trained weights in bfloat16 (`compute.trained_weights: bf16`), while they are trained.

Matrices alone are narrow. Vectors, such as norms and biases, heads of scores and values, and adapters are small, and
stay in float32. A matrix product in bfloat16 rounds its weights in any case, so the model computes what it did before.
"""

import torch
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import nn
from transformers import PreTrainedModel

from rlhf_dagster.config.training import ComputeSettings
from rlhf_dagster.errors import UserError, first_line
from rlhf_dagster.training.models.passes.recomputed_layers import recompute_layers
from rlhf_dagster.training.models.reading import outputs_of, trial_rows

HEADS = ("score.", "ties.")
"""Modules of reward and value models beside the trunk."""


def prepare_training(model: PreTrainedModel, compute: ComputeSettings) -> None:
    """Change ``model``, with its adapters and frozen weights, in place as ``compute`` says it is held and trained.

    Raises UserError where the architecture does not compute the same then.
    """
    if compute.gradient_checkpointing:
        recompute_layers(model)
    # Last, as what finds out about a model runs it in float32.
    if compute.trained_weights == "bf16":
        narrow_weights(model)


@torch.no_grad()
def narrow_weights(model: PreTrainedModel) -> None:
    """Hold the trained matrices of ``model`` in bfloat16; raises UserError where it does not run with them."""
    for weight in _matrices(model):
        weight.data = weight.data.bfloat16()
    ids = torch.tensor(trial_rows(model)[:1], device=model.device)
    try:
        with torch.autocast(model.device.type, dtype=torch.bfloat16, cache_enabled=False):
            outputs_of(model, input_ids=ids, attention_mask=torch.ones_like(ids))
    except Exception as error:  # whatever an architecture raises
        raise UserError(
            f"{type(model).__name__} does not run with `compute.trained_weights: bf16` ({first_line(error)}); "
            "set it to fp32."
        ) from None


@torch.no_grad()
def widen_weights(model: nn.Module) -> None:
    """Hold trained weights in float32 again, the same numbers, so that a checkpoint has one precision."""
    for weight in model.parameters():
        if weight.requires_grad and weight.dtype != torch.float32:
            weight.data = weight.data.float()


def _matrices(model: PreTrainedModel) -> list[nn.Parameter]:
    of_adapters = {
        id(weight) for layer in model.modules() if isinstance(layer, BaseTunerLayer) for weight in layer.parameters()
    }
    return [
        weight
        for name, weight in model.named_parameters()
        if weight.requires_grad and weight.dim() > 1 and id(weight) not in of_adapters and not name.startswith(HEADS)
    ]
