"""Sequence scorers: a causal language model's trunk with a linear head `score` that is read at the last real token.

Every causal architecture has one. Where transformers has a sequence classifier that is exactly this, its class is used,
so that `AutoModelForSequenceClassification` opens the checkpoint. Elsewhere (Granite, Cohere, OLMoE, Mamba, ...; BERT's
and BART's kin, whose classifiers pool otherwise) a class is made from the causal model's by exchanging what stands
above its trunk. The checkpoint has the trunk's tensors under the causal model's names, and `score.weight`.
"""

import copy
import re
from functools import cache
from pathlib import Path
from typing import Any, ClassVar, cast

import torch
from torch import Tensor, nn
from transformers import (
    MODEL_FOR_CAUSAL_LM_MAPPING,
    MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING,
    PretrainedConfig,
    PreTrainedModel,
)
from transformers.modeling_outputs import SequenceClassifierOutput

from rlhf_dagster.errors import UserError, first_line
from rlhf_dagster.training.checkpoints.configs import SCORER_NAME
from rlhf_dagster.training.models.layout import moved_left
from rlhf_dagster.training.models.reading import accepted, arguments, outputs_of, reading_of
from rlhf_dagster.training.scorers.trunk import trunk_name, trunk_width
from rlhf_dagster.training.texts.tokens import PaddedBatch

CAUSAL_NAME = re.compile("(ForCausalLM|LMHeadModel|(Model)?WithLMHead(Model)?|ForConditionalGeneration)$")
OF_SCORES = ("num_labels", "pad_token_id", "score_bias", "score_max_tokens")
"""What the config of a scorer holds beside its architecture."""


class SequenceScorer(nn.Module):
    """The forward pass of all scorers; the rest of their classes is transformers' own."""

    score: nn.Linear
    base_model: nn.Module

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor | None = None, **ignored: Any
    ) -> SequenceClassifierOutput:
        """Outputs [B, H] of the head at the last token of each row that ``attention_mask`` [B, L] says is real.

        Rows may be padded on either side, and what a padding token looks like does not matter. Positions count real
        tokens.
        """
        mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        outputs = self.score(trunk_states(self, PaddedBatch(input_ids, mask)))
        return SequenceClassifierOutput(logits=outputs[torch.arange(len(mask), device=mask.device), last_real(mask)])


class HeadExchanged(SequenceScorer):
    """Made from a causal language model's class: `score` takes the place of all that stands above the trunk."""

    base_model_prefix: ClassVar[str]

    def __init__(self, config: PretrainedConfig) -> None:
        super().__init__(config)
        width = trunk_width(cast("PreTrainedModel", self))
        above = [name for name, _ in self.named_children() if name != self.base_model_prefix]
        for name in (*above, *self._parameters, *self._buffers):
            delattr(self, name)
        self.num_labels = cast("int", config.num_labels)
        # Named, since a config leaves out labels that look like its class's usual ones, however many those are.
        own = cast("PretrainedConfig", self.config)
        own.id2label = {head: f"score_{head}" for head in range(self.num_labels)}
        self.score = nn.Linear(width, self.num_labels, bias=False)

    def get_output_embeddings(self) -> nn.Module | None:
        """None once the language model's head is gone."""
        return None if "score" in self._modules else super().get_output_embeddings()  # type: ignore[misc]

    def _init_weights(self, module: nn.Module) -> None:
        """The architecture's way, but for its language model as a whole, where some set weights of the head."""
        if module is not self:
            super()._init_weights(module)  # type: ignore[misc]

    @classmethod
    def can_generate(cls) -> bool:
        return False


def trunk_states(scorer: nn.Module, batch: PaddedBatch) -> Tensor:
    """The states [B, L, d] that a scorer's head reads at each token of ``batch``, which may be padded on either side.

    Rows are laid out as the model reads them (:func:`~rlhf_dagster.training.models.reading.reading_of`).
    """
    model = cast("PreTrainedModel", scorer)
    if reading_of(model).padding == "left":
        return outputs_of(model, **arguments(model, batch))
    moved = moved_left(batch)
    ids = moved.batch.input_ids
    return moved.back(outputs_of(model, input_ids=ids, attention_mask=torch.ones_like(ids)))


def last_real(attention_mask: Tensor) -> Tensor:
    """The column [B] of the last real token of each row of ``attention_mask`` [B, L]."""
    columns = torch.arange(attention_mask.shape[1], device=attention_mask.device)
    return (columns * attention_mask).argmax(dim=-1)


