"""PPO's optimisation on one rollout."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn.utils import clip_grad_norm_

from rlhf_dagster.config.training import PpoSettings
from rlhf_dagster.training.models.log_probs import Decoding
from rlhf_dagster.training.models.token_statistics import masked_mean
from rlhf_dagster.training.models.windows import language_model_loss, predicted_tokens
from rlhf_dagster.training.ppo.kl_penalty import kl_loss
from rlhf_dagster.training.ppo.losses import clipped_value_loss, ppo_policy_loss
from rlhf_dagster.training.ppo.policy import PolicyWithValueModel, PpoPolicy
from rlhf_dagster.training.ppo.rollout import Rollout, Targets
from rlhf_dagster.training.runtime.distributed import gather_rows, own_slice, sum_gradients, sum_of_ranks, world
from rlhf_dagster.training.sampling.importance import truncated_weights
from rlhf_dagster.training.texts.tokens import PaddedBatch

Numbers = dict[str, Tensor]
AT_FIRST = ("ratio", "log_ratio")
"""Numbers that say something of an update's first minibatch alone."""


def optimise(
    policy: PpoPolicy,
    optimizer: torch.optim.Optimizer,
    rollout: Rollout,
    targets: Targets,
    settings: PpoSettings,
    *,
    decoding: Decoding,
    generator: torch.Generator,
    pretraining: Callable[[int], Tensor] | None = None,
) -> Numbers:
    """Take `epochs` x `minibatches` optimiser steps; returns scalars averaged over them.

    Nothing is read back from the device inside the loop. ``pretraining`` draws windows [n, L] of text for PPO-ptx
    (InstructGPT, equation 2). The old policy, to which ratios are taken and clipped, is the one that sampled. In the
    very first minibatch it is the new one too, and but for rounding `ratio_first`, the ratio of their probabilities
    furthest from 1, is 1, and `log_ratio_first`, the mean of |log ratio| over tokens, is 0: anything else is a bug.
    With `rollouts_ahead: 1` the policy is one update further by then, except in the first update. Every rank has the
    whole rollout and computes the gradient of its part of each minibatch, in `accumulate` passes; the sum over ranks is
    the minibatch's gradient.
    """
    steps: list[Numbers] = []
    # Not those of the policy: a part of it that is whole at the moment lists others, without gradients.
    trained = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    for _ in range(settings.epochs):
        order = torch.randperm(len(rollout.tokens), generator=generator)
        for rows in order.tensor_split(settings.minibatches):
            windows = None if pretraining is None else pretraining(len(rows) * settings.pretraining_examples)
            steps.append(_own_gradient(policy, rollout, targets, rows, windows, settings=settings, decoding=decoding))
            sum_gradients(trained)
            if settings.max_grad_norm is not None:
                clip_grad_norm_(trained, settings.max_grad_norm)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
    ratios = gather_rows(steps[0]["ratio"][None], world())
    parts = {name: torch.stack([step[name] for step in steps]).mean() for name in steps[0] if name not in AT_FIRST}
    parts["log_ratio_first"] = steps[0]["log_ratio"]
    sums = sum_of_ranks(torch.stack(list(parts.values())))
    return dict(zip(parts, sums, strict=True)) | {"ratio_first": _furthest(ratios)}


def _own_gradient(
    policy: PpoPolicy,
    rollout: Rollout,
    targets: Targets,
    rows: Tensor,
    windows: Tensor | None,
    *,
    settings: PpoSettings,
    decoding: Decoding,
) -> Numbers:
    """Compute this rank's part of the gradient of a minibatch of ``rows``; the sum over ranks is the whole gradient.

    Returns this rank's part of each scalar of the minibatch, also to be summed, and `ratio`, the ratio furthest from 1.
    """
    rows = rows.to(rollout.tokens.device)
    parts = rows[own_slice(len(rows))].tensor_split(settings.accumulate)
    window_parts = _own_windows(windows, settings)
    terms: list[Numbers] = []
    for part, (window_part, *more) in zip(parts, window_parts, strict=True):
        share = rollout.mask[part].sum() / rollout.mask[rows].sum()
        apart = _values_apart(policy, rollout, targets, part, settings, share)
        loss, numbers = minibatch_loss(
            policy, rollout, targets, part, settings=settings, decoding=decoding, with_values=not apart
        )
        loss = loss * share
        numbers = {name: value if name == "ratio" else value * share for name, value in numbers.items()} | apart
        if windows is not None:
            numbers["pretraining_loss"] = _pretraining_term(policy, window_part, windows)
            loss = loss + settings.pretraining_coef * numbers["pretraining_loss"]
        loss.backward()
        terms.append({name: value.detach() for name, value in numbers.items()})
        for further in more:
            term = _pretraining_term(policy, further, windows)
            (settings.pretraining_coef * term).backward()
            terms[-1]["pretraining_loss"] = terms[-1]["pretraining_loss"] + term.detach()
    sums = {name: torch.stack([term[name] for term in terms]).sum(dim=0) for name in terms[0] if name != "ratio"}
    return sums | {"ratio": _furthest(torch.stack([term["ratio"] for term in terms]))}


