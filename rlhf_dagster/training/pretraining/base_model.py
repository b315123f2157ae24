"""A base model from the Hugging Face Hub or a local folder, made ready for the stages that follow."""

import json
from collections.abc import Callable
from pathlib import Path

import torch
from transformers.utils import GENERATION_CONFIG_NAME

from rlhf_dagster.config.training import BaseModelSettings
from rlhf_dagster.errors import UserError
from rlhf_dagster.lineage.model_folders import replacing
from rlhf_dagster.training.checkpoints.sources import Source, folder_source
from rlhf_dagster.training.models.policies import Policy, open_unpadded_policy, save_policy
from rlhf_dagster.training.specs import TrainingResult
from rlhf_dagster.training.texts.chats.template import template_findings


def load_base_model(
    settings: BaseModelSettings, output: Path, require: Callable[[Policy], None] = lambda policy: None
) -> TrainingResult:
    """Copy a model and its tokenizer to ``output`` as safetensors, with a padding token that is not end-of-text
    (:func:`~rlhf_dagster.training.models.policies.add_padding_token`).

    Its generation_config.json stays, but for the padding token. ``require`` raises UserError for a model that is not
    wanted. The warnings say what is noticeable about its chat
    template.

    Raises:
        UserError: the model is missing, is no causal language model, or does not open whole
            (:func:`~rlhf_dagster.training.checkpoints.opening.open_model`).
    """
    source = base_model_source(settings)
    with torch.random.fork_rng(devices=[]):
        # The same model each time, also where padding gets a row of random numbers.
        torch.manual_seed(0)
        policy = open_unpadded_policy(source)
    require(policy)
    with replacing(output) as folder:
        save_policy(policy, None, folder)
        _pad_generation(folder, policy.tokenizer.pad_token_id)
    metrics = {"parameters": float(policy.model.num_parameters()), "vocabulary": float(len(policy.tokenizer))}
    noticed = template_findings(policy.tokenizer) if policy.tokenizer.chat_template else []
    return TrainingResult(output, metrics, {}, [finding.sentence for finding in noticed])


def base_model_source(settings: BaseModelSettings) -> Source:
    """Where the settings say that the model is; raises UserError where that is nowhere."""
    if not settings.name:
        raise UserError(f"base_model.name is empty; `source: {settings.source}` needs one.")
    if settings.source == "folder":
        return folder_source(Path(settings.name))
    return Source(settings.name, settings.revision or "main")


def _pad_generation(folder: Path, pad_id: int) -> None:
    """Name the padding token in generation_config.json.

    In the file, as transformers saves a model's own settings only unchanged where they do not go together.
    """
    file = folder / GENERATION_CONFIG_NAME
    if file.is_file():
        settings = json.loads(file.read_text(encoding="utf-8")) | {"pad_token_id": pad_id}
        file.write_text(json.dumps(settings, indent=2, sort_keys=True) + "\n", encoding="utf-8")
