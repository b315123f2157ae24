"""The list of a model's layers, found by running it."""

import torch
from torch import nn
from transformers import PreTrainedModel

from rlhf_dagster.training.models.reading import as_in_sampling, outputs_of, trial_rows

TRIAL_LENGTH = 7


def layer_list(model: PreTrainedModel) -> tuple[str, nn.ModuleList] | None:
    """Name and list of a model's layers: of the lists that run once from first to last, that with the most weights.

    None where there is none.
    """
    calls = _calls(model)
    lists = [
        (name, layers)
        for name, layers in model.named_modules()
        if isinstance(layers, nn.ModuleList) and _runs_once(layers, calls)
    ]
    return max(lists, key=lambda found: sum(weight.numel() for weight in found[1].parameters()), default=None)


@torch.no_grad()
def _calls(model: PreTrainedModel) -> list[nn.Module]:
    """The members of all lists of modules, in the order in which a forward pass calls them."""
    members = {part for layers in model.modules() if isinstance(layers, nn.ModuleList) for part in layers}
    calls: list[nn.Module] = []
    hooks = [part.register_forward_pre_hook(lambda part, _: calls.append(part)) for part in members]
    ids = torch.tensor(trial_rows(model, (TRIAL_LENGTH,)), device=model.device)
    try:
        with as_in_sampling(model):
            outputs_of(model, input_ids=ids, attention_mask=torch.ones_like(ids))
    finally:
        for hook in hooks:
            hook.remove()
    return calls


def _runs_once(layers: nn.ModuleList, calls: list[nn.Module]) -> bool:
    members = set(layers)
    return [part for part in calls if part in members] == list(layers)
