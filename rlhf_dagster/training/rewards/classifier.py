"""A text classifier as reward."""

import logging
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from rlhf_dagster.config.judging.reward import ClassifierReward
from rlhf_dagster.config.training import ComputeSettings
from rlhf_dagster.errors import UserError
from rlhf_dagster.records.chats import Prompt
from rlhf_dagster.training.checkpoints.context import context_of
from rlhf_dagster.training.checkpoints.opening import open_model
from rlhf_dagster.training.checkpoints.randomness import always_in_evaluation_mode
from rlhf_dagster.training.checkpoints.sources import Source, folder_source, foreign_errors
from rlhf_dagster.training.runtime.device import use_device

_log = logging.getLogger("rlhf_dagster.training")


@dataclass(frozen=True)
class Classifier:
    """A sequence classifier of which one label is read."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    label: int
    settings: ClassifierReward

    @torch.no_grad()
    def __call__(self, prompts: list[Prompt], responses: list[str]) -> Tensor:
        """Scores [B] on the CPU; texts that are longer than the classifier reads are cut, and counted in a warning."""
        size = self.settings.batch_size
        parts = [slice(start, start + size) for start in range(0, len(responses), size)]
        scores = [self._batch([str(prompt) for prompt in prompts[part]], responses[part]) for part in parts]
        return torch.cat(scores) if scores else torch.zeros(0)

    def _batch(self, prompts: list[str], responses: list[str]) -> Tensor:
        texts = (prompts, responses) if self.settings.reads == "both" else (responses,)
        inputs = self.tokenizer(*texts, padding=True, return_tensors="pt", **self._limit(texts))
        logits = self.model(**inputs.to(self.model.device)).logits.float().cpu()
        log_odds = label_log_odds(logits, self.label, self.model.config)
        return log_odds if self.settings.value == "log_odds" else log_odds.sigmoid()

    def _limit(self, texts: tuple[list[str], ...]) -> dict[str, object]:
        longest = context_of(self.model.config)
        lengths = [len(ids) for ids in self.tokenizer(*texts)["input_ids"]]
        cut = 0 if longest is None else sum(length > longest for length in lengths)
        if not cut:
            return {}
        _log.warning("%d of %d texts were cut to the %d tokens that the classifier reads.", cut, len(lengths), longest)
        return {"truncation": True, "max_length": longest}


def load_classifier(settings: ClassifierReward, compute: ComputeSettings) -> Classifier:
    """Open a classifier on the device of ``compute``; raises UserError where it cannot be, or lacks the label."""
    folder = Path(settings.folder)
    model = always_in_evaluation_mode(open_model(AutoModelForSequenceClassification, folder_source(folder)))
    source = Source(str(folder))
    with foreign_errors(source.place, "the tokenizer", "put the classifier's tokenizer files beside it"):
        tokenizer = AutoTokenizer.from_pretrained(**source.arguments)
    if tokenizer.pad_token_id is None:
        raise UserError(f"{folder}: the tokenizer has no padding token; set `pad_token` in tokenizer_config.json.")
    # Policies are sampled with padding on the left, and their tokenizers say so; there it would move all positions.
    tokenizer.padding_side = "right"
    found = Classifier(model.to(use_device(compute)), tokenizer, _label(settings, model.config), settings)  # type: ignore[arg-type]
    if settings.batch_size > 1:
        _require_reading_alone(found)
    return found


def _require_reading_alone(classifier: Classifier) -> None:
    """Raise UserError where a text's score depends on the padding that a longer one beside it brings."""
    short, long = "a", "a b c d e f"
    together, alone = classifier(["", ""], [short, long]), classifier([""], [short])
    if not torch.isclose(together[0], alone[0], atol=1e-2):
        raise UserError(
            f"{classifier.settings.folder}: the classifier gives a text another score beside a longer one, so that its "
            "padding does not work; set `batch_size: 1`."
        )


def label_log_odds(logits: Tensor, label: int, config: PretrainedConfig) -> Tensor:
    """log p / (1 - p) [B] of a label from logits [B, K].

    Labels exclude each other (softmax), except where there is one alone, or where the config says `multi_label`: then
    each has its own logit.
    """
    chosen = logits[:, label]
    if logits.shape[1] == 1 or config.problem_type == "multi_label_classification":
        return chosen
    others = torch.cat([logits[:, :label], logits[:, label + 1 :]], dim=1)
    return chosen - others.logsumexp(dim=1)


def _label(settings: ClassifierReward, config: PretrainedConfig) -> int:
    labels = config.id2label or {}
    names = {str(name): int(number) for number, name in labels.items()}
    names |= {str(number): number for number in names.values()}
    if settings.label not in names:
        known = ", ".join(str(name) for name in labels.values())
        raise UserError(f"{settings.folder}: the classifier has no label {settings.label!r}; it has {known}.")
    return names[settings.label]
