"""What a policy does on prompts it is not trained on: which weights are kept, and when training has gone too far."""

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise

import torch

from rlhf_dagster.config.training import PpoSettings
from rlhf_dagster.training.models.kl_estimators import sequence_kl
from rlhf_dagster.training.ppo.policy import PpoPolicy
from rlhf_dagster.training.ppo.rollout import Episodes, Rollout, collect
from rlhf_dagster.training.runtime.distributed import own_slice
from rlhf_dagster.training.sampling.native import draw_uniforms
from rlhf_dagster.training.texts.tokens import PaddedBatch, pad

Curves = Mapping[str, Sequence[float]]


def validate(policy: PpoPolicy, episodes: Episodes, settings: PpoSettings, seed: int) -> dict[str, float]:
    """Means over one response to each held-out prompt, drawn with the same random numbers every time.

    `validation_reward` is the score after the rule for a missing end, `validation_kl` the sequence KL to SFT in nats,
    `validation_length` in tokens, `validation_spread` the deviation across an ensemble, where there is one.
    """
    generator, count = torch.Generator().manual_seed(seed), len(episodes.held_out)
    uniforms = draw_uniforms(count, episodes.decoding.max_tokens, generator)
    batches = torch.arange(count).tensor_split(math.ceil(count / settings.batch_size))
    rollouts = [_answered(policy, episodes, settings, rows.tolist(), uniforms[rows]) for rows in batches]
    numbers = {
        "validation_reward": torch.cat([rollout.scores for rollout in rollouts]),
        "validation_kl": torch.cat(
            [sequence_kl(rollout.log_probs, rollout.reference_log_probs, rollout.mask) for rollout in rollouts]
        ),
        "validation_length": torch.cat([rollout.mask.sum(dim=1) for rollout in rollouts]),
    }
    spreads = [rollout.spread for rollout in rollouts if rollout.spread is not None]
    if spreads:
        numbers["validation_spread"] = torch.cat(spreads)
    means = torch.stack([values.double().mean() for values in numbers.values()]).tolist()
    return dict(zip(numbers, means, strict=True))


def _answered(
    policy: PpoPolicy, episodes: Episodes, settings: PpoSettings, rows: list[int], uniforms: torch.Tensor
) -> Rollout:
    """Responses to some held-out prompts; each rank has its part, and gets all."""
    own, device = own_slice(len(rows)), policy.model.device
    ids, mask = pad([episodes.held_out[row] for row in rows], episodes.decoding.pad_id, "left")
    texts = [episodes.held_out_texts[row] for row in rows[own]] if episodes.held_out_texts else ()
    prompts = PaddedBatch(ids[own], mask[own]).to(device)
    rollout = collect(policy, episodes, prompts, uniforms=uniforms[own].to(device), settings=settings, texts=texts)
    return rollout.of_all_ranks(len(rows)).checked()


def is_due(update: int, settings: PpoSettings) -> bool:
    """Whether the policy is validated after ``update`` updates: at 0, every `validate_every`, and at the last."""
    every = settings.validate_every
    return every is not None and (update % every == 0 or update == settings.updates)


def validated_after(validation: int, settings: PpoSettings) -> int:
    """How many updates came before a validation, counted from 0 (see :func:`is_due`)."""
    return min(validation * (settings.validate_every or 0), settings.updates)


def best_validation(curves: Curves, kl_budget: float) -> int:
    """Index of the validation whose weights to keep: best score within ``kl_budget``, least KL if none is within."""
    scores, kls = curves["validation_reward"], curves["validation_kl"]
    within = [index for index, kl in enumerate(kls) if kl <= kl_budget]
    if not within:
        return min(range(len(kls)), key=lambda index: kls[index])
    return max(within, key=lambda index: scores[index])


def kept_update(curves: Curves, settings: PpoSettings) -> int:
    """After how many updates the weights that are kept were reached."""
    if settings.kl_budget is None:
        return len(curves["reward"])
    return validated_after(best_validation(curves, settings.kl_budget), settings)


def gone_too_far(curves: Curves, settings: PpoSettings) -> str:
    """Why training ends before its last update, as a sentence; empty where it goes on.

    The two signs of over-optimisation that need no better judge: the held-out score falls while the training reward
    rises, and the members of an ensemble stop agreeing (Gao et al. 2023; Coste et al. 2024).
    """
    return _disagreement(curves, settings) or _falling_score(curves, settings)


def _disagreement(curves: Curves, settings: PpoSettings) -> str:
    spreads, limit = curves.get("validation_spread", ()), settings.spread_limit
    if limit is None or not spreads or spreads[-1] <= limit:
        return ""
    return (
        f"Training ended after update {len(curves['reward'])}: the ensemble's scores of held-out "
        f"responses deviate by {spreads[-1]:.2f}, more than ppo.spread_limit {limit:g}; the policy has left what the "
        "reward model was trained on."
    )


def _falling_score(curves: Curves, settings: PpoSettings) -> str:
    scores, patience = curves.get("validation_reward", ()), settings.patience
    if patience is None or len(scores) <= patience:
        return ""
    falling = scores[-patience - 1 :]
    before, now = (_training_reward(curves, len(scores) - back, settings) for back in (patience + 1, 1))
    if now <= before or any(later >= earlier for earlier, later in pairwise(falling)):
        return ""
    return (
        f"Training ended after update {len(curves['reward'])}: the held-out score fell in {patience} "
        f"validations in a row, from {falling[0]:.2f} to {falling[-1]:.2f}, while the training reward rose from "
        f"{before:.2f} to {now:.2f}; the policy over-optimises the reward."
    )


def _training_reward(curves: Curves, validation: int, settings: PpoSettings) -> float:
    """Mean training reward since the validation before; for the first validation, the reward of the first update."""
    since, until = (validated_after(index, settings) for index in (validation - 1, validation))
    rewards = curves["reward"][max(since, 0) : until] or curves["reward"][:1]
    return sum(rewards) / len(rewards)
