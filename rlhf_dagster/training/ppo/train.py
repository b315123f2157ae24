"""Proximal policy optimisation against a reward model, with a KL penalty to the SFT policy."""

import math
from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from rlhf_dagster.config.training import ComputeSettings, PpoSettings
from rlhf_dagster.errors import UserError
from rlhf_dagster.training.models.passes.narrow_weights import widen_weights
from rlhf_dagster.training.ppo.alarms import alarms, mostly_start
from rlhf_dagster.training.ppo.episodes import draw_episodes, episodes_ahead
from rlhf_dagster.training.ppo.kl_penalty import KlController, kl_controller
from rlhf_dagster.training.ppo.opening.setup import prepare_ppo
from rlhf_dagster.training.ppo.policy import PpoPolicy
from rlhf_dagster.training.ppo.reward import WeightedSum
from rlhf_dagster.training.ppo.rollout import Episodes, Rollout, learning_targets, rollout_numbers
from rlhf_dagster.training.ppo.state import PpoRun, PromptOrder
from rlhf_dagster.training.ppo.update import optimise
from rlhf_dagster.training.ppo.validation import best_validation, gone_too_far, is_due, kept_update, validate
from rlhf_dagster.training.runtime.device import training_on
from rlhf_dagster.training.runtime.distributed import is_main
from rlhf_dagster.training.runtime.learning_rates import rate_share
from rlhf_dagster.training.runtime.optimizers import optimizer_class
from rlhf_dagster.training.runtime.output import writing_output
from rlhf_dagster.training.runtime.resuming import KEEP_NOTHING, Checkpointing, fingerprint
from rlhf_dagster.training.runtime.sharding.tensors import shards
from rlhf_dagster.training.runtime.state_keeper import StateKeeper
from rlhf_dagster.training.runtime.weight_average import WeightAverage
from rlhf_dagster.training.sampling.importance import sampler_numbers
from rlhf_dagster.training.sampling.rollouts import rollout_backend
from rlhf_dagster.training.specs import OnStep, PpoSpec, TrainingResult, silent

FINAL_UPDATES = 5


def train_ppo(spec: PpoSpec, progress: OnStep = silent, checkpointing: Checkpointing = KEEP_NOTHING) -> TrainingResult:
    """Optimise `spec.start` on the `train` prompts.

    A start that PPO has made brings its value head and its adaptive KL coefficient; the optimiser begins anew.
    Metrics are the means of the last 5 updates before the kept weights, and the validation of the kept weights on
    held-out prompts; curves have one number for each update, or each validation (see :func:`run_ppo`).

    Raises:
        TrainingStopped: `checkpointing.stop` gave a reason.
        UserError: what the spec names cannot be trained, or the training diverged.
    """
    with training_on(spec.compute):
        return _train(spec, progress, StateKeeper(checkpointing, fingerprint(spec), shards(spec.compute)))


def _train(spec: PpoSpec, progress: OnStep, keeper: StateKeeper) -> TrainingResult:
    setup, settings = prepare_ppo(spec), spec.settings
    with rollout_backend(spec.compute, settings.batch_size) as backend:
        episodes = replace(setup.episodes, backend=backend)
        curves = run_ppo(setup.policy, episodes, settings, spec.seed, progress, setup.controller, keeper, spec.compute)
    widen_weights(setup.policy)
    with writing_output(spec.output) as folder:
        setup.save(spec, folder)
    warnings = [
        *alarms(curves, spec.compute.precision, settings.rollouts_ahead),
        *setup.cuts.warnings("sampling.response_tokens"),
        gone_too_far(curves, settings),
        _nothing_better(curves, settings),
        mostly_start(settings.ema_decay, kept_update(curves, settings)),
    ]
    metrics = _metrics(curves, settings) | setup.cuts.metrics()
    return TrainingResult(spec.output, metrics, curves, [text for text in warnings if text])


def run_ppo(
    policy: PpoPolicy,
    episodes: Episodes,
    settings: PpoSettings,
    seed: int,
    progress: OnStep = silent,
    controller: KlController | None = None,
    keeper: StateKeeper | None = None,
    compute: ComputeSettings | None = None,
) -> dict[str, list[float]]:
    """Train ``policy`` in place; returns a curve for each of the numbers below, one value for each update.

    A ``controller`` of the KL coefficient goes on from its state, and is changed in place; without one, the settings
    make one. From a state of ``keeper``, the run goes on bit for bit as if it had not been interrupted. The optimiser
    is that of ``compute``.

    `reward`, `kl`, `entropy`, `explained_variance`, `response_length`, `distinct_responses` and `reward_spread`
    describe the rollout (:func:`rollout_numbers`), `policy_loss`, `value_loss`, `kl_loss`, `clip_fraction`,
    `approx_kl`, `ratio_first` and `log_ratio_first` the optimisation (:func:`optimise`); `kl_coef` and `learning_rate`
    are what the update used. `sampler_kl` and `sampler_weight_clipped` are there where another program samples
    (:func:`sampler_numbers`). With `rollouts_ahead: 1` an update's rollout is of the policy that the update before the
    last has left, and so are the numbers that describe it and the KL that steers the controller. Curves named
    `validation_` have a value for each validation (:func:`validate`), the first before any update.
    """
    generator = torch.Generator().manual_seed(seed)
    kind, own = optimizer_class(compute or ComputeSettings())
    optimizer = kind(
        policy.trained().values(), lr=settings.learning_rate, eps=settings.adam_epsilon, weight_decay=0.0, **own
    )
    prompts = PromptOrder(len(episodes.prompts), generator)
    run = PpoRun(policy, optimizer, controller or kl_controller(settings), generator, prompts)
    run.average = WeightAverage.of(settings.ema_decay, run.weights())
    keeper = keeper or StateKeeper(KEEP_NOTHING, "")
    device = policy.model.device if keeper.sharded else torch.device("cpu")
    if (state := keeper.load(device, run.misfit)) is not None:
        run.load_state_dict(state)
    elif is_due(0, settings):
        _validate(run, episodes, settings, seed)
    del state  # it is copied into model and optimiser, and would take memory until the end
    for update in range(run.updates + 1, settings.updates + 1):
        numbers = _update(run, episodes, settings)
        run.record(numbers)
        validated = is_due(update, settings)
        if validated:
            numbers |= _validate(run, episodes, settings, seed)
        if is_main():
            progress(update, settings.updates, **numbers)
        if validated and gone_too_far(run.curves, settings):
            break
        if update < settings.updates:
            keeper.after_step(update, run.state_dict)
    run.finish()
    return run.curves