class AutoSequenceScorer:
    """Opens the scorer of any causal architecture, from its language model or from a saved scorer."""

    @staticmethod
    def from_pretrained(pretrained_model_name_or_path: str | Path, config: PretrainedConfig, **options: Any) -> Any:
        """As `from_pretrained` of transformers' auto classes; raises UserError where there is no scorer."""
        config = text_part(config)
        return scorer_class(config).from_pretrained(pretrained_model_name_or_path, config=config, **options)

    @staticmethod
    def from_config(config: PretrainedConfig) -> PreTrainedModel:
        """A new scorer; raises UserError where there is none."""
        config = text_part(config)
        return scorer_class(config)(config)

    @staticmethod
    def from_causal(model: PreTrainedModel, config: PretrainedConfig) -> PreTrainedModel:
        """The scorer by ``config`` on the trunk of a causal language model, which it takes over, with a new head."""
        scorer = on_meta(scorer_class(config), config)
        name = trunk_name(model)
        setattr(scorer, name, model.get_submodule(name))
        head = cast("nn.Linear", scorer.score)
        # Drawn on the CPU, so that what is drawn after it is the same on every device.
        scorer.score = nn.Linear(head.in_features, head.out_features, bias=False).to(model.device)
        return scorer


def text_part(config: PretrainedConfig) -> PretrainedConfig:
    """The config of which the causal language model is made: where that reads text alone, of several media's the
    text's (as in transformers' `AutoModelForCausalLM`), with what it holds of scores.
    """
    text_class = config.sub_configs.get("text_config")
    if text_class is None or causal_class(config).config_class is not text_class:
        return config
    text = config.get_text_config()
    text.update({name: getattr(config, name) for name in OF_SCORES if hasattr(config, name)})
    return text


def causal_class(config: PretrainedConfig) -> type[PreTrainedModel]:
    """The class of causal language models with this kind of ``config``; raises UserError where there is none."""
    found = MODEL_FOR_CAUSAL_LM_MAPPING.get(type(config), None)
    if found is None:
        raise UserError(f"Transformers has no causal language model of type `{config.model_type}`; choose another one.")
    return cast("type[PreTrainedModel]", found)


def scorer_class(config: PretrainedConfig) -> type[PreTrainedModel]:
    """The class of scorers for a causal language model's ``config``; raises UserError where there is none."""
    causal: Any = on_meta(causal_class(config), config)
    name = trunk_name(causal)
    classifier: Any = MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING.get(type(config), None)
    if classifier is not None and _is_scorer(on_meta(classifier, config), causal):
        return _with_own_pooling(classifier)
    return _with_exchanged_head(cast("Any", type(causal)), name)


def on_meta(model_class: type[PreTrainedModel], config: PretrainedConfig) -> PreTrainedModel:
    """A model without numbers, whose layers and shapes can be read; no random numbers are drawn."""
    with torch.random.fork_rng(devices=[]), torch.device("meta"):
        return model_class(copy.deepcopy(config))


def _is_scorer(classifier: PreTrainedModel, causal: PreTrainedModel) -> bool:
    """Whether a classifier is the causal model's trunk and a linear head without bias, and nothing else."""
    name, head = trunk_name(causal), getattr(classifier, "score", None)
    if not isinstance(head, nn.Linear) or classifier.base_model_prefix != name:
        return False
    trunks = classifier.base_model, causal.get_submodule(name)
    alike = type(trunks[0]) is type(trunks[1]) and _shapes(trunks[0]) == _shapes(trunks[1])
    return alike and set(_shapes(classifier)) == {f"{name}.{leaf}" for leaf in _shapes(trunks[0])} | {"score.weight"}


def _shapes(module: nn.Module) -> dict[str, torch.Size]:
    return {name: tensor.shape for name, tensor in module.state_dict().items()}


@cache
def _with_own_pooling(classifier: Any) -> type[PreTrainedModel]:
    """Transformers' class under its own name, which reads the last real token by the mask, not by the padding's id."""
    return type(classifier.__name__, (SequenceScorer, classifier), {"__module__": classifier.__module__})


@cache
def _with_exchanged_head(causal: Any, trunk: str) -> type[PreTrainedModel]:
    tied: dict[str, str] = getattr(causal, "_tied_weights_keys", None) or {}
    members = {
        # Where transformers looks for rules on how tensors are named in checkpoints.
        "__module__": causal.__module__,
        "base_model_prefix": trunk,
        "_tied_weights_keys": {one: other for one, other in tied.items() if one.startswith(f"{trunk}.")},
    }
    return type(CAUSAL_NAME.sub("", causal.__name__) + SCORER_NAME, (HeadExchanged, causal), members)


@torch.no_grad()
def reward_model_refusal(model: PreTrainedModel) -> str:
    """Why no reward model can be made from a causal language ``model``, in one sentence; empty where one can."""
    kind = type(model).__name__
    try:
        scorer = on_meta(scorer_class(model.config), model.config)
        ids = torch.tensor([[0, 1, 2], [2, 1, 0]], device=model.device)
        trunk = model.get_submodule(trunk_name(model))
        given = accepted(trunk, input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False)
        states = trunk(**given).last_hidden_state
    except UserError as error:
        return str(error)
    except Exception as error:  # whatever a foreign model raises
        return (
            f"No reward model can be made from {kind}: its trunk does not read token ids alone ({first_line(error)})."
        )
    width = cast("nn.Linear", scorer.score).in_features
    if states.shape != (*ids.shape, width) or not states.is_floating_point():
        return f"No reward model can be made from {kind}: its trunk gives no states of width {width} for each token."
    return ""
