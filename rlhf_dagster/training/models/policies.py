"""Opening and saving language models: plain Hugging Face folders, safetensors only, no code from the folder."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoModelForCausalLM,
    GenerationConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.utils import logging as transformers_logging

from rlhf_dagster.config.training import ComputeSettings, SamplingSettings
from rlhf_dagster.errors import UserError
from rlhf_dagster.lineage.model_folders import holds_adapters
from rlhf_dagster.training.checkpoints.narrow_types import narrow_type, round_to
from rlhf_dagster.training.checkpoints.opening import open_model
from rlhf_dagster.training.checkpoints.randomness import always_in_evaluation_mode
from rlhf_dagster.training.checkpoints.saving import write_model
from rlhf_dagster.training.checkpoints.sources import Source, folder_source
from rlhf_dagster.training.checkpoints.tokenizers import open_tokenizer, require_rows, vocabulary_rows
from rlhf_dagster.training.models.abilities import keep_abilities, recall_abilities
from rlhf_dagster.training.models.fast_layers import use_fast_layers
from rlhf_dagster.training.models.log_probs import decoding_of
from rlhf_dagster.training.models.low_precision.held_weights import hold_in_bfloat16
from rlhf_dagster.training.models.own_adapters import own_adapters, write_adapters
from rlhf_dagster.training.models.passes.logit_pieces import limit_logits
from rlhf_dagster.training.models.reading import reading_of, require_bfloat16
from rlhf_dagster.training.models.shared_bases import SharedBases
from rlhf_dagster.training.runtime.device import use_device
from rlhf_dagster.training.runtime.divergence import require_finite_weights
from rlhf_dagster.training.runtime.seeding import seed_everything

# Stages report their own progress; a bar for each saved shard would be noise in a run's log.
transformers_logging.disable_progress_bar()

PAD = "<|padding|>"
"""The padding token of models that come without one."""


@dataclass(frozen=True)
class Policy:
    """A causal language model with its tokenizer, always in evaluation mode."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    folder: Path = Path()
    """That it was opened from."""

    @property
    def device(self) -> torch.device:
        return self.model.device


def load_policy(
    folder: Path, compute: ComputeSettings | None = None, bases: SharedBases | None = None, trained: bool = False
) -> Policy:
    """Open a checkpoint on the device of ``compute``; raises UserError where it cannot be opened.

    With ``bases`` its plain weights are frozen, and those of all models that are opened with them. Unless it is to be
    ``trained``, its weights are held in the precision in which they are read.
    """
    compute = compute or ComputeSettings()
    model, tokenizer = (
        load_model(AutoModelForCausalLM, folder, compute, bases=bases, held=not trained),
        load_tokenizer(folder),
    )
    require_rows(model, tokenizer, str(folder))
    limit_logits(model, compute.logits_mib)
    return Policy(model.eval(), tokenizer, folder)


def load_unpadded_policy(folder: Path, compute: ComputeSettings, seed: int, bases: SharedBases | None = None) -> Policy:
    """:func:`load_policy` of any causal language model: a model without its own padding token gets one.

    The token's embedding, which nothing reads, is drawn with ``seed``.
    """
    use_device(compute)
    seed_everything(seed)
    model = load_model(AutoModelForCausalLM, folder, compute, bases=bases)
    limit_logits(model, compute.logits_mib)
    return replace(_padded(model, Source(str(folder))), folder=folder)


def open_unpadded_policy(source: Source) -> Policy:
    """A causal language model on the CPU, with a padding token that is not end-of-text.

    Raises:
        UserError: it cannot be opened, or has no row for a token that it may be given.
    """
    return _padded(_open(AutoModelForCausalLM, source), source)


def _padded(model: PreTrainedModel, source: Source) -> Policy:
    tokenizer = open_tokenizer(source)
    require_rows(model, tokenizer, source.place)
    add_padding_token(model, tokenizer)
    return Policy(model.eval(), tokenizer)


