"""The outline of a model that is known by its config alone: the folder that it would have, without its weights."""

import json
import struct
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, PretrainedConfig

from rlhf_dagster.lineage.weight_files import SINGLE_FILE


def write_outline(config: PretrainedConfig, folder: Path) -> Path:
    """Write ``config`` and the header of the weights that a causal language model of it has; returns ``folder``.

    Nothing of the size of the weights is made. Raises ValueError where transformers has no such model.
    """
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    config.save_pretrained(folder)
    tensors = {
        name: {"dtype": "F32", "shape": list(parameter.shape), "data_offsets": [0, 0]}
        for name, parameter in model.named_parameters()
    }
    header = json.dumps(tensors).encode()
    (folder / SINGLE_FILE).write_bytes(struct.pack("<Q", len(header)) + header)
    return folder
