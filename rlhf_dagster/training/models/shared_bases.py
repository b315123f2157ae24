"""One plain model under all adapters of a stage: its weights are in memory once.

Policy, reference, reward model and value model are modules of their own, each with its adapters and its head, whose
frozen weights are the same tensors. So nothing has to be switched on or off between them: what one of them computes
does not depend on what another has computed last, nor do gradients, also where layers are computed again for them.

They are frozen, so they are held in bfloat16 where products are computed in it, or in 4 or 8 bits.
"""

import copy
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, GenerationConfig, PretrainedConfig, PreTrainedModel
from transformers.utils import GENERATION_CONFIG_NAME

from rlhf_dagster.config.training import ComputeSettings, LoraSettings
from rlhf_dagster.lineage.adapter_folders import adapter_base, find_base
from rlhf_dagster.lineage.model_folders import holds_adapters
from rlhf_dagster.training.checkpoints.configs import open_config
from rlhf_dagster.training.checkpoints.opening import open_model
from rlhf_dagster.training.checkpoints.randomness import always_in_evaluation_mode
from rlhf_dagster.training.checkpoints.sources import Source, folder_source
from rlhf_dagster.training.models.abilities import recall_abilities
from rlhf_dagster.training.models.adapted_layers import linear_layers
from rlhf_dagster.training.models.fast_layers import use_fast_layers
from rlhf_dagster.training.models.low_precision.held_weights import hold_in_bfloat16
from rlhf_dagster.training.models.low_precision.quantised import code_states, quantise
from rlhf_dagster.training.models.own_adapters import add_saved_adapters, own_adapters, trained_in_adapters
from rlhf_dagster.training.models.reading import reading_of
from rlhf_dagster.training.runtime.device import use_device

_NOT_OF_THE_MODEL = ("architectures", "_name_or_path", "transformers_version", "dtype", "torch_dtype", "vocab_size")
"""What in a config says nothing about how this model computes, or is decided by its weights."""


class SharedBases:
    """The plain models of one stage, each opened once."""

    def __init__(self, compute: ComputeSettings | None = None, lora: LoraSettings | None = None) -> None:
        """On the device of ``compute``; without it, on the CPU.

        ``lora`` are the stage's adapters, which say how a plain model is held that gets its first ones.
        """
        self.device = torch.device("cpu") if compute is None else use_device(compute)
        self.held = compute is not None and compute.precision == "bf16"
        self.bits = None if lora is None or lora.merge else lora.base_bits
        self._opened: dict[tuple[Path, int | None, int], PreTrainedModel] = {}

    def open(
        self, auto_class: Any, folder: Path, new: Sequence[str] = (), changes: Mapping[str, Any] | None = None
    ) -> PreTrainedModel:
        """A model of ``auto_class`` on the weights that others share, with the adapters in ``folder`` if it has any.

        ``auto_class`` has a `from_causal` that builds on a causal language model, or opens these themselves. Heads in
        ``new`` may be missing in the folder. Raises UserError where it cannot be opened.
        """
        if not holds_adapters(folder):
            plain = self._plain(folder, self.bits, open_config(AutoModelForCausalLM, folder_source(folder)))
            return _opened_as(_on(auto_class, plain, _changed(plain.config, changes)), folder)
        base, place = adapter_base(folder), find_base(folder)
        config = _changed(open_config(auto_class, Source(str(folder))), changes)
        plain = self._plain(place, base.bits, config)
        model = _on(auto_class, plain, config)
        heads = [name for name, _ in model.named_children() if name not in dict(plain.named_children())]
        _with_generation(add_saved_adapters(model, folder, base, place, heads, new), folder)
        return _opened_as(model, folder)

    def _plain(self, folder: Path, bits: int | None, config: PretrainedConfig) -> PreTrainedModel:
        rows = config.get_text_config().vocab_size
        key = (folder.resolve(), bits, rows)
        if key not in self._opened:
            plain = _plain_model(folder, rows)
            if bits is not None:
                quantise(plain, linear_layers(plain), bits, self.device)
            if self.held:
                hold_in_bfloat16(plain)
            self._opened[key] = plain.to(self.device)  # type: ignore[arg-type]
        return self._opened[key]


def bases_of(lora: LoraSettings | None, compute: ComputeSettings) -> SharedBases | None:
    """What the models of a stage share whose adapters are these; None where it trains all weights or merges."""
    return None if lora is None or lora.merge else SharedBases(compute, lora)


def shared_copy(model: PreTrainedModel) -> PreTrainedModel:
    """A model of its own on the weights of ``model``, which are the same tensors; adapters and heads are copied."""
    own = own_adapters(model)
    heads = tuple(f"{head}." for head in own.heads) if own else ()
    shared = [
        tensor
        for name, tensor in (*model.named_parameters(), *model.named_buffers())
        if not trained_in_adapters(name) and not (heads and name.startswith(heads))
    ]
    return copy.deepcopy(model, {id(part): part for part in (*shared, *code_states(model))})


def _plain_model(folder: Path, rows: int) -> PreTrainedModel:
    """The frozen plain model in ``folder``, with ``rows`` rows in its embedding."""
    model = open_model(AutoModelForCausalLM, folder_source(folder))
    use_fast_layers(model)
    had = int(model.config.get_text_config().vocab_size)
    if rows > had:
        _add_rows(model, rows, had)
    return always_in_evaluation_mode(model).requires_grad_(False)


@torch.no_grad()
def _add_rows(model: PreTrainedModel, rows: int, had: int) -> None:
    """Rows for padding tokens, which nothing reads."""
    with torch.random.fork_rng(devices=[]):
        model.resize_token_embeddings(rows, mean_resizing=False)
    for layer in (model.get_input_embeddings(), model.get_output_embeddings()):
        if (weight := getattr(layer, "weight", None)) is not None:
            weight[had:] = 0


def _on(auto_class: Any, plain: PreTrainedModel, config: PretrainedConfig) -> PreTrainedModel:
    """A model of ``auto_class`` with this ``config`` on the weights of a causal language model."""
    if auto_class is not AutoModelForCausalLM:
        return auto_class.from_causal(shared_copy(plain), config)
    model = shared_copy(plain)
    model.config.update(_differences(config, plain.config))
    return model


def _changed(config: PretrainedConfig, changes: Mapping[str, Any] | None) -> PretrainedConfig:
    config = copy.deepcopy(config)
    config.update(dict(changes or {}))
    return config


def _differences(config: PretrainedConfig, plain: PretrainedConfig) -> dict[str, Any]:
    """What a checkpoint's config says otherwise than that of the plain model under it."""
    there = plain.to_dict()
    return {
        name: value
        for name, value in config.to_dict().items()
        if name not in _NOT_OF_THE_MODEL and there.get(name, _NOT_OF_THE_MODEL) != value
    }


def _opened_as(model: PreTrainedModel, folder: Path) -> PreTrainedModel:
    model = always_in_evaluation_mode(model)
    recall_abilities(model, folder)
    reading_of(model)
    return model


def _with_generation(model: PreTrainedModel, folder: Path) -> PreTrainedModel:
    if (folder / GENERATION_CONFIG_NAME).is_file():
        model.generation_config = GenerationConfig.from_pretrained(folder, local_files_only=True)
    return model
