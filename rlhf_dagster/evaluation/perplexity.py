"""The alignment tax: how much of its language a policy has lost, as perplexity on held-out pretraining text."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from rlhf_dagster.common.intervals import Rate
from rlhf_dagster.config.training import ComputeSettings

DOCUMENTS = 256
"""Most documents that are read."""
LONGEST = 1024
"""Most tokens of a document that are read, where the model's context is longer."""


@dataclass(frozen=True)
class AlignmentTax:
    """``ratio`` is policy's perplexity over SFT's, with its 95% interval over documents."""

    policy: float
    sft: float
    ratio: Rate
    tokens: int

    def as_dict(self) -> dict[str, Any]:
        return self.ratio.as_dict() | {"policy": self.policy, "sft": self.sft, "tokens": self.tokens}


def alignment_tax(policy: Path, sft: Path, texts: Sequence[str], compute: ComputeSettings) -> AlignmentTax:
    """Perplexity of two checkpoints with the same tokenizer on ``texts``.

    Ouyang et al. 2022 (section 4.2, InstructGPT) call what training on preferences costs elsewhere the alignment tax.
    """
    own, tokens = document_losses(policy, texts, compute)
    reference, _ = document_losses(sft, texts, compute)
    total = float(tokens.sum())
    return AlignmentTax(
        policy=math.exp(own.sum() / total),
        sft=math.exp(reference.sum() / total),
        ratio=perplexity_ratio(own, reference, tokens),
        tokens=int(total),
    )


def document_losses(folder: Path, texts: Sequence[str], compute: ComputeSettings) -> tuple[np.ndarray, np.ndarray]:
    """Negative log-likelihood [n], in nats, of the first window of each document, and its number of tokens [n]."""
    import torch

    from rlhf_dagster.training.checkpoints.context import context_of
    from rlhf_dagster.training.models.policies import load_policy
    from rlhf_dagster.training.models.windows import language_model_loss, text_windows

    policy = load_policy(folder, compute)
    context = min(context_of(policy.model.config) or LONGEST, LONGEST)
    losses, tokens = [], []
    with torch.no_grad():
        for text in texts:
            window = text_windows(policy.tokenizer, [text], context)[:1].to(policy.device)
            tokens.append(window.shape[1] - 1)
            losses.append(float(language_model_loss(policy.model, window)) * tokens[-1])
    return np.array(losses), np.array(tokens)


def perplexity_ratio(losses: ArrayLike, reference: ArrayLike, tokens: ArrayLike, confidence: float = 0.95) -> Rate:
    """exp of the mean difference of the loss per token, with an interval that allows for documents as clusters.

    All have shape [n], one value for each document: its summed losses in nats under the two models, and its tokens. The
    mean per token is a ratio of two sums over documents; its variance is the linearised one (Cochran 1977, equation
    2.47). With one document the interval is 0 to infinity.
    """
    from scipy.stats import t

    gaps = np.asarray(losses, dtype=np.float64) - np.asarray(reference, dtype=np.float64)
    sizes = np.asarray(tokens, dtype=np.float64)
    n = sizes.size
    if n == 0:
        raise ValueError("a perplexity needs at least one document")
    mean = float(gaps.sum() / sizes.sum())
    if n == 1:
        return Rate(math.exp(mean), 0.0, math.inf, 1)
    residuals = gaps - mean * sizes
    half = float(t.ppf((1 + confidence) / 2, n - 1) * math.sqrt(n / (n - 1) * (residuals**2).sum()) / sizes.sum())
    return Rate(math.exp(mean), math.exp(mean - half), math.exp(mean + half), n)
