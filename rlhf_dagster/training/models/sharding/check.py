"""Whether a model computes in parts what it did whole. FSDP2 is trusted with no architecture."""

from collections.abc import Callable
from typing import cast

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from rlhf_dagster.errors import first_line
from rlhf_dagster.training.models.passes.layer_lists import TRIAL_LENGTH
from rlhf_dagster.training.models.reading import as_in_sampling, close, outputs_of, trial_rows
from rlhf_dagster.training.models.sharding.weights import reshard
from rlhf_dagster.training.runtime.distributed import first_text
from rlhf_dagster.training.runtime.sharding.tensors import full_tensor

GRADIENT_SHARE = 1e-3
"""Of the largest number in a gradient: rounding stays below."""


class NumbersBefore:
    """What a whole model gives for a few tokens: outputs, and gradients of its layers' last trained weights."""

    def __init__(self, model: PreTrainedModel, read: nn.Module, layers: nn.ModuleList) -> None:
        """Computed on this rank alone; ``read`` is the part of ``model`` that gives the outputs."""
        self.model = model
        self._read = read
        weights = dict(read.named_parameters())
        self._names = _last_trained(weights, layers)
        outputs = self._compute()
        self._outputs = outputs.detach().cpu()
        self._gradients = self._gradients_of(outputs, [weights[name] for name in self._names])

    @property
    def trains(self) -> bool:
        """Whether the model is trained."""
        return bool(self._names)

    def difference(self, times: int) -> str:
        """Why the model in parts is another one, for a sentence, the same on every rank; empty where it is not.

        All ranks call it together; their gradients, of the same tokens, come to ``times`` those of one.
        """
        try:
            return first_text(self._tried(self._other_outputs)) or (self._other_gradients(times) if self.trains else "")
        finally:
            reshard(self.model)

    def _tried(self, find: Callable[[], str]) -> str:
        try:
            return find()
        except Exception as error:  # whatever an architecture raises that reads weights past their layer
            return first_line(error)

    def _other_outputs(self) -> str:
        return "" if close(self._compute().detach().cpu(), self._outputs) else "in parts it gives other numbers"

    def _other_gradients(self, times: int) -> str:
        if why := first_text(self._tried(self._without_gradient)):
            return why
        weights = dict(self._read.named_parameters())
        after = [full_tensor(cast("Tensor", weights[name].grad)).cpu() / times for name in self._names]
        for weight in weights.values():
            weight.grad = None
        same = (_same(one, other) for one, other in zip(after, self._gradients, strict=True))
        return first_text("" if all(same) else "in parts it has other gradients")

    def _without_gradient(self) -> str:
        """A weight without a gradient: where it is left out on some ranks alone, the others would wait for it."""
        _loss(self._compute()).backward()
        reshard(self.model)
        trained = [(name, weight) for name, weight in self._read.named_parameters() if weight.requires_grad]
        without = next((name for name, weight in trained if weight.grad is None), "")
        return without and f"{without} has no part in a pass over a few tokens"

    def _compute(self) -> Tensor:
        ids = torch.tensor(trial_rows(self.model, (TRIAL_LENGTH,)), device=self.model.device)
        with torch.set_grad_enabled(self.trains), as_in_sampling(self.model):
            return outputs_of(self.model, input_ids=ids, attention_mask=torch.ones_like(ids))

    @staticmethod
    def _gradients_of(outputs: Tensor, weights: list[nn.Parameter]) -> list[Tensor | None]:
        found = torch.autograd.grad(_loss(outputs), weights, allow_unused=True) if weights else ()
        return [None if gradient is None else gradient.cpu() for gradient in found]


def _last_trained(weights: dict[str, nn.Parameter], layers: nn.ModuleList) -> list[str]:
    """The name of the last trained weight of each layer, which is small, or the outer half of an adapter."""
    names = {id(weight): name for name, weight in weights.items()}
    trained = [[weight for weight in layer.parameters() if weight.requires_grad] for layer in layers]
    return [names[id(own[-1])] for own in trained if own]


def _loss(outputs: Tensor) -> Tensor:
    return outputs.float().square().mean()


def _same(after: Tensor, before: Tensor | None) -> bool:
    if before is None:
        return False
    return torch.allclose(after, before, rtol=GRADIENT_SHARE, atol=GRADIENT_SHARE * float(before.abs().max()))
