"""What a policy's responses are like: their KL to the reference, their length, and how varied they are.

Words are those of :func:`~rlhf_dagster.common.words.words`, in lower case. Without a response every function raises
ValueError.
"""

from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from rlhf_dagster.common.intervals import Rate, mean_interval
from rlhf_dagster.common.words import Gram, ngrams, words


def mean_sequence_kl(log_probs: Sequence[ArrayLike], reference_log_probs: Sequence[ArrayLike]) -> Rate:
    """Mean sequence KL(policy || reference) in nats, with its 95% t interval over responses.

    Both arguments hold, for each response sampled from the policy, its tokens' log-probabilities (shape [T], T may
    differ between responses) under the policy and under the reference. The estimate is the mean over responses of the
    sum over tokens of the difference, whose expectation is the KL that Ziegler et al. 2019 (section 2) penalise; an
    estimate can fall below 0. Raises ValueError where the two do not hold the same tokens.
    """
    if len(log_probs) != len(reference_log_probs):
        raise ValueError(f"{len(log_probs)} responses do not match {len(reference_log_probs)} of the reference")
    return mean_interval([_log_ratio(own, other) for own, other in zip(log_probs, reference_log_probs, strict=True)])


def _log_ratio(log_probs: ArrayLike, reference_log_probs: ArrayLike) -> float:
    own, other = np.asarray(log_probs, dtype=np.float64), np.asarray(reference_log_probs, dtype=np.float64)
    if own.shape != other.shape:
        raise ValueError(f"{own.size} log-probabilities do not match {other.size} of the reference")
    return float((own - other).sum())


def distinct_responses(texts: Sequence[str]) -> float:
    """Share of responses that are different: the number of different texts over the number of texts."""
    _require(texts)
    return len(set(texts)) / len(texts)


def distinct_n(texts: Sequence[str], n: int) -> float:
    """Different n-grams over all n-grams, of all responses together (distinct-n; Li et al. 2016 divide by all tokens).

    It falls as responses are added, so compare it between equally large sets only. No n-gram at all counts as 0.
    """
    _require(texts)
    grams = [gram for text in texts for gram in _ngrams(text, n)]
    return len(set(grams)) / len(grams) if grams else 0.0


def repetition(texts: Sequence[str], n: int = 2) -> float:
    """Mean share of a response's n-grams that repeat an earlier one of the same response (seq-rep-n of Welleck et al.
    2020). A response shorter than ``n`` words repeats nothing."""
    _require(texts)
    return float(np.mean([_repeated_share(_ngrams(text, n)) for text in texts]))


def shared_ngrams(texts: Sequence[str], n: int = 3) -> float:
    """Mean share of a response's n-grams that some other response also holds.

    This is the n-gram precision of Self-BLEU (Zhu et al. 2018) with all other responses as references,
    without its geometric mean over n, in time linear in the text. Higher means less varied.
    """
    _require(texts)
    grams = [set(_ngrams(text, n)) for text in texts]
    holders = Counter(gram for held in grams for gram in held)
    return float(np.mean([sum(holders[gram] > 1 for gram in held) / len(held) if held else 0.0 for held in grams]))


def copied_ngrams(prompts: Sequence[str], texts: Sequence[str], n: int = 3) -> float:
    """Mean share of a response's n-grams that stand in its prompt; a response shorter than ``n`` words copies nothing.

    Ziegler et al. 2019 (section 3.2) find that summarisation policies trained on people's preferences learn to copy.
    Raises ValueError where there are not as many prompts as responses.
    """
    _require(texts)
    pairs = zip(prompts, texts, strict=True)
    return float(np.mean([_share_within(_ngrams(text, n), set(_ngrams(prompt, n))) for prompt, text in pairs]))


def _ngrams(text: str, n: int) -> list[Gram]:
    return ngrams(words(text.lower()), n)


def _repeated_share(grams: list[Gram]) -> float:
    return 1 - len(set(grams)) / len(grams) if grams else 0.0


def _share_within(grams: list[Gram], source: set[Gram]) -> float:
    return sum(gram in source for gram in grams) / len(grams) if grams else 0.0


def _require(texts: Sequence[str]) -> None:
    if len(texts) == 0:
        raise ValueError("no responses to measure")
