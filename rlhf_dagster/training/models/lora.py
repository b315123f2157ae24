"""Low-rank adapters (Hu et al. 2021, arXiv 2106.09685), by peft: few weights to train, no memory for a reference."""

import copy
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, cast

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from torch import Tensor
from transformers import PreTrainedModel

from rlhf_dagster.config.training import LoraSettings
from rlhf_dagster.errors import UserError, first_line
from rlhf_dagster.training.models.adapted_layers import (
    linear_layers,
    require_weights_of_their_own,
    share_adapters,
    silence_copies,
)
from rlhf_dagster.training.models.merge_check import require_same_outputs, some_outputs


def add_lora(model: PreTrainedModel, settings: LoraSettings, keep: Sequence[str] = ()) -> PeftModel:
    """``model`` with adapters on its linear layers; only adapters and the modules named in ``keep`` are trained.

    Without ``settings.targets`` these are all linear layers but the output head and the routers of experts
    (:func:`linear_layers`). Layers that share their weights share their adapter. Adapters begin as no change at all.
    With adapters switched off (``model.disable_adapter()``) the result computes the same as the given model, so that
    the reference policy of PPO needs no memory of its own. With ``settings.merge``, modules in ``keep`` are trained in
    copies, which peft puts in their place.

    Raises:
        UserError: no layer has a name in ``settings.targets``, or one shares its weights with a module that gets none.
    """
    before = some_outputs(model)
    config = LoraConfig(
        r=settings.rank,
        lora_alpha=cast("int", settings.alpha),
        lora_dropout=0.0,
        target_modules=settings.targets or linear_layers(model, keep),
        modules_to_save=list(keep) or None if settings.merge else None,
    )
    try:
        with wrapped_by_peft():
            adapted = cast("PeftModel", get_peft_model(cast("Any", model), config))
    except ValueError as error:
        remedy = "correct `lora.targets`" if settings.targets else "leave `lora` out"
        raise UserError(f"No adapters can be added: {first_line(error)}; {remedy}.") from None
    if not settings.merge:
        for name in keep:
            model.get_submodule(name).requires_grad_(True)
    require_weights_of_their_own(adapted)
    share_adapters(adapted)
    _require_no_change(adapted, before)
    return adapted


def _require_no_change(adapted: PeftModel, before: Tensor) -> None:
    """Raise UserError where a model whose adapters have learned nothing does not give the outputs ``before``."""
    model = inner_model(adapted)
    try:
        outputs = some_outputs(model)
    except Exception as error:  # whatever an architecture raises where a layer is not the one it made
        raise UserError(
            f"{type(model).__name__} does not run with adapters ({first_line(error)}); leave `lora` out."
        ) from None
    if not torch.allclose(outputs, before, rtol=1e-3, atol=1e-3 * float(before.abs().max())):
        raise UserError(f"{type(model).__name__} passes its adapters over; leave `lora` out.")


def merge_lora(model: PeftModel) -> PreTrainedModel:
    """The plain model with its adapters added into the weights.

    Raises UserError where it does not compute what the model with adapters did.
    """
    before = some_outputs(inner_model(model))
    silence_copies(model)
    # The product of an adapter's two factors is a weight, which a training in bfloat16 would round here.
    with torch.autocast(before.device.type, enabled=False):
        merged = cast("PreTrainedModel", cast("Any", model).merge_and_unload())
    require_same_outputs(merged, before)
    return merged


def adapters_merge(model: PreTrainedModel, settings: LoraSettings | None = None) -> str:
    """Why adapters cannot be trained in ``model`` and merged, as a sentence; empty where they can.

    Tried on a copy, with random adapters; ``model`` and the random numbers that others draw stay as they are.
    """
    with torch.random.fork_rng():
        try:
            adapted = add_lora(copy.deepcopy(model), settings or LoraSettings(rank=2))
            _draw_adapters(adapted)
            with adapted.disable_adapter():
                require_same_outputs(inner_model(adapted), some_outputs(model))
            merge_lora(adapted)
        except UserError as error:
            return str(error)
        # Whatever an architecture's own code raises, it works without adapters.
        except Exception as error:
            return f"{type(model).__name__} cannot be trained with adapters ({first_line(error)}); leave `lora` out."
    return ""


@torch.no_grad()
def _draw_adapters(model: PeftModel) -> None:
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            parameter.normal_(std=0.1)


def inner_model(model: PeftModel) -> PreTrainedModel:
    """The model that holds the adapters in its layers, and is called like a model without adapters."""
    return cast("PreTrainedModel", model.get_base_model())


@contextmanager
def without_adapters(model: PreTrainedModel | PeftModel) -> Iterator[PreTrainedModel]:
    """A model with its adapters switched off, as it was before training; a model without adapters as it is."""
    if not isinstance(model, PeftModel):
        yield model
        return
    with model.disable_adapter():
        yield inner_model(model)


@contextmanager
def wrapped_by_peft() -> Iterator[None]:
    """For calls of peft that put adapters into a model, without their warnings."""
    with warnings.catch_warnings():
        # Peft asks transformers for a property under its old name.
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated", FutureWarning)
        # GPT-2's linear layers hold their weights the other way round, which peft sees for each layer, and says.
        warnings.filterwarnings("ignore", "fan_in_fan_out is set to False")
        yield