def add_padding_token(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    """Add a padding token to a tokenizer that has none or pads with end-of-text, and its embedding to ``model``.

    A policy with one token for both never learns to stop, as padding is left out of the loss (Huang et al. 2024).
    A padding token that others added, without a row in the embedding, gets one too. Where the weights came in 16 bits
    the new numbers are rounded to them, so that the model can stay so.
    """
    if tokenizer.pad_token_id in (None, tokenizer.eos_token_id):
        tokenizer.add_special_tokens({"pad_token": PAD})
    # Some models have spare rows in their embedding, which must not be cut away.
    if tokenizer.pad_token_id >= vocabulary_rows(model):
        kind = narrow_type(model.parameters())
        # Beginning at the others' mean would factorise the whole table, for a token that is never read or drawn.
        model.resize_token_embeddings(tokenizer.pad_token_id + 1, mean_resizing=False)
        if kind is not None:
            round_to(model.parameters(), kind)


def load_model(
    auto_class: Any,
    folder: Path,
    compute: ComputeSettings | None = None,
    new: Sequence[str] = (),
    bases: SharedBases | None = None,
    held: bool = False,
    **config_changes: Any,
) -> PreTrainedModel:
    """A model of ``auto_class``, which computes the same in training as in sampling: in float32, on the device of
    ``compute``, without it on the CPU. Adapters are opened on the plain model that they belong to.

    Weights that are only read are ``held`` in bfloat16 where ``compute`` has them read in it; their numbers are the
    same (:mod:`~rlhf_dagster.training.models.low_precision.held_weights`).

    Raises:
        UserError: the checkpoint cannot be opened, or lacks weights other than those named in ``new``.
    """
    device = torch.device("cpu") if compute is None else use_device(compute)
    if bases is not None or holds_adapters(folder):
        model = (bases or SharedBases(compute)).open(auto_class, folder, new, config_changes)
    else:
        model = _open(auto_class, folder_source(folder), new, config_changes)
    if compute is not None and compute.precision == "bf16":
        require_bfloat16(model)
        if held:
            hold_in_bfloat16(model)
    return model.to(device)  # type: ignore[arg-type]


def _open(
    auto_class: Any, source: Source, new: Sequence[str] = (), config_changes: Mapping[str, Any] | None = None
) -> PreTrainedModel:
    model = open_model(auto_class, source, new, config_changes)
    use_fast_layers(model)
    model = always_in_evaluation_mode(model)
    if source.folder is not None:
        recall_abilities(model, source.folder)
    reading_of(model)
    return model


def load_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    """The tokenizer of a checkpoint; raises UserError where it lacks padding and end-of-text tokens of their own."""
    tokenizer = open_tokenizer(Source(str(folder)))
    if tokenizer.pad_token_id in (None, tokenizer.eos_token_id):
        lack = "has no padding token" if tokenizer.pad_token_id is None else "pads with end-of-text"
        raise UserError(
            f"{folder}: the tokenizer {lack}, with which no policy learns to stop; take a checkpoint made from this "
            "one by SFT, which adds a padding token."
        )
    return tokenizer


def save_policy(policy: Policy, sampling: SamplingSettings | None, folder: Path) -> None:
    """Write model, tokenizer and a generation_config.json with which plain `generate` samples as this loop does."""
    if sampling is not None:
        policy.model.generation_config = generation_config(policy.tokenizer, sampling, vocabulary_rows(policy.model))
    save_model(policy.model, policy.tokenizer, folder)


def save_model(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    """Write a checkpoint, plain or of the model's own adapters; raises UserError where a weight is not finite."""
    require_finite_weights(model)
    model.config.pad_token_id = tokenizer.pad_token_id
    model.config.eos_token_id = tokenizer.eos_token_id
    if own_adapters(model) is None:
        write_model(model, folder)
    else:
        write_adapters(model, folder)
    tokenizer.save_pretrained(folder)
    keep_abilities(model, folder)


def generation_config(tokenizer: PreTrainedTokenizerBase, sampling: SamplingSettings, rows: int) -> GenerationConfig:
    """For a model whose output head has ``rows`` rows."""
    decoding = decoding_of(tokenizer, sampling)
    fixed = {"min_new_tokens": sampling.response_tokens} if sampling.fixed_length else {}
    return GenerationConfig(
        do_sample=True,
        temperature=sampling.temperature,
        top_k=0,
        top_p=1.0,
        max_new_tokens=sampling.response_tokens,
        suppress_tokens=decoding.never_drawn(rows),
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=list(decoding.end_ids) if decoding.other_ends else decoding.end_id,
        bos_token_id=tokenizer.bos_token_id,
        **fixed,
    )
