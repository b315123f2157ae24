"""PPO's optimisation on one rollout."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.utils import clip_grad_norm_

from rlhf_dagster.training.distributed import gather_rows, own_slice, sum_gradients, sum_of_ranks, world
from rlhf_dagster.training.log_probs import Decoding, token_log_probs
from rlhf_dagster.training.losses import clipped_value_loss, ppo_policy_loss
from rlhf_dagster.training.ppo_policy import PolicyWithValue
from rlhf_dagster.training.ppo_rollout import Rollout, Targets
from rlhf_dagster.training.settings import PpoSettings
from rlhf_dagster.training.windows import language_model_loss, predicted_tokens

Numbers = dict[str, Tensor]


def optimise(
    policy: PolicyWithValue,
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
    (InstructGPT, equation 2). `ratio_first` is the ratio of new to old probability furthest from 1 in the very first
    minibatch, where both are the same policy: anything but 1 is a bug. Every rank has the whole rollout and computes
    the gradient of its part of each minibatch; their sum is the gradient of the minibatch.
    """
    steps: list[Numbers] = []
    for _ in range(settings.epochs):
        order = torch.randperm(len(rollout.tokens), generator=generator)
        for rows in order.tensor_split(settings.minibatches):
            loss, numbers = _own_loss(policy, rollout, targets, rows, settings=settings, decoding=decoding)
            if pretraining is not None:
                numbers["pretraining_loss"] = _own_pretraining_loss(policy, pretraining(len(rows)))
                loss = loss + settings.pretraining_coef * numbers["pretraining_loss"]
            loss.backward()
            sum_gradients(policy.parameters())
            if settings.max_grad_norm is not None:
                clip_grad_norm_(policy.parameters(), settings.max_grad_norm)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            steps.append({name: number.detach() for name, number in numbers.items()})
    means = {name: torch.stack([step[name] for step in steps]).mean() for name in steps[0] if name != "ratio"}
    sums = sum_of_ranks(torch.stack(list(means.values())))
    ratios = gather_rows(steps[0]["ratio"][None], world())
    return dict(zip(means, sums, strict=True)) | {"ratio_first": ratios[ratios.log().abs().argmax()]}


def _own_loss(
    policy: PolicyWithValue,
    rollout: Rollout,
    targets: Targets,
    rows: Tensor,
    *,
    settings: PpoSettings,
    decoding: Decoding,
) -> tuple[Tensor, Numbers]:
    """This rank's terms of a minibatch's loss and numbers: summed over ranks they are those of all its ``rows``."""
    rows = rows.to(rollout.tokens.device)
    own = rows[own_slice(len(rows))]
    share = rollout.mask[own].sum() / rollout.mask[rows].sum()
    loss, numbers = minibatch_loss(policy, rollout, targets, own, settings=settings, decoding=decoding)
    return loss * share, {name: value if name == "ratio" else value * share for name, value in numbers.items()}


def _own_pretraining_loss(policy: PolicyWithValue, windows: Tensor) -> Tensor:
    own = windows[own_slice(len(windows))]
    share = predicted_tokens(own) / predicted_tokens(windows)
    return language_model_loss(policy.model, own.to(policy.model.device)) * share


def minibatch_loss(
    policy: PolicyWithValue,
    rollout: Rollout,
    targets: Targets,
    rows: Tensor,
    *,
    settings: PpoSettings,
    decoding: Decoding,
) -> tuple[Tensor, Numbers]:
    """Clipped policy loss plus `value_coef` times the clipped value loss on some ``rows`` of the rollout."""
    ids, attention_mask = rollout.batch.input_ids[rows], rollout.batch.attention_mask[rows]
    tokens, mask, old_log_probs = rollout.tokens[rows], rollout.mask[rows], rollout.log_probs[rows]
    logits, values = policy(ids, attention_mask, tokens.shape[1])
    log_probs = token_log_probs(logits, tokens, mask, decoding)
    surrogate = ppo_policy_loss(log_probs, old_log_probs, targets.advantages[rows], mask, settings.clip_range)
    value_loss = clipped_value_loss(
        values, rollout.values[rows], targets.returns[rows], mask, settings.value_clip_range
    )
    numbers = {
        "policy_loss": surrogate.loss,
        "value_loss": value_loss,
        "clip_fraction": surrogate.clip_fraction,
        "approx_kl": surrogate.approx_kl,
        "ratio": furthest_ratio(log_probs, old_log_probs),
    }
    return surrogate.loss + settings.value_coef * value_loss, numbers


def furthest_ratio(log_probs: Tensor, old_log_probs: Tensor) -> Tensor:
    """The ratio exp(new - old) furthest from 1 in log space, as a scalar; padding is 0 in both."""
    difference = (log_probs - old_log_probs).detach().flatten()
    return difference[difference.abs().argmax()].exp()
