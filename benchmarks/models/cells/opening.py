"""Opening a base model, reading rows of unequal lengths, saving, and merging adapters."""

import json

import torch
from torch import nn

from benchmarks.models.inputs import COMPUTE, SAMPLING
from benchmarks.models.plain import Plain
from benchmarks.models.trial import Trial, WrongNumberError, require_rows_close
from rlhf_dagster.config.training import BaseModelSettings, LoraSettings
from rlhf_dagster.training.models.lora import add_lora, inner_model, merge_lora
from rlhf_dagster.training.models.policies import Policy, load_policy, save_policy
from rlhf_dagster.training.probe.base_model import load_usable_base_model
from rlhf_dagster.training.sampling.sample import response_log_probs

KEPT = ("use_cache", "tie_word_embeddings")
"""Settings of a config that opening and saving must not change."""


def open_base(trial: Trial) -> None:
    """`base_model` copies a folder: transformers says the same of the copy."""
    load_usable_base_model(BaseModelSettings(source="folder", name=str(trial.source)), trial.new("base"))
    require_rows_close("copy", trial.given, trial.given_by(Plain(trial.source)))
    before, after = (json.loads((folder / "config.json").read_text()) for folder in (trial.source, trial.base))
    changed = [name for name in KEPT if before.get(name) != after.get(name)]
    if changed:
        raise WrongNumberError(f"config.json: {changed[0]} is {after.get(changed[0])}, was {before.get(changed[0])}")


def forward(trial: Trial) -> None:
    """Log-probs of given responses, in one batch of rows of unequal lengths."""
    require_rows_close("log-probs", our_log_probs(load_policy(trial.base, COMPUTE), trial), trial.given)


def save(trial: Trial) -> None:
    """A policy with other weights, saved and opened by transformers."""
    policy, folder = load_policy(trial.base, COMPUTE), trial.new("saved")
    _disturb(policy.model)
    save_policy(policy, SAMPLING, folder)
    require_rows_close("saved", our_log_probs(policy, trial), trial.given_by(Plain(folder)))
    require_rows_close("reloaded", our_log_probs(load_policy(folder, COMPUTE), trial), our_log_probs(policy, trial))


def merge(trial: Trial) -> None:
    """Adapters that have learned something, merged, saved and opened by transformers."""
    policy, folder = load_policy(trial.base, COMPUTE), trial.new("merged")
    adapted = add_lora(policy.model, LoraSettings(rank=2))
    _disturb(adapted, "lora_")
    with_adapters = our_log_probs(Policy(inner_model(adapted), policy.tokenizer), trial)
    merged = Policy(merge_lora(adapted), policy.tokenizer)
    save_policy(merged, SAMPLING, folder)
    require_rows_close("merged", our_log_probs(merged, trial), with_adapters)
    require_rows_close("saved", trial.given_by(Plain(folder)), with_adapters)


def our_log_probs(policy: Policy, trial: Trial) -> list[list[float]]:
    """Of the trial's given responses, by this package."""
    answers = [answer for _, answer in trial.rows]
    return response_log_probs(policy, trial.inputs.texts, answers, SAMPLING, COMPUTE)


def _disturb(model: nn.Module, part: str = "") -> None:
    torch.manual_seed(0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if part in name and parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter), alpha=0.1)