def _update(run: PpoRun, episodes: Episodes, settings: PpoSettings) -> dict[str, float]:
    """One rollout and the optimisation on it; returns its numbers."""
    learning_rate = settings.learning_rate * rate_share(run.updates, settings.updates, settings.schedule)
    for group in run.optimizer.param_groups:
        group["lr"] = learning_rate
    rollout = draw_episodes(run, episodes, settings) if run.ahead is None else run.ahead
    begins_next = settings.rollouts_ahead and run.updates + 1 < settings.updates
    ahead = episodes_ahead(run, episodes, settings) if begins_next else None
    targets = learning_targets(rollout, settings, run.controller.coef)
    optimised = optimise(
        run.policy,
        run.optimizer,
        rollout,
        targets,
        settings,
        decoding=episodes.decoding,
        generator=run.generator,
        pretraining=_window_sampler(episodes.pretraining, run.generator),
    )
    run.ahead = None if ahead is None else ahead()
    described = rollout_numbers(rollout, targets) | _added_by_parts(rollout, episodes)
    numbers = _to_floats(described | _disagreement(rollout, settings) | optimised)
    _require_finite(numbers, run.updates)
    numbers |= {"kl_coef": run.controller.coef, "learning_rate": learning_rate}
    run.controller.update(numbers["kl"], settings.batch_size)
    run.average_weights()
    return numbers


def _added_by_parts(rollout: Rollout, episodes: Episodes) -> dict[str, Tensor]:
    """What each of several rewards adds to the reward, before the rule for a missing end."""
    if rollout.reward_parts is None or not isinstance(episodes.score, WeightedSum):
        return {}
    return episodes.score.means(rollout.reward_parts)


def _disagreement(rollout: Rollout, settings: PpoSettings) -> dict[str, Tensor]:
    """How much sampler and trainer disagree, where they are two programs."""
    if rollout.sampler_log_probs is None:
        return {}
    return sampler_numbers(rollout.log_probs, rollout.sampler_log_probs, rollout.mask, settings.importance_cap)


def _validate(run: PpoRun, episodes: Episodes, settings: PpoSettings, seed: int) -> dict[str, float]:
    """Measure the weights to keep on held-out prompts, and remember them where they are the best so far."""
    with run.weights_to_keep():
        numbers = validate(run.policy, episodes, settings, seed)
        run.record(numbers)
        if settings.kl_budget is not None and kept_update(run.curves, settings) == run.updates:
            run.kept = {name: weight.clone() for name, weight in run.weights().items()}
    return numbers


def _metrics(curves: dict[str, list[float]], settings: PpoSettings) -> dict[str, float]:
    kept = kept_update(curves, settings)
    validation, metrics = -1, {}
    if settings.kl_budget is not None:
        validation, metrics["kept_update"] = best_validation(curves, settings.kl_budget), float(kept)
    for name, curve in curves.items():
        if name.startswith("validation_"):
            metrics[name] = curve[validation]
        else:
            last = curve[: max(kept, 1)][-FINAL_UPDATES:]
            metrics[name] = sum(last) / len(last)
    return metrics


def _nothing_better(curves: dict[str, list[float]], settings: PpoSettings) -> str:
    if kept_update(curves, settings) > 0:
        return ""
    return (
        "The policy kept is the one that training started from: none within ppo.kl_budget "
        f"{settings.kl_budget:g} scored higher on held-out prompts."
    )


def _window_sampler(windows: Tensor | None, generator: torch.Generator) -> Callable[[int], Tensor] | None:
    if windows is None:
        return None
    return lambda n: windows[torch.randint(len(windows), (n,), generator=generator)]


def _to_floats(numbers: dict[str, Tensor]) -> dict[str, float]:
    """All at once: one transfer from the device for an update."""
    return dict(zip(numbers, torch.stack([number.float() for number in numbers.values()]).tolist(), strict=True))


def _require_finite(numbers: dict[str, float], update: int) -> None:
    wrong = [name for name, number in numbers.items() if not math.isfinite(number)]
    if wrong:
        raise UserError(f"PPO diverged at update {update + 1}: {wrong[0]} is not finite; lower ppo.learning_rate.")
