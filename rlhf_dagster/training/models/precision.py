"""Whether a model's own code goes with the precision that it is to compute in."""

import torch
from transformers import PreTrainedModel

from rlhf_dagster.config.training import ComputeSettings
from rlhf_dagster.errors import UserError, first_line
from rlhf_dagster.training.models.reading import outputs_of, trial_rows
from rlhf_dagster.training.runtime.device import precision


@torch.no_grad()
def require_precision(model: PreTrainedModel, compute: ComputeSettings | None) -> None:
    """Raise UserError where ``model`` does not compute in the precision of ``compute``.

    In bfloat16 some architectures add numbers of two types where PyTorch takes one (DBRX's experts).
    """
    if compute is None or compute.precision == "fp32":
        return
    ids = torch.tensor(trial_rows(model, (4, 4)), device=model.device)
    try:
        with precision(compute):
            outputs_of(model, input_ids=ids, attention_mask=torch.ones_like(ids))
    except RuntimeError as error:
        raise UserError(
            f"{type(model).__name__} does not compute in bfloat16 ({first_line(error)}); set `compute.precision: fp32`."
        ) from None
