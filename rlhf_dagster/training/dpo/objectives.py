"""What DPO's losses make of a collated batch: the leads of responses, the loss and the numbers beside it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor
from transformers import PreTrainedModel

from rlhf_dagster.config.training import DpoSettings
from rlhf_dagster.training.dpo.losses import LOSSES, pair_numbers, smoothed
from rlhf_dagster.training.models.log_probs import Decoding
from rlhf_dagster.training.models.passes.logit_pieces import log_probs_of
from rlhf_dagster.training.models.sharding.weights import has_shards
from rlhf_dagster.training.texts.tokens import PaddedBatch

Tensors = dict[str, Tensor]
_BY_RESPONSE = ("input_ids", "attention_mask", "tokens", "response_mask", "reference")
"""The tensors of a collated batch that have a row for each response."""
_POINT = "reference_point"


@dataclass(frozen=True)
class PairLoss:
    """The loss of pairs of responses."""

    settings: DpoSettings
    decoding: Decoding
    counted: ClassVar[str] = "comparisons"
    """What a row is."""

    def __call__(self, model: Any, batch: Tensors) -> tuple[Tensor, dict[str, Tensor]]:
        """Mean loss of the batch's pairs by their weights, and :func:`pair_numbers`."""
        h, weight = self._leads(model, batch), batch["weight"]
        preferred = smoothed(batch["preferred"], self.settings.label_smoothing)
        losses = LOSSES[self.settings.loss](h, preferred, self.settings.beta)
        numbers = pair_numbers(h.detach(), batch["preferred"], weight, self.settings.beta)
        return (weight * losses).sum() / weight.sum(), numbers

    def prepare(self, model: Any, batches: Sequence[Tensors], total: Callable[[Tensor], Tensor] = torch.clone) -> None:
        """What a loss needs to know of all ``batches`` before it reads one; ``total`` adds up over ranks."""

    def _leads(self, model: Any, batch: Tensors) -> Tensor:
        """[P] difference of the log-ratios of each pair's responses."""
        ratios = log_ratios(model, batch, self.decoding)
        return ratios[batch["first"]] - ratios[batch["second"]]


class SingleLoss(PairLoss):
    """The loss of single responses (KTO). The second response of each pair is one to another prompt."""

    counted = "responses"

    @torch.no_grad()
    def prepare(self, model: Any, batches: Sequence[Tensors], total: Callable[[Tensor], Tensor] = torch.clone) -> None:
        """Give each of ``batches`` the reference point z0 of all of them: an estimate of KL(policy, reference).

        It is the mean log-ratio of responses to other prompts, and at least 0 (Ethayarajh et al. 2024, section 4.1).
        No gradient flows through it. A batch whose `scale` is 0 only fills a rank's turn, and counts nothing.
        """
        counts = [float(batch.get("scale", 1.0)) > 0 for batch in batches]
        # A model in parts is read by all ranks together, so that a turn that is only filled has its pass too.
        read = [one for one in zip(batches, counts, strict=True) if one[1] or has_shards(model)]
        found = [log_ratios(model, _rows(batch, batch["second"]), self.decoding) for batch, _ in read]
        ratios = [one for one, (_, counted) in zip(found, read, strict=True) if counted]
        sums = torch.stack([torch.zeros(2), *(torch.tensor([float(one.sum()), len(one)]) for one in ratios)]).sum(dim=0)
        ratio, count = total(sums).tolist()
        for batch in batches:
            batch[_POINT] = torch.tensor(max(ratio / count, 0.0), device=batch["weight"].device)

    def _leads(self, model: Any, batch: Tensors) -> Tensor:
        """[P] log-ratio of each response, minus the reference point."""
        return log_ratios(model, _rows(batch, batch["first"]), self.decoding) - batch[_POINT]


def objective_of(settings: DpoSettings, decoding: Decoding) -> PairLoss:
    """What `dpo.loss` trains on."""
    return (SingleLoss if settings.loss == "kto" else PairLoss)(settings, decoding)


def log_ratios(model: PreTrainedModel, batch: Tensors, decoding: Decoding) -> Tensor:
    """[N] log-ratios of the responses of a collated batch to the reference policy."""
    return response_log_prob_sums(model, batch, decoding) - batch["reference"]


def response_log_prob_sums(model: PreTrainedModel, batch: Tensors, decoding: Decoding) -> Tensor:
    """[N] log-probs of the responses of a collated batch, at the sampling temperature.

    The sum over response tokens, not the mean: the optimum's log-ratio is one of whole responses (Rafailov et al. 2023,
    equation 4). Tokens that the policy can never draw, such as an unknown word, count nothing under any policy.
    """
    read, tokens = PaddedBatch(batch["input_ids"], batch["attention_mask"]), batch["tokens"]
    never = torch.tensor(decoding.suppressed, dtype=torch.long, device=tokens.device)
    mask = batch["response_mask"] * ~torch.isin(tokens, never)
    return log_probs_of(model, read, tokens, mask, decoding)[0].sum(dim=1)


def _rows(batch: Tensors, chosen: Tensor) -> Tensors:
    """The ``chosen`` responses of a batch."""
    return {name: batch[name][chosen] for name in _BY_RESPONSE}
