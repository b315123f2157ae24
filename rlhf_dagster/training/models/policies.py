"""Opening and saving language models: plain Hugging Face folders, safetensors only, no code from the folder."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    GenerationConfig,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.utils import logging as transformers_logging

from rlhf_dagster.config.training import ComputeSettings, SamplingSettings
from rlhf_dagster.errors import UserError, first_line
from rlhf_dagster.lineage.model_folders import require_checkpoint
from rlhf_dagster.training.models.fast_layers import use_fast_layers
from rlhf_dagster.training.models.log_probs import decoding_of
from rlhf_dagster.training.runtime.device import use_device
from rlhf_dagster.training.runtime.divergence import require_finite_weights
from rlhf_dagster.training.runtime.seeding import seed_everything

# Stages report their own progress; a bar for each saved shard would be noise in a run's log.
transformers_logging.disable_progress_bar()

PAD = "<|padding|>"
"""The padding token of models that come without one."""


@dataclass(frozen=True)
class Policy:
    """A causal language model with its tokenizer, dropout off."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase

    @property
    def device(self) -> torch.device:
        return self.model.device


def load_policy(folder: Path, compute: ComputeSettings | None = None) -> Policy:
    """Open a checkpoint on the device of ``compute``; raises UserError where it cannot be opened."""
    device = use_device(compute or ComputeSettings())
    model = load_model(AutoModelForCausalLM, folder)
    return Policy(model.to(device).eval(), load_tokenizer(folder))  # type: ignore[arg-type]


def load_unpadded_policy(folder: Path, compute: ComputeSettings, seed: int) -> Policy:
    """:func:`load_policy` of any causal language model: a model without its own padding token gets one.

    The token's embedding, which nothing reads, is drawn with ``seed``.
    """
    device = use_device(compute)
    model, tokenizer = load_model(AutoModelForCausalLM, folder), _open_tokenizer(folder)
    seed_everything(seed)
    add_padding_token(model, tokenizer)
    return Policy(model.to(device).eval(), tokenizer)  # type: ignore[arg-type]


def add_padding_token(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    """Add a padding token to a tokenizer that has none or pads with end-of-text, and its embedding to ``model``.

    A policy with one token for both never learns to stop, as padding is left out of the loss (Huang et al. 2024).
    """
    if tokenizer.pad_token_id not in (None, tokenizer.eos_token_id):
        return
    tokenizer.add_special_tokens({"pad_token": PAD})
    # Some models have spare rows in their embedding, which must not be cut away.
    if len(tokenizer) > model.config.get_text_config().vocab_size:
        # Beginning at the others' mean would factorise the whole table, for a token that is never read or drawn.
        model.resize_token_embeddings(len(tokenizer), mean_resizing=False)


def load_model(auto_class: Any, folder: Path, new: Sequence[str] = (), **config_changes: Any) -> PreTrainedModel:
    """A float32 model of ``auto_class`` on the CPU, all dropout 0.

    Dropout is off because PPO's ratios need the same distribution in training as in sampling.

    Raises:
        UserError: the checkpoint cannot be opened, or lacks weights other than those named in ``new``.
    """
    require_checkpoint(folder)
    try:
        with _only_errors():
            config = without_dropout(AutoConfig.from_pretrained(folder, local_files_only=True))
            config.update(config_changes)
            model, report = auto_class.from_pretrained(
                folder,
                config=config,
                dtype=torch.float32,
                use_safetensors=True,
                local_files_only=True,
                output_loading_info=True,
            )
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        raise UserError(f"{folder}: the model cannot be opened ({first_line(error)}); make it again.") from None
    # Transformers would fill a missing weight with random numbers and only say so in its log.
    missing = sorted(set(report["missing_keys"]) - set(new))
    if missing:
        raise UserError(f"{folder}: the checkpoint lacks {missing[0]}; it is damaged or of another kind of model.")
    use_fast_layers(model)
    return model


def load_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    """The tokenizer of a checkpoint; raises UserError where it lacks padding and end-of-text tokens of their own."""
    tokenizer = _open_tokenizer(folder)
    if tokenizer.pad_token_id in (None, tokenizer.eos_token_id):
        lack = "has no padding token" if tokenizer.pad_token_id is None else "pads with end-of-text"
        raise UserError(
            f"{folder}: the tokenizer {lack}, with which no policy learns to stop; take a checkpoint made from this "
            "one by SFT, which adds a padding token."
        )
    return tokenizer


def _open_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError, KeyError) as error:
        raise UserError(f"{folder}: the tokenizer cannot be opened ({first_line(error)}).") from None
    if tokenizer.eos_token_id is None:
        raise UserError(f"{folder}: the tokenizer has no end-of-text token; set `eos_token` in tokenizer_config.json.")
    return tokenizer


def without_dropout(config: PretrainedConfig) -> PretrainedConfig:
    for name, value in config.to_dict().items():
        if ("drop" in name or "pdrop" in name) and isinstance(value, float):
            setattr(config, name, 0.0)
    return config


def context_of(config: PretrainedConfig) -> int | None:
    """The longest sequence, in tokens, or None where the architecture sets no limit."""
    return getattr(config, "max_position_embeddings", None)


def require_context(config: PretrainedConfig, needed: int, what: str) -> None:
    """Raise UserError where sequences of ``needed`` tokens do not fit the model; ``what`` names the settings."""
    context = context_of(config)
    if context is not None and needed > context:
        raise UserError(f"{what} needs {needed} tokens but the model's context has {context}; lower it.")


def save_policy(policy: Policy, sampling: SamplingSettings | None, folder: Path) -> None:
    """Write model, tokenizer and a generation_config.json with which plain `generate` samples as this loop does."""
    if sampling is not None:
        policy.model.generation_config = generation_config(policy.tokenizer, sampling)
    save_model(policy.model, policy.tokenizer, folder)


def save_model(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    """Write a plain checkpoint; raises UserError where a weight is not finite."""
    require_finite_weights(model)
    model.config.pad_token_id = tokenizer.pad_token_id
    model.config.eos_token_id = tokenizer.eos_token_id
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def generation_config(tokenizer: PreTrainedTokenizerBase, sampling: SamplingSettings) -> GenerationConfig:
    decoding = decoding_of(tokenizer, sampling)
    fixed = {"min_new_tokens": sampling.response_tokens} if sampling.fixed_length else {}
    return GenerationConfig(
        do_sample=True,
        temperature=sampling.temperature,
        top_k=0,
        top_p=1.0,
        max_new_tokens=sampling.response_tokens,
        suppress_tokens=list(decoding.suppressed),
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=list(decoding.end_ids) if decoding.other_ends else decoding.end_id,
        bos_token_id=tokenizer.bos_token_id,
        **fixed,
    )


@contextmanager
def _only_errors() -> Iterator[None]:
    verbosity = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity_error()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(verbosity)
