"""Cutting a model into parts: a group of weights for each layer, and one for what stands around the layers.

FSDP2 is trusted with no architecture: after a model is cut it must give the numbers, and where it is trained the
gradients, that it gave before, tried on a few tokens.
"""

import warnings
from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from rlhf_dagster.errors import UserError, first_line
from rlhf_dagster.training.models.low_precision.quantised import QuantisedLinear
from rlhf_dagster.training.models.passes.layer_lists import TRIAL_LENGTH, layer_list
from rlhf_dagster.training.models.passes.logit_pieces import plain_model
from rlhf_dagster.training.models.reading import as_in_sampling, close, outputs_of, trial_rows
from rlhf_dagster.training.models.sharding.weights import STAYS_WHOLE, reshard
from rlhf_dagster.training.runtime.distributed import first_text, world
from rlhf_dagster.training.runtime.sharding.tensors import full_tensor, ranks_mesh

GRADIENT_SHARE = 1e-3
"""Of the largest number in a gradient: rounding stays below."""
Check = Callable[[], None]
"""What all ranks do together once each has cut a model; raises UserError on all of them where it is not the same."""


def shard_model(model: nn.Module, device: torch.device, mean: bool) -> Check:
    """Cut ``model``, which is whole and may have adapters, in place; returns the check that is to follow.

    Args:
        model: a causal language model or a sequence scorer, whose trunk and head are then called apart.
        device: where its parts go, a layer at a time.
        mean: whether gradients are averaged over ranks, as DDP does, instead of summed.

    Raises UserError where it cannot be cut.
    """
    plain = plain_model(model)
    found = layer_list(plain)
    if found is None:
        raise _refused(plain, "no list of layers runs once from first to last")
    if any(isinstance(part, QuantisedLinear) for part in plain.modules()):
        raise UserError(
            "Weights under `lora.base_bits` cannot be sharded; leave it out, or set compute.sharding: none."
        )
    before = _Numbers(plain, found[1])
    _own_parameters(plain)
    for layer in found[1]:
        _cut(layer, device, mean)
    # A head is called again on states from inside a pass, so that it stays whole behind it.
    stays_whole = plain.get_output_embeddings() is not None or bool(before.names)
    for root in _roots(plain):
        _cut(root, device, mean, stays_whole)
    return lambda: before.compare(mean)


def shard_module(module: nn.Module, device: torch.device, mean: bool) -> None:
    """Cut a small ``module`` that is called by itself, such as a value head, in place."""
    _cut(module, device, mean, stays_whole=True)


def _roots(plain: PreTrainedModel) -> list[nn.Module]:
    """The outermost modules that are called: a language model, or a scorer's trunk and its head."""
    if plain.get_output_embeddings() is not None:
        return [plain]
    return [plain.base_model, cast("nn.Module", plain.score)]


def _own_parameters(model: nn.Module) -> None:
    """Give ``model`` parameters of its own in the same memory: to cut one moves it, also for others that hold it."""
    own: dict[int, nn.Parameter] = {}
    for name, weight in list(model.named_parameters(remove_duplicate=False)):
        place, _, leaf = name.rpartition(".")
        made = own.setdefault(id(weight), nn.Parameter(weight.detach(), requires_grad=weight.requires_grad))
        model.get_submodule(place)._parameters[leaf] = made


def _cut(module: nn.Module, device: torch.device, mean: bool, stays_whole: bool = False) -> None:
    """Have FSDP2 manage the weights of ``module`` that are not cut yet; whether they stay whole after a pass."""
    from torch.distributed.fsdp import fully_shard

    # Gradients are compared below, which says more than that an in-place operation would lose them.
    warnings.filterwarnings("ignore", ".*FSDP2-wrapped module .* returned a view tensor", UserWarning)
    name = type(module).__name__
    sharded = fully_shard(module, mesh=ranks_mesh(device.type), reshard_after_forward=not stays_whole)
    type(sharded).__name__ = name  # as sentences and config.json call it
    setattr(sharded, STAYS_WHOLE, stays_whole)
    if not mean:
        sharded.set_gradient_divide_factor(1.0)
    # Gloo knows sums alone.
    sharded.set_force_sum_reduction_for_comms(True)


class _Numbers:
    """Outputs of a model for a few tokens, and gradients of its layers' last trained weights."""

    def __init__(self, model: PreTrainedModel, layers: nn.ModuleList) -> None:
        """Computed on this rank, while ``model`` is whole."""
        self.model = model
        self.read = _roots(model)[0]
        self.names = _watched(self.read, layers)
        weights = dict(self.read.named_parameters())
        outputs = self._outputs()
        self.outputs = outputs.detach().cpu()
        watched = [weights[name] for name in self.names]
        found = torch.autograd.grad(_loss(outputs), watched, allow_unused=True) if watched else ()
        self.gradients = [None if gradient is None else gradient.cpu() for gradient in found]

    def compare(self, mean: bool) -> None:
        """Raise UserError, on all ranks, where the model in parts gives other numbers; all ranks call it together."""
        if why := first_text(self._difference(1 if mean else world())):
            raise _refused(self.model, why)

    def _difference(self, times: int) -> str:
        try:
            outputs = self._outputs()
            if not close(outputs.detach().cpu(), self.outputs):
                return "in parts it gives other numbers"
            return self._other_gradients(outputs, times)
        except Exception as error:  # whatever an architecture raises that reads weights past their layer
            return first_line(error)
        finally:
            reshard(self.model)

    def _other_gradients(self, outputs: Tensor, times: int) -> str:
        if not self.names:
            return ""
        _loss(outputs).backward()
        reshard(self.model)
        trained = {name: weight for name, weight in self.read.named_parameters() if weight.requires_grad}
        without = [name for name, weight in trained.items() if weight.grad is None]
        after = [full_tensor(cast("Tensor", trained[name].grad)) for name in self.names if name not in without]
        for weight in trained.values():
            weight.grad = None
        if without:
            return f"{without[0]} has no part in a pass over a few tokens"
        same = (_same(one.cpu() / times, other) for one, other in zip(after, self.gradients, strict=True))
        return "" if all(same) else "in parts it has other gradients"

    def _outputs(self) -> Tensor:
        ids = torch.tensor(trial_rows(self.model, (TRIAL_LENGTH,)), device=self.model.device)
        with torch.set_grad_enabled(bool(self.names)), as_in_sampling(self.model):
            return outputs_of(self.model, input_ids=ids, attention_mask=torch.ones_like(ids))


def _watched(model: nn.Module, layers: nn.ModuleList) -> list[str]:
    """The name of the last trained weight of each layer, which is small, or the outer half of an adapter."""
    names = {id(weight): name for name, weight in model.named_parameters()}
    trained = [[weight for weight in layer.parameters() if weight.requires_grad] for layer in layers]
    return [names[id(weights[-1])] for weights in trained if weights]


def _loss(outputs: Tensor) -> Tensor:
    return outputs.float().square().mean()


def _same(after: Tensor, before: Tensor | None) -> bool:
    if before is None:
        return False
    return torch.allclose(after, before, rtol=GRADIENT_SHARE, atol=GRADIENT_SHARE * float(before.abs().max()))


def _refused(model: Any, why: str) -> UserError:
    return UserError(f"{type(model).__name__} cannot be sharded ({why}); set compute.sharding to none.")
