"""Low-rank adapters (Hu et al. 2021, arXiv 2106.09685), by peft: few weights to train, no memory for a reference."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

from peft import LoraConfig, PeftModel, get_peft_model
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from rlhf_dagster.config.training import LoraSettings
from rlhf_dagster.errors import UserError, first_line


def add_lora(model: PreTrainedModel, settings: LoraSettings, keep: list[str] | None = None) -> PeftModel:
    """``model`` with adapters on its linear layers; only adapters and the modules named in ``keep`` are trained.

    Adapters begin as no change at all. With adapters switched off (``model.disable_adapter()``) the result computes the
    same as the given model, so that the reference policy of PPO needs no memory of its own.

    Raises:
        UserError: no layer has a name in ``settings.targets``.
    """
    config = LoraConfig(
        r=settings.rank,
        lora_alpha=cast("int", settings.alpha),
        lora_dropout=0.0,
        target_modules=settings.targets or "all-linear",
        fan_in_fan_out=any(isinstance(module, Conv1D) for module in model.modules()),
        modules_to_save=keep,
    )
    try:
        with warnings.catch_warnings():
            # Peft asks transformers for a property under its old name.
            warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated", FutureWarning)
            return cast("PeftModel", get_peft_model(cast("Any", model), config))
    except ValueError as error:
        raise UserError(f"No adapters can be added: {first_line(error)}; correct `lora.targets`.") from None


def merge_lora(model: PeftModel) -> PreTrainedModel:
    """The plain model with its adapters added into the weights."""
    return cast("PreTrainedModel", cast("Any", model).merge_and_unload())


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
