"""The weights in a Trainer's checkpoint: as this release keeps them, or as version 0.1 did, by `save_pretrained`."""

import tempfile
from collections.abc import Mapping
from pathlib import Path

import torch
from peft import PeftModel, get_peft_model_state_dict
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import PreTrainedModel

from rlhf_dagster.errors import first_line
from rlhf_dagster.training.runtime.weights import STATE_WEIGHTS, changing_tensors, copy_into, misfit, read_weights

FULL, ADAPTER_FILE = "model*.safetensors", "adapter_model.safetensors"


def weights_misfit(model: nn.Module, checkpoint: Path) -> str:
    """Why the training of ``model`` cannot go on from a checkpoint, for a sentence; empty where it can."""
    try:
        return misfit(*_own_and_kept(model, checkpoint))
    except (OSError, RuntimeError, ValueError, SafetensorError) as error:
        return f"its weights cannot be read: {first_line(error)}"


def take_weights(model: nn.Module, checkpoint: Path) -> None:
    """Copy a checkpoint's weights into ``model``; raises RuntimeError where they are not those of all its tensors."""
    copy_into(*_own_and_kept(model, checkpoint))


def _own_and_kept(model: nn.Module, checkpoint: Path) -> tuple[Mapping[str, Tensor], Mapping[str, Tensor]]:
    if (checkpoint / STATE_WEIGHTS).is_file():
        return changing_tensors(model), read_weights(checkpoint)
    kept = _read_pretrained(checkpoint)
    own = get_peft_model_state_dict(model) if isinstance(model, PeftModel) else _saved_as_they_are(model)
    if _distinct(own) != _distinct(changing_tensors(model)):
        raise ValueError("version 0.1 kept other tensors of this architecture")
    return own, kept


def _read_pretrained(folder: Path) -> dict[str, Tensor]:
    """The tensors in a folder that `save_pretrained` wrote, in one file or several."""
    files = [*folder.glob(FULL), *folder.glob(ADAPTER_FILE)]
    return {name: tensor for file in files for name, tensor in load_file(file).items()}


def _saved_as_they_are(model: nn.Module) -> dict[str, Tensor]:
    """The tensors of ``model``, each under that of its names which `save_pretrained` takes.

    Raises ValueError where that renames, splits or turns tensors.
    """
    own = model.state_dict()
    if not isinstance(model, PreTrainedModel):
        return own
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        written = _read_pretrained(Path(folder))
    if any(name not in own or not torch.equal(tensor, own[name].cpu()) for name, tensor in written.items()):
        raise ValueError("version 0.1 wrote tensors of this architecture under other names")
    return {name: own[name] for name in written}


def _distinct(tensors: Mapping[str, Tensor]) -> set[int]:
    """Addresses of the tensors' memory: the same for names of one tensor."""
    return {tensor.data_ptr() for tensor in tensors.values()}
