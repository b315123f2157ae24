"""Models of ties: modules that turn the scores of a choice into its loss, with parameters that are trained."""

import math
from collections import Counter
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from rlhf_dagster.config.training import RewardModelSettings
from rlhf_dagster.errors import UserError
from rlhf_dagster.training.reward.losses import choice_losses, davidson_luce_losses, rao_kupper_losses
from rlhf_dagster.training.reward.terms import Choice

MOST_RESPONSES = 10
"""Largest K for Davidson-Luce, which sums over all 2^K sets of the responses."""
UNSEEN = 0.5
"""Added to the counts of outcomes, so that one that was never seen stays possible."""


class DavidsonLuce(nn.Module):
    """Ties of any number of responses (:func:`~rlhf_dagster.training.reward.losses.davidson_luce_losses`).

    The prevalences begin where they fit the labels if all responses were equally good.
    """

    def __init__(self, choices: Sequence[Choice]) -> None:
        super().__init__()
        sizes = [len(choice.members) for choice in choices]
        if max(sizes) > MOST_RESPONSES:
            raise UserError(
                f"A label compares {max(sizes)} responses, and `reward_model.ties: davidson` takes at most "
                f"{MOST_RESPONSES}; choose `share`."
            )
        seen = Counter(_chosen(choice) for choice in choices)
        prevalence = [
            (seen[count] + UNSEEN) / (seen[1] + UNSEEN) * sum(sizes) / sum(math.comb(size, count) for size in sizes)
            for count in range(2, max(sizes) + 1)
        ]
        self.log_prevalence = nn.Parameter(torch.tensor(prevalence).log())

    def forward(self, scores: Tensor, target: Tensor, mask: Tensor) -> Tensor:
        """Losses [B] of choices; all arguments are [B, K]."""
        return davidson_luce_losses(scores, target, mask, self.log_prevalence)

    def figures(self) -> dict[str, float]:
        values = self.log_prevalence.detach().exp().tolist()
        return {f"tie_prevalence_{count}": value for count, value in enumerate(values, start=2)}


class RaoKupper(nn.Module):
    """Ties of two responses (:func:`~rlhf_dagster.training.reward.losses.rao_kupper_losses`).

    A choice among more than two has no closed form: its ties share the target. The threshold begins where it fits the
    pairs if all responses were equally good.
    """

    def __init__(self, choices: Sequence[Choice]) -> None:
        super().__init__()
        chosen = Counter(_chosen(choice) for choice in choices if len(choice.members) == 2)
        share = (chosen[2] + UNSEEN) / (chosen.total() + 2 * UNSEEN)
        self.log_threshold = nn.Parameter(torch.tensor(math.log(math.log((1 + share) / (1 - share)))))

    def forward(self, scores: Tensor, target: Tensor, mask: Tensor) -> Tensor:
        """Losses [B] of choices; all arguments are [B, K], the members of a choice before padding."""
        pairs = rao_kupper_losses(scores[:, :2], target[:, :2], self.log_threshold.exp())
        return torch.where(mask.sum(dim=-1) == 2, pairs, choice_losses(scores, target, mask))

    def figures(self) -> dict[str, float]:
        return {"tie_threshold": float(self.log_threshold.detach().exp())}


TieModel = DavidsonLuce | RaoKupper


def make_tie_model(settings: RewardModelSettings, choices: Sequence[Choice]) -> TieModel | None:
    """The model of ties that the settings name, fitted to ``choices``; None where ties share the target."""
    if settings.ties == "share" or not choices:
        return None
    return DavidsonLuce(choices) if settings.ties == "davidson" else RaoKupper(choices)


def _chosen(choice: Choice) -> int:
    return sum(share > 0 for share in choice.target)
