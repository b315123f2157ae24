"""A base model from the Hugging Face Hub or a local folder, made ready for the stages that follow."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from rlhf_dagster.config.training import BaseModelSettings
from rlhf_dagster.errors import UserError, first_line
from rlhf_dagster.lineage.model_folders import replacing, require_checkpoint
from rlhf_dagster.training.models.policies import Policy, add_padding_token, save_policy
from rlhf_dagster.training.models.randomness import without_dropout
from rlhf_dagster.training.specs import TrainingResult


def load_base_model(settings: BaseModelSettings, output: Path) -> TrainingResult:
    """Copy a model and its tokenizer to ``output`` as safetensors, with a padding token that is not end-of-text
    (:func:`~rlhf_dagster.training.models.policies.add_padding_token`).

    Raises:
        UserError: the model is missing, has no safetensors weights or no end-of-text token.
    """
    policy = _open(settings)
    if policy.tokenizer.eos_token_id is None:
        raise UserError(f"base_model.name: {settings.name!r} has no end-of-text token; choose a causal language model.")
    add_padding_token(policy.model, policy.tokenizer)
    with replacing(output) as folder:
        save_policy(policy, None, folder)
    metrics = {"parameters": float(policy.model.num_parameters()), "vocabulary": float(len(policy.tokenizer))}
    return TrainingResult(output, metrics, {})


def _open(settings: BaseModelSettings) -> Policy:
    source = _source(settings)
    try:
        config = without_dropout(AutoConfig.from_pretrained(**source))
        model = AutoModelForCausalLM.from_pretrained(**source, config=config, dtype=torch.float32, use_safetensors=True)
        return Policy(model.eval(), AutoTokenizer.from_pretrained(**source))
    except (OSError, ValueError, KeyError) as error:
        raise UserError(
            f"base_model.name: {settings.name!r} cannot be opened as a causal language model with safetensors weights "
            f"({first_line(error)}); check the name, the revision and the network."
        ) from None


def _source(settings: BaseModelSettings) -> Mapping[str, Any]:
    if not settings.name:
        raise UserError(f"base_model.name is empty; `source: {settings.source}` needs one.")
    if settings.source == "folder":
        return {"pretrained_model_name_or_path": require_checkpoint(Path(settings.name)), "local_files_only": True}
    return {"pretrained_model_name_or_path": settings.name, "revision": settings.revision or "main"}
