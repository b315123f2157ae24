"""A language model's trunk: all of it below its output head, from token ids to the last hidden states."""

import inspect
from typing import Any, cast

from torch import Tensor, nn
from transformers import PreTrainedModel

from rlhf_dagster.errors import UserError
from rlhf_dagster.training.models.tokens import PaddedBatch, position_ids

USUAL_NAME = "model"
"""The trunk's name where a class names another module as its base, which it does not have (Llama 4, Mllama)."""


def trunk_name(model: nn.Module) -> str:
    """The name of the submodule of a causal language model that is its trunk; raises UserError where it has none."""
    for name in (getattr(model, "base_model_prefix", ""), USUAL_NAME):
        if name and isinstance(getattr(model, name, None), nn.Module):
            return name
    raise UserError(f"{type(model).__name__} has no trunk of its own below its output head.")


def run_trunk(trunk: nn.Module, batch: PaddedBatch) -> Tensor:
    """The last hidden states [B, L, d] of ``trunk`` at [B, L] ids; what it computes at padding means nothing."""
    outputs = trunk(batch.input_ids, **_understood(trunk, batch.attention_mask))
    states = getattr(outputs, "last_hidden_state", None)
    return cast("Tensor", outputs[0] if states is None else states)


def _understood(trunk: nn.Module, attention_mask: Tensor) -> dict[str, Any]:
    """The arguments that the trunk takes by name. What it would take as one of any others, it might not read."""
    offered = {"attention_mask": attention_mask, "position_ids": position_ids(attention_mask), "use_cache": False}
    parameters = inspect.signature(trunk.forward).parameters
    if any(parameter.kind == parameter.VAR_POSITIONAL for parameter in parameters.values()):
        # A decoder in a wrapper that passes on whatever it gets (BART's kin): each has a mask and a cache.
        return {name: offered[name] for name in ("attention_mask", "use_cache")}
    return {name: value for name, value in offered.items() if name in parameters}


def head_width(model: PreTrainedModel) -> int:
    """The width of the states that the output head of a causal language model reads.

    It is not always the hidden size: OPT-350m projects the states to the width of its embeddings, and so does ELECTRA.
    Raises UserError where there is no linear output head.
    """
    head = model.get_output_embeddings()
    if not isinstance(head, nn.Linear):
        raise UserError(
            f"{type(model).__name__} has no linear output head whose states values could be read from; "
            "set `ppo.value: separate`, or choose another base model."
        )
    return head.in_features


def trunk_width(model: PreTrainedModel) -> int:
    """The width d of the trunk's last hidden states, by the layers of ``model``, which may be on the meta device."""
    name, head = trunk_name(model), model.get_output_embeddings()
    of_head = {id(weight) for weight in head.parameters()} if isinstance(head, nn.Linear) else set()
    behind = {id(weight) for child, module in model.named_children() if child != name for weight in module.parameters()}
    if isinstance(head, nn.Linear) and behind <= of_head:
        return head.in_features
    # Layers stand between trunk and output head (BERT's kin); their trunks all have the hidden size.
    return cast("int", model.config.get_text_config().hidden_size)
