"""Where a response ends for the reward, and what a response that does not end is worth."""

from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from rlhf_dagster.config.training import PpoSettings
from rlhf_dagster.errors import UserError
from rlhf_dagster.training.texts.tokens import encode_responses


def truncate_id(tokenizer: PreTrainedTokenizerBase, settings: PpoSettings) -> int | None:
    """The id of `truncate_token`; raises UserError where the text is not one token."""
    text = settings.truncate_token
    if text is None:
        return None
    known = tokenizer.get_vocab().get(text)
    ids = [known] if known is not None else encode_responses(tokenizer, [text], add_end=False)[0]
    if len(ids) != 1 or ids[0] == tokenizer.unk_token_id:
        raise UserError(f"ppo.truncate_token {text!r} is not one token of this model; choose another, or null.")
    return ids[0]


@dataclass(frozen=True)
class Truncation:
    """The rule for the end of a response (Ziegler et al. 2019, lm-human-preferences `lm_tasks.py`)."""

    end_ids: tuple[int, ...]
    """End-of-text and the like, which end a response wherever they stand."""
    truncate_id: int | None = None
    """Another token that ends a response."""
    after: int = 0
    """Among so many tokens at the beginning, ``truncate_id`` does not end a response."""

    def ends(self, tokens: Tensor) -> Tensor:
        """[B, T] bool, where a response of [B, T] ids may end."""
        ends = torch.isin(tokens, torch.tensor(self.end_ids, device=tokens.device))
        if self.truncate_id is not None:
            late = torch.arange(tokens.shape[1], device=tokens.device) >= self.after
            ends = ends | ((tokens == self.truncate_id) & late)
        return ends

    def kept(self, tokens: Tensor, mask: Tensor) -> Tensor:
        """``mask`` [B, T] up to the first end, the end included."""
        ends = (self.ends(tokens) & (mask > 0)).long()
        return mask * (ends.cumsum(dim=1) - ends == 0)

    def ended(self, tokens: Tensor, mask: Tensor) -> Tensor:
        """[B] bool, whether a response ends before it is cut at T tokens."""
        return (self.ends(tokens) & (mask > 0)).any(dim=1)


def penalised(scores: Tensor, ended: Tensor, settings: PpoSettings) -> Tensor:
    """Scores [B]; without an end, `missing_end_penalty` takes the score's place (Ziegler et al.) or is subtracted."""
    penalty = settings.missing_end_penalty
    if penalty is None:
        return scores
    without_end = scores - penalty if settings.missing_end == "subtract" else torch.full_like(scores, penalty)
    return torch.where(ended, scores, without_end)
