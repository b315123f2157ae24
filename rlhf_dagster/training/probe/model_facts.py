"""What a model's config, tokenizer and headers say of it, before its weights are fetched or read."""

from dataclasses import dataclass

import torch
from transformers import AutoModelForCausalLM, PretrainedConfig

from rlhf_dagster.training.checkpoints.configs import open_config
from rlhf_dagster.training.checkpoints.context import context_of
from rlhf_dagster.training.checkpoints.sources import Source, foreign_errors, snapshot
from rlhf_dagster.training.checkpoints.tokenizers import open_tokenizer
from rlhf_dagster.training.input_sizes import parameters_of
from rlhf_dagster.training.texts.chats.template import TemplateFinding, template_findings


@dataclass(frozen=True)
class ModelFacts:
    name: str
    """The path of a folder, or a Hub id."""
    revision: str
    """The commit of a Hub id; empty for a folder."""
    architecture: str
    parameters: int
    context: int | None
    """Longest sequence in tokens; None where there is no limit."""
    template: list[TemplateFinding]
    """What is noticeable about the chat template."""

    @property
    def can_chat(self) -> bool:
        """Whether prompts can be read as chats."""
        return not any(finding.is_fatal for finding in self.template)


def look_at(source: Source) -> ModelFacts:
    """The facts about a causal language model. Of a repository on the Hub, its config and its tokenizer are fetched.

    Raises UserError where the config or the tokenizer cannot be opened, or the model predicts no next token.
    """
    config = open_config(AutoModelForCausalLM, source)
    return ModelFacts(
        name=source.name,
        revision="" if source.folder is not None else snapshot(source).name,
        architecture=config.model_type,
        parameters=_parameters(source, config),
        context=context_of(config),
        template=template_findings(open_tokenizer(source)),
    )


def _parameters(source: Source, config: PretrainedConfig) -> int:
    if source.folder is not None:
        return parameters_of(source.folder)
    # Without memory and without numbers: shapes alone.
    with torch.device("meta"), foreign_errors(source.place, "the model", "give one that transformers can make"):
        model = AutoModelForCausalLM.from_config(config)
    return int(model.num_parameters())
