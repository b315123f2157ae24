"""A language model's trunk: all of it below its output head, from token ids to the last hidden states."""

from typing import cast

from torch import nn
from transformers import PreTrainedModel

from rlhf_dagster.errors import UserError

USUAL_NAME = "model"
"""The trunk's name where a class names another module as its base, which it does not have (Llama 4, Mllama)."""


def trunk_name(model: nn.Module) -> str:
    """The name of the submodule of a causal language model that is its trunk; raises UserError where it has none."""
    for name in (getattr(model, "base_model_prefix", ""), USUAL_NAME):
        if name and isinstance(getattr(model, name, None), nn.Module):
            return name
    raise UserError(f"{type(model).__name__} has no trunk of its own below its output head.")


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