def _values_apart(
    policy: PpoPolicy, rollout: Rollout, targets: Targets, rows: Tensor, settings: PpoSettings, share: Tensor
) -> Numbers:
    """Compute the gradient of a value model of its own, which shares no trained weight with the policy, and free what
    it kept before the policy is read; returns its loss times ``share``, and nothing for another kind of policy."""
    if not isinstance(policy, PolicyWithValueModel) or rollout.values is None or targets.returns is None:
        return {}
    batch = PaddedBatch(*(part[rows] for part in rollout.batch))
    values = policy.values(batch, rollout.tokens.shape[1])
    known = rollout.values[rows], targets.returns[rows], rollout.mask[rows]
    loss = clipped_value_loss(values, *known, settings.value_clip_range)
    (settings.value_coef * loss * share).backward()
    return {"value_loss": (loss * share).detach()}


def _own_windows(windows: Tensor | None, settings: PpoSettings) -> Sequence[Sequence[Tensor | None]]:
    """For each pass over episodes this rank's windows, in as many parts as an episode has windows.

    The first part is read with the episodes, the others after them, each in a pass of its own.
    """
    if windows is None:
        return [[None]] * settings.accumulate
    parts = windows[own_slice(len(windows))].tensor_split(settings.accumulate * settings.pretraining_examples)
    each = settings.pretraining_examples
    return [parts[first : first + each] for first in range(0, len(parts), each)]


def _pretraining_term(policy: PpoPolicy, part: Tensor | None, windows: Tensor | None) -> Tensor:
    """What the windows in ``part`` add to the language-modelling loss of a minibatch's ``windows``."""
    assert part is not None and windows is not None  # noqa: S101  # parts are those of the windows
    share = predicted_tokens(part) / predicted_tokens(windows)
    return language_model_loss(policy.model, part.to(policy.model.device)) * share


def minibatch_loss(
    policy: PpoPolicy,
    rollout: Rollout,
    targets: Targets,
    rows: Tensor,
    *,
    settings: PpoSettings,
    decoding: Decoding,
    with_values: bool = True,
) -> tuple[Tensor, Numbers]:
    """The clipped policy loss on some ``rows`` of the rollout, plus the weighted losses of values, where they are not
    left out, and of the KL."""
    batch = PaddedBatch(*(part[rows] for part in rollout.batch))
    tokens, mask, old_log_probs = rollout.tokens[rows], rollout.mask[rows], rollout.log_probs[rows]
    trunk = None if rollout.trunk is None else rollout.trunk[rows]
    read = batch, tokens, mask, decoding, trunk
    log_probs, values = policy(*read) if with_values else (policy.log_probs(*read), None)
    weights = _importance_weights(rollout, rows, settings)
    advantages = targets.advantages[rows]
    surrogate = ppo_policy_loss(log_probs, old_log_probs, advantages, mask, settings.clip_range, weights)
    loss, numbers = surrogate.loss, {"policy_loss": surrogate.loss}
    if values is not None and rollout.values is not None and targets.returns is not None:
        old_values, returns = rollout.values[rows], targets.returns[rows]
        numbers["value_loss"] = clipped_value_loss(values, old_values, returns, mask, settings.value_clip_range)
        loss = loss + settings.value_coef * numbers["value_loss"]
    if settings.kl_penalty != "reward":
        reference = rollout.reference_log_probs[rows]
        numbers["kl_loss"] = kl_loss(
            log_probs, reference, old_log_probs, mask, settings.kl_penalty, weights, older=settings.rollouts_ahead > 0
        )
        loss = loss + targets.kl_coef * numbers["kl_loss"]
    numbers |= {
        "clip_fraction": surrogate.clip_fraction,
        "approx_kl": surrogate.approx_kl,
        "ratio": furthest_ratio(log_probs, old_log_probs),
        "log_ratio": masked_mean((log_probs - old_log_probs).detach().abs(), mask),
    }
    return loss, numbers


def _importance_weights(rollout: Rollout, rows: Tensor, settings: PpoSettings) -> Tensor | None:
    """[B, T] weights of ``rows``, where another program has sampled them; None where the trainer has."""
    if rollout.sampler_log_probs is None:
        return None
    return truncated_weights(rollout.log_probs[rows], rollout.sampler_log_probs[rows], settings.importance_cap)


def furthest_ratio(log_probs: Tensor, old_log_probs: Tensor) -> Tensor:
    """The ratio exp(new - old) furthest from 1 in log space, as a scalar; padding is 0 in both."""
    difference = (log_probs - old_log_probs).detach().flatten()
    return difference[difference.abs().argmax()].exp()


def _furthest(ratios: Tensor) -> Tensor:
    return ratios[ratios.log().abs().argmax()]
