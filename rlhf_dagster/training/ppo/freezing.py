"""Which layers and weights of a model are frozen, found by running it, and whether it then computes the same."""

import copy
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from rlhf_dagster.errors import UserError, first_line
from rlhf_dagster.training.checkpoints.tokenizers import vocabulary_rows
from rlhf_dagster.training.models.log_probs import response_outputs
from rlhf_dagster.training.models.passes.layer_lists import layer_list
from rlhf_dagster.training.models.reading import reading_of
from rlhf_dagster.training.ppo.frozen_layers import Frozen, recorded, replayed

FREEZING_LENGTHS = (11, 8, 5, 10, 3)
"""Tokens of the rows that a model is tried on."""
RESPONSE = 3
SOME_ROWS = (4, 1, 2)
"""A minibatch of these rows."""
REPLAY_TOLERANCE = 1e-3
"""Share of the largest logit: rounding stays below, also where other rows are beside."""


def freeze_layers(model: PreTrainedModel, count: int) -> None:
    """Train only the layers from number ``count`` on and what is behind them, such as the final norm.

    Frozen are the layers below, and every weight on which the states above them depend: embeddings, what stands between
    those and the layers, an output head that shares its weights with the embeddings, a block that is used again above.

    Raises UserError where no layer would be left, or where the model does not compute the same from recorded states.
    """
    name, layers = decoder_layers(model)
    if count >= len(layers):
        raise UserError(f"ppo.frozen_layers is {count} but the model has {len(layers)} layers; lower it.")
    with torch.enable_grad():
        output = _output_of(layers[count - 1], model)
        frozen = _described(model, name, count, output)
        states = frozen.states_in(output)
        weights = [parameter for parameter in model.parameters() if parameter.requires_grad]
        gradients = torch.autograd.grad(states.sum(), weights, allow_unused=True)
    read = [weight for weight, gradient in zip(weights, gradients, strict=True) if gradient is not None]
    for weight in (*read, *layers[:count].parameters()):
        weight.requires_grad_(False)
    model.frozen_layers = frozen  # type: ignore[assignment]
    _require_replay(model, model)


def frozen_layers_work(model: PreTrainedModel, count: int) -> str:
    """Why ``count`` layers of ``model`` cannot be frozen, as a sentence; empty where they can.

    Tried on a copy, whose other layers are changed as training would change them.
    """
    with torch.random.fork_rng():
        try:
            reference = copy.deepcopy(model)
            freeze_layers(reference, count)
            trained = copy.deepcopy(reference)
            _change_trained(trained)
            _require_replay(trained, reference)
        except UserError as error:
            return str(error)
    return ""


def decoder_layers(model: PreTrainedModel) -> tuple[str, nn.ModuleList]:
    """Name and list of a model's layers: of the lists that run once from first to last, that with the most weights.

    Raises UserError where there is none.
    """
    reading_of(model)  # which runs the model, if nobody has asked yet
    found = layer_list(model)
    if found is None:
        raise _refused(model, "no list of layers runs once from first to last")
    return found


def _output_of(layer: nn.Module, model: PreTrainedModel) -> Any:
    """What ``layer`` returns in a forward pass of ``model``, with its gradients."""
    outputs: list[Any] = []
    hook = layer.register_forward_hook(lambda layer, inputs, output: outputs.append(output))
    try:
        _logits(model, range(len(FREEZING_LENGTHS)))
    finally:
        hook.remove()
    return outputs[0]


def _described(model: PreTrainedModel, name: str, count: int, output: Any) -> Frozen:
    parts = output if isinstance(output, tuple | list) else [output]
    places = [place for place, part in enumerate(parts) if isinstance(part, Tensor) and part.requires_grad]
    if not places or len(FREEZING_LENGTHS) not in parts[places[0]].shape:
        raise _refused(model, f"a layer returns {type(output).__name__} without states for each row")
    kind = type(output) if parts is output else None
    return Frozen(name, count, kind, len(parts), places[0], parts[places[0]].shape.index(len(FREEZING_LENGTHS)))


@torch.no_grad()
def _require_replay(model: PreTrainedModel, reference: PreTrainedModel) -> None:
    """Raise UserError where ``model`` gives other logits from states that ``reference`` has recorded."""
    with recorded(reference) as states:
        _logits(reference, range(len(FREEZING_LENGTHS)))
    computed = _logits(model, SOME_ROWS)
    try:
        with replayed(model, states[0][list(SOME_ROWS)]):
            logits = _logits(model, SOME_ROWS)
    # Whatever an architecture's own code raises, it works where the layers compute.
    except Exception as error:
        raise _refused(model, f"its other layers need more than their states: {first_line(error)}") from None
    difference = float((logits - computed).abs().max() / computed.abs().max())
    if not difference <= REPLAY_TOLERANCE:
        raise _refused(model, f"from recorded states its logits differ by {difference:.1g} of their size")


def _logits(model: PreTrainedModel, rows: Any) -> Tensor:
    """Logits [B, T, V] for some ``rows`` of tokens, padded on the left, in float32."""
    device, width = model.device, max(FREEZING_LENGTHS)
    lengths = torch.tensor([FREEZING_LENGTHS[row] for row in rows], device=device)
    mask = (torch.arange(width, device=device) >= width - lengths[:, None]).long()
    ids = (7 * torch.arange(width, device=device) + 13 * lengths[:, None]) % vocabulary_rows(model)
    with torch.autocast(device.type, enabled=False):
        return response_outputs(model, ids, mask, RESPONSE)[0].float()


@torch.no_grad()
def _change_trained(model: PreTrainedModel) -> None:
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.add_(0.1 * parameter.std(correction=0) * torch.randn_like(parameter))


def _refused(model: PreTrainedModel, why: str) -> UserError:
    return UserError(f"Layers of {type(model).__name__} cannot be frozen ({why}); set `ppo.frozen_layers: 0`.")
