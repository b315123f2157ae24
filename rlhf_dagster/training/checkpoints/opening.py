"""Opening a model: one way for all stages, in which every weight is the checkpoint's own."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from transformers import AutoModelForCausalLM, PreTrainedModel

from rlhf_dagster.errors import UserError
from rlhf_dagster.lineage.weight_files import TensorHeader, tensors_of, weight_files
from rlhf_dagster.training.checkpoints.configs import open_config
from rlhf_dagster.training.checkpoints.misfits import OLD_BUFFERS, misfits_of, require_fit
from rlhf_dagster.training.checkpoints.sources import Source, foreign_errors

FLOATING = ("F64", "F32", "F16", "BF16")
"""Types of numbers that are weights as they stand; others need a scale, or are no weights."""


def open_model(
    auto_class: Any, source: Source, new: Sequence[str] = (), config_changes: Mapping[str, Any] | None = None
) -> PreTrainedModel:
    """A float32 model of ``auto_class`` on the CPU, all dropout 0, whatever type its weights are saved in.

    Raises:
        UserError: the checkpoint cannot be opened, lacks weights other than those named in ``new``, has others than
            the model reads, or weights that are not finite.
    """
    config = open_config(auto_class, source)
    config.update(dict(config_changes or {}))
    _require_floating(source)
    with foreign_errors(source.place, "the model", "check that transformers' `AutoModelForCausalLM` opens it"):
        model, report = auto_class.from_pretrained(
            **source.arguments,
            config=config,
            dtype=torch.float32,
            use_safetensors=True,
            # A weight of another shape is then reported by name, and refused below.
            ignore_mismatched_sizes=True,
            output_loading_info=True,
        )
    if getattr(model, "_hf_peft_config_loaded", False):
        raise UserError(f"{source.place}: it is a model with adapters; merge them with peft's `merge_and_unload`.")
    heads = auto_class is not AutoModelForCausalLM
    require_fit(source.place, model, misfits_of(model, report, new, heads))
    _require_finite(source, model)
    # What a folder's weights are called is no part of the model, and its next folder has other names.
    if hasattr(model.config, "transformers_weights"):
        del model.config.transformers_weights
    return model


def _require_floating(source: Source) -> None:
    """Raise UserError where a weight is saved as whole numbers or in eight bits, without a config that says how."""
    wrong = next((f"{name} ({tensor.dtype})" for name, tensor in _tensors(source) if _is_coded(name, tensor)), None)
    if wrong is not None:
        raise UserError(
            f"{source.place}: {wrong} holds no plain floating-point numbers, and config.json does not say what they "
            "mean; give the model in bfloat16, float16 or float32."
        )


def _tensors(source: Source) -> Iterator[tuple[str, TensorHeader]]:
    for file in weight_files(source.folder) if source.folder is not None else ():
        yield from tensors_of(file).items()


def _is_coded(name: str, tensor: TensorHeader) -> bool:
    is_weight = name.endswith(".weight") or (name.endswith(".bias") and len(tensor.shape) == 1)
    return is_weight and tensor.dtype not in FLOATING and not OLD_BUFFERS.search(name)


def _require_finite(source: Source, model: PreTrainedModel) -> None:
    wrong = next((name for name, weight in model.named_parameters() if not weight.isfinite().all()), None)
    if wrong is not None:
        raise UserError(f"{source.place}: {wrong} has NaN or infinite numbers; the model diverged, take another one.")
