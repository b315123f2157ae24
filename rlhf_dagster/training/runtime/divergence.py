"""Checks that a training has not diverged, before its model is written."""

import math

from torch import nn

from rlhf_dagster.errors import UserError


def require_finite_loss(loss: float, step: int) -> None:
    """Raise UserError where the ``loss`` of a step, counted from 1, is no finite number."""
    if not math.isfinite(loss):
        raise UserError(f"The training diverged: the loss of step {step} is {loss:g}; lower the learning rate.")


def require_finite_weights(model: nn.Module) -> None:
    """Raise UserError where a weight is not finite, which no loss shows: the last one is from before the last step."""
    wrong = next((name for name, weight in model.named_parameters() if not weight.isfinite().all()), None)
    if wrong is not None:
        raise UserError(f"The training diverged: {wrong} is not finite at its end; lower the learning rate.")
