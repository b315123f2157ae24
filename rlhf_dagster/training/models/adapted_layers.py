"""Which layers of a model get adapters, and what happens where layers share their weights."""

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from typing import cast

import torch
from peft import PeftModel
from peft.tuners.lora import LoraLayer
from peft.tuners.lora.layer import ParamWrapper
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.conv import _ConvNd
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from rlhf_dagster.errors import UserError
from rlhf_dagster.training.models.low_precision.quantised import QuantisedLinear
from rlhf_dagster.training.models.merge_check import some_outputs

ADAPTER = "default"
"""Peft's name of the one adapter."""
COUNTS = ("num_experts", "num_local_experts", "n_routed_experts", "num_routed_experts", "moe_num_experts")
"""What configs call the number of experts."""


def linear_layers(model: PreTrainedModel, keep: Sequence[str] = ()) -> list[str]:
    """Names of the linear layers that get adapters; raises UserError where there are none.

    Left out are the output head; the modules named in ``keep``; layers whose weights the model reads without calling
    them, or shares with a module that is not linear; and in a mixture of experts the routers, of which a small change
    sends tokens elsewhere. Where experts are one tensor, as most are in transformers 5, they are not linear layers: the
    feed-forward parts of such a model stay as they are, dense and shared ones too.
    """
    whole = [*_fused_parts(model), *(model.get_submodule(name) for name in keep)]
    left_out = {model.get_output_embeddings(), *_routers(model), *_mamba_outputs(model)}
    left_out |= {module for part in whole for module in part.modules()}
    called = _called(model)
    names = [
        name
        for name, module in model.named_modules()
        if module not in left_out and is_linear(module) and called(module)
    ]
    shared, own = _names_of_weights(model), {f"{name}.weight" for name in names}
    names = [name for name in names if set(shared[id(_weight(model, name))]) <= own]
    if not names:
        raise UserError(f"{type(model).__name__} has no linear layers to add adapters to; leave `lora` out.")
    return names


@torch.no_grad()
def is_linear(module: nn.Module) -> bool:
    """Whether a layer is a linear map and nothing else; some subclasses, such as Llama 4's router, are more."""
    if isinstance(module, QuantisedLinear):
        return True
    if not isinstance(module, nn.Linear | Conv1D):
        return False
    weight = (module.weight.t() if isinstance(module, Conv1D) else module.weight).float()
    x = torch.linspace(-1, 1, weight.shape[1], device=weight.device)[None, None]
    with torch.autocast(weight.device.type, enabled=False):
        try:
            y = module(x)
        except RuntimeError:  # it takes something of another shape, as DeepSeek V4's layers of groups do
            return False
        return isinstance(y, Tensor) and torch.allclose(y, F.linear(x, weight, module.bias), rtol=1e-3, atol=1e-4)


def _called(model: PreTrainedModel) -> Callable[[nn.Module], bool]:
    """Whether a forward pass of ``model`` calls a layer, or another one of its place in the model (an expert's)."""
    calls: set[str] = set()
    names: dict[nn.Module, str] = {
        module: name for name, module in model.named_modules() if isinstance(module, nn.Linear | Conv1D)
    }
    hooks = [layer.register_forward_pre_hook(lambda layer, _: calls.add(_place(names[layer]))) for layer in names]
    try:
        some_outputs(model)
    finally:
        for hook in hooks:
            hook.remove()
    return lambda layer: _place(names[layer]) in calls


def _place(name: str) -> str:
    """A module's name without the numbers of layers and experts."""
    return ".".join(part for part in name.split(".") if not part.isdecimal())


def _routers(model: PreTrainedModel) -> Iterator[nn.Module]:
    """Linear layers that have one output for each of the experts beside them."""
    for experts in _expert_counts(model):
        for block in model.modules():
            if any(isinstance(child, nn.ModuleList) and len(child) == experts for child in block.children()):
                yield from (part for part in block.children() if getattr(part, "out_features", 0) == experts)


