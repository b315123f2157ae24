"""Documents as windows of tokens, and the language-modelling loss on them."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from rlhf_dagster.training.models.passes.logit_pieces import needs_pieces, next_token_loss
from rlhf_dagster.training.texts.tokens import encode_documents

IGNORED = -100
MIN_WINDOW = 2


def text_windows(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], context: int) -> Tensor:
    """[N, L] ids: each document to its end-of-text token, cut in windows of ``context`` tokens, padded with -100."""
    documents = encode_documents(tokenizer, texts)
    cut = (ids[start : start + context] for ids in documents for start in range(0, len(ids), context))
    windows = [window for window in cut if len(window) >= MIN_WINDOW]
    width = max(map(len, windows))
    return torch.tensor([window + [IGNORED] * (width - len(window)) for window in windows])


def language_model_loss(model: PreTrainedModel, windows: Tensor) -> Tensor:
    """Mean negative log-likelihood of the next token, in nats, over ``windows`` [B, L] without padding (-100).

    The attention mask is all ones: padding is on the right, where causal attention never looks back at it.
    """
    inputs, labels = windows[:, :-1].clamp(min=0), windows[:, 1:]
    read = {"input_ids": inputs, "attention_mask": torch.ones_like(inputs)}
    if needs_pieces(model, labels.numel()):
        return next_token_loss(model, labels, labels != IGNORED, **read)
    logits = model(**read, use_cache=False).logits
    return F.cross_entropy(logits.flatten(0, 1).float(), labels.flatten(), ignore_index=IGNORED)


def predicted_tokens(windows: Tensor) -> int:
    """How many tokens of ``windows`` [B, L] the loss is a mean over."""
    return int((windows[:, 1:] != IGNORED).sum())
