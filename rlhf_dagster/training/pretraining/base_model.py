"""A base model from the Hugging Face Hub or a local folder, made ready for the stages that follow."""

from pathlib import Path

import torch

from rlhf_dagster.config.training import BaseModelSettings
from rlhf_dagster.errors import UserError
from rlhf_dagster.lineage.model_folders import replacing
from rlhf_dagster.training.checkpoints.sources import Source, folder_source
from rlhf_dagster.training.models.policies import open_unpadded_policy, save_policy
from rlhf_dagster.training.specs import TrainingResult


def load_base_model(settings: BaseModelSettings, output: Path) -> TrainingResult:
    """Copy a model and its tokenizer to ``output`` as safetensors, with a padding token that is not end-of-text
    (:func:`~rlhf_dagster.training.models.policies.add_padding_token`).

    Its generation_config.json stays, but for the padding token.

    Raises:
        UserError: the model is missing, is no causal language model, or does not open whole
            (:func:`~rlhf_dagster.training.checkpoints.opening.open_model`).
    """
    source = _source(settings)
    with torch.random.fork_rng(devices=[]):
        # The same model each time, also where padding gets a row of random numbers.
        torch.manual_seed(0)
        policy = open_unpadded_policy(source)
    policy.model.generation_config.pad_token_id = policy.tokenizer.pad_token_id
    with replacing(output) as folder:
        save_policy(policy, None, folder)
    metrics = {"parameters": float(policy.model.num_parameters()), "vocabulary": float(len(policy.tokenizer))}
    return TrainingResult(output, metrics, {})


def _source(settings: BaseModelSettings) -> Source:
    if not settings.name:
        raise UserError(f"base_model.name is empty; `source: {settings.source}` needs one.")
    if settings.source == "folder":
        return folder_source(Path(settings.name))
    return Source(settings.name, settings.revision or "main")
