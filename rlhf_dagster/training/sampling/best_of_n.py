"""Best-of-n sampling: of n responses the one with the best score, which is a policy without any training."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike

from rlhf_dagster.config.training import ComputeSettings, SamplingSettings
from rlhf_dagster.errors import UserError
from rlhf_dagster.records.chats import Prompt
from rlhf_dagster.training.models.policies import Policy, load_policy
from rlhf_dagster.training.sampling.rollouts import rollout_backend
from rlhf_dagster.training.sampling.sample import Sample, sample

ScoreFunction = Callable[[Sequence[Prompt], Sequence[str]], ArrayLike]
"""Scores [N] of ``responses[i]`` to ``prompts[i]``."""
ScoreSamples = Callable[[Sequence[Prompt], Sequence[Sample]], ArrayLike]
"""The same of samples to prompts."""


@dataclass(frozen=True)
class Best:
    """The response kept, its score, and the mean score of all n."""

    sample: Sample
    score: float
    mean_score: float


def best_of_n(
    policy: Path | Policy,
    prompts: Sequence[Prompt],
    score: ScoreFunction,
    n: int,
    sampling: SamplingSettings,
    seed: int,
    compute: ComputeSettings | None = None,
) -> list[Best]:
    """For each prompt the best of ``n`` samples of ``policy`` by ``score``, the first one of equals.

    Prompts are taken in parts of about `sampling.batch_size` samples, so that never all samples are in memory at once.

    Raises:
        UserError: the policy cannot be opened, or a score is not a finite number for each response.
    """

    def by_text(asked: Sequence[Prompt], drawn: Sequence[Sample]) -> ArrayLike:
        return score(asked, [one.text for one in drawn])

    return best_samples(policy, prompts, by_text, n, sampling, seed, compute)


def best_samples(
    policy: Path | Policy,
    prompts: Sequence[Prompt],
    score: ScoreSamples,
    n: int,
    sampling: SamplingSettings,
    seed: int,
    compute: ComputeSettings | None = None,
) -> list[Best]:
    """:func:`best_of_n` by a score of samples, whose ids it may read."""
    policy = policy if isinstance(policy, Policy) else load_policy(policy, compute)
    size, kept = max(1, sampling.batch_size // n), []
    with rollout_backend(compute, size * n) as backend:
        for start in range(0, len(prompts), size):
            part = prompts[start : start + size]
            # Each part has its own seed; neighbouring seeds give unrelated random numbers.
            samples = sample(policy, part, sampling, seed + start, n, compute=compute, backend=backend)
            repeated = [prompt for prompt in part for _ in range(n)]
            scores = _checked(score(repeated, samples), len(samples)).reshape(-1, n)
            best = scores.argmax(axis=1)
            kept += [
                Best(samples[row * n + index], float(scores[row, index]), float(scores[row].mean()))
                for row, index in enumerate(best)
            ]
    return kept


def _checked(scores: ArrayLike, responses: int) -> np.ndarray:
    array = np.asarray(scores, dtype=np.float64)
    if array.shape != (responses,) or not np.isfinite(array).all():
        raise UserError(f"Best-of-n needs a finite score for each of {responses} responses; look at the reward model.")
    return array