def _fused_parts(model: PreTrainedModel) -> Iterator[nn.Module]:
    """The parts of layers that hold experts as one tensor [E, ., .], and dense parts in their place in other layers."""
    counts = _expert_counts(model)
    for name, module in model.named_modules():
        tensors = [] if isinstance(module, _ConvNd) else list(module.parameters(recurse=False))
        if any(tensor.dim() == 3 and tensor.shape[0] in counts for tensor in tensors):
            layer, _, part = name.rpartition(".")[0].rpartition(".")
            yield model.get_submodule(f"{layer}.{part}")
            # Where a layer has a single part, such as Nemotron-H's `mixer`, others hold other things in its place.
            if sum(_has_linear(child) for child in model.get_submodule(layer).children()) > 1:
                yield from (other for place, other in model.named_modules() if place.endswith(f".{part}"))


def _has_linear(module: nn.Module) -> bool:
    return any(isinstance(part, nn.Linear | Conv1D) for part in module.modules())


def _mamba_outputs(model: nn.Module) -> Iterator[nn.Module]:
    """Mamba's output layers, whose weights its fused kernels read without calling them; peft refuses some by name."""
    for mixer in model.modules():
        if hasattr(mixer, "conv1d") and hasattr(mixer, "out_proj"):
            yield cast("nn.Module", mixer.out_proj)


def _expert_counts(model: PreTrainedModel) -> set[int]:
    config = model.config.get_text_config()
    return {count for name in COUNTS if isinstance(count := getattr(config, name, None), int) and count > 1}


def require_weights_of_their_own(model: PeftModel) -> None:
    """Raise UserError where a layer with an adapter shares its weights with a module without: no merge can be right."""
    names = _names_of_weights(model)
    for name, layer in _adapted(model):
        others = [other for other in names[id(_base_weight(layer))] if ".base_layer." not in other]
        if others:
            raise UserError(
                f"lora.targets: {_short(name)} shares its weights with {_short(others[0])}, which would change with "
                "it; leave it out."
            )


def share_adapters(model: PeftModel) -> None:
    """Give one adapter to layers that share their weights, such as Zamba's repeated blocks, so that they go on to."""
    for first, *others in _sharing(model):
        for other in others:
            other.lora_A, other.lora_B = first.lora_A, first.lora_B


def silence_copies(model: PeftModel) -> None:
    """Of layers that share their weights only the first adds its adapter to them in a merge."""
    for _, *others in _sharing(model):
        for other in others:
            other.scaling[ADAPTER] = 0.0


def _sharing(model: PeftModel) -> list[list[LoraLayer]]:
    groups: dict[int, list[LoraLayer]] = defaultdict(list)
    for _, layer in _adapted(model):
        groups[id(_base_weight(layer))].append(layer)
    return [layers for layers in groups.values() if len(layers) > 1]


def _adapted(model: nn.Module) -> list[tuple[str, LoraLayer]]:
    return [(name, module) for name, module in model.named_modules() if isinstance(module, LoraLayer)]


def _base_weight(layer: LoraLayer) -> nn.Parameter:
    """The weight that an adapter is added to; experts that are one tensor are named by the user."""
    if isinstance(layer, ParamWrapper):
        return layer.get_param()
    return cast("nn.Parameter", layer.get_base_layer().weight)


def _weight(model: nn.Module, name: str) -> nn.Parameter:
    return cast("nn.Parameter", model.get_submodule(name).weight)


def _names_of_weights(model: nn.Module) -> dict[int, list[str]]:
    """All names of each parameter."""
    names: dict[int, list[str]] = defaultdict(list)
    for name, parameter in model.named_parameters(remove_duplicate=False):
        names[id(parameter)].append(name)
    return names


def _short(name: str) -> str:
    return name.removeprefix("base_model.model.").replace(".base_layer", "").removesuffix(".weight")
