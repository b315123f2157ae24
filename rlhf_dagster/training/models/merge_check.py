"""Whether a model computes the same as before a change of its weights that should change nothing."""

import torch
from torch import Tensor
from transformers import PreTrainedModel

from rlhf_dagster.errors import UserError
from rlhf_dagster.training.checkpoints.tokenizers import vocabulary_rows
from rlhf_dagster.training.models.reading import accepted

ROWS, LENGTH = 2, 8
MERGE_TOLERANCE = 1e-4
"""Share of the largest output. Rounding in float32 stays below, an adapter that is lost or added twice does not."""


@torch.no_grad()
def some_outputs(model: PreTrainedModel) -> Tensor:
    """What ``model`` gives for a few tokens, in float32: logits [B, L, V], or a classifier's scores [B, H]."""
    ids = (torch.arange(ROWS * LENGTH, device=model.device) * 7 + 5).view(ROWS, LENGTH) % vocabulary_rows(model)
    with torch.autocast(model.device.type, enabled=False):
        return model(
            **accepted(model, input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False)
        ).logits.float()


def require_same_outputs(merged: PreTrainedModel, before: Tensor) -> None:
    """Raise UserError where ``merged`` does not give the outputs ``before``.

    Half of the positions have to agree: rounding may send single tokens to other experts, a wrong merge changes all.
    """
    after = some_outputs(merged)
    error = (after - before).abs().amax(dim=-1).median() / before.abs().max().clamp(min=1e-6)
    if not error <= MERGE_TOLERANCE:
        raise UserError(
            f"The adapters of {type(merged).__name__} cannot be merged: the merged model's outputs differ by "
            f"{error:.1g} of their size; leave `lora` out."
        )
