"""Proximal policy optimisation against a reward model, with a KL penalty to the SFT policy."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import PreTrainedModel

from rlhf_dagster.errors import UserError
from rlhf_dagster.lineage.schemas import PRETRAINING_TEXT, PROMPTS
from rlhf_dagster.training.alarms import alarms
from rlhf_dagster.training.checkpointing import KEEP_NOTHING, Checkpointing, fingerprint
from rlhf_dagster.training.checkpoints import writing_output
from rlhf_dagster.training.compute import require_a_row_for_each_rank, training_on
from rlhf_dagster.training.distributed import is_main, own_slice
from rlhf_dagster.training.kl import KlController, kl_controller
from rlhf_dagster.training.log_probs import Decoding, decoding_of
from rlhf_dagster.training.policies import Policy, context_of, load_policy, require_context, save_policy
from rlhf_dagster.training.ppo_policy import PolicyWithValue, resume_ppo_state, save_ppo_state
from rlhf_dagster.training.ppo_rollout import Rollout, Score, collect, learning_targets, rollout_numbers
from rlhf_dagster.training.ppo_state import PpoRun, PromptOrder
from rlhf_dagster.training.ppo_update import optimise
from rlhf_dagster.training.reward_scores import load_reward_model, require_room, score_tokens
from rlhf_dagster.training.sampling import draw_uniforms
from rlhf_dagster.training.seeding import seed_everything
from rlhf_dagster.training.settings import PpoSettings
from rlhf_dagster.training.specs import PpoSpec, Progress, TrainingResult, silent
from rlhf_dagster.training.states import StateKeeper
from rlhf_dagster.training.tables import read_table, rows_of_split
from rlhf_dagster.training.tokens import PaddedBatch, TokenIds, encode_prompts, pad
from rlhf_dagster.training.windows import text_windows

LONGEST_WINDOW = 1024
FINAL_UPDATES = 5


@dataclass(frozen=True)
class Episodes:
    """Where episodes come from and how they are judged."""

    prompts: Sequence[TokenIds]
    reference: PreTrainedModel
    score: Score
    decoding: Decoding
    pretraining: Tensor | None = None
    """[N, L] windows of text for PPO-ptx."""


def train_ppo(
    spec: PpoSpec, progress: Progress = silent, checkpointing: Checkpointing = KEEP_NOTHING
) -> TrainingResult:
    """Optimise `spec.start` on the `train` prompts.

    A start that PPO has made brings its value head and its adaptive KL coefficient; the optimiser begins anew.
    Metrics are the means of the last 5 updates; curves have one number for each update (see :func:`run_ppo`).

    Raises:
        TrainingStopped: `checkpointing.stop` gave a reason.
        UserError: what the spec names cannot be trained, or the training diverged.
    """
    with training_on(spec.compute):
        return _train(spec, progress, StateKeeper(checkpointing, fingerprint(spec)))


def _train(spec: PpoSpec, progress: Progress, keeper: StateKeeper) -> TrainingResult:
    start, reference = load_policy(spec.start, spec.compute), load_policy(spec.sft, spec.compute)
    reward_model = load_reward_model(spec.reward_model, spec.compute)
    _check(spec, start, reference, reward_model.model)
    rows = rows_of_split(read_table(spec.prompts, PROMPTS), "train", spec.prompts)
    seed_everything(spec.seed)
    episodes = Episodes(
        prompts=encode_prompts(start.tokenizer, rows["text"].tolist(), spec.sampling.prompt_tokens),
        reference=reference.model.requires_grad_(False),
        score=lambda batch: score_tokens(reward_model.model, batch),
        decoding=decoding_of(start.tokenizer, spec.sampling),
        pretraining=_pretraining_windows(spec, start),
    )
    policy = PolicyWithValue(start.model).to(start.device)
    controller = kl_controller(spec.settings)
    resume_ppo_state(policy, controller, spec.start)
    curves = run_ppo(policy, episodes, spec.settings, spec.seed, progress, controller, keeper)
    with writing_output(spec.output) as folder:
        save_policy(start, spec.sampling, folder)
        save_ppo_state(policy, controller, folder)
    metrics = {name: sum(curve[-FINAL_UPDATES:]) / len(curve[-FINAL_UPDATES:]) for name, curve in curves.items()}
    return TrainingResult(spec.output, metrics, curves, alarms(curves))


def run_ppo(
    policy: PolicyWithValue,
    episodes: Episodes,
    settings: PpoSettings,
    seed: int,
    progress: Progress = silent,
    controller: KlController | None = None,
    keeper: StateKeeper | None = None,
) -> dict[str, list[float]]:
    """Train ``policy`` in place; returns a curve for each of the numbers below, one value for each update.

    ``controller`` of the KL coefficient goes on from its state, in place; without one, from the settings. From a state
    of ``keeper``, the run goes on bit for bit as if it had not been interrupted.

    `reward`, `kl`, `entropy`, `explained_variance`, `response_length` and `distinct_responses` describe the rollout
    (:func:`rollout_numbers`), `policy_loss`, `value_loss`, `clip_fraction`, `approx_kl` and `ratio_first` the
    optimisation (:func:`optimise`); `kl_coef` and `learning_rate` are what the update used.
    """
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.AdamW(
        policy.parameters(), lr=settings.learning_rate, eps=settings.adam_epsilon, weight_decay=0.0, fused=True
    )
    prompts = PromptOrder(episodes.prompts, generator)
    run = PpoRun(policy, optimizer, controller or kl_controller(settings), generator, prompts)
    keeper = keeper or StateKeeper(KEEP_NOTHING, "")
    if (state := keeper.load(torch.device("cpu"))) is not None:
        run.load_state_dict(state)
    del state  # copied into model and optimiser; it would be held until the end
    for update in range(run.updates + 1, settings.updates + 1):
        numbers = _update(run, episodes, settings)
        run.record(numbers)
        if is_main():
            progress(update, settings.updates, **numbers)
        if update < settings.updates:
            keeper.after_step(update, run.state_dict)
    return run.curves


def _update(run: PpoRun, episodes: Episodes, settings: PpoSettings) -> dict[str, float]:
    """One rollout and the optimisation on it; returns its numbers."""
    learning_rate = settings.learning_rate * (1 - run.updates / settings.updates)
    for group in run.optimizer.param_groups:
        group["lr"] = learning_rate
    rollout = _rollout(run, episodes, settings)
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
    numbers = _to_floats(rollout_numbers(rollout, targets) | optimised)
    _require_finite(numbers, run.updates)
    numbers |= {"kl_coef": run.controller.coef, "learning_rate": learning_rate}
    run.controller.update(numbers["kl"], settings.batch_size)
    return numbers


def _rollout(run: PpoRun, episodes: Episodes, settings: PpoSettings) -> Rollout:
    """An update's episodes. Each rank samples and scores its part; prompts and random numbers are drawn for all."""
    device, own = run.policy.model.device, own_slice(settings.batch_size)
    ids, mask = pad(run.prompts.take(settings.batch_size), episodes.decoding.pad_id, "left")
    uniforms = draw_uniforms(settings.batch_size, episodes.decoding.max_tokens, run.generator)
    rollout = collect(
        run.policy,
        episodes.reference,
        episodes.score,
        PaddedBatch(ids[own], mask[own]).to(device),
        uniforms=uniforms[own].to(device),
        decoding=episodes.decoding,
        missing_end_penalty=settings.missing_end_penalty,
    )
    return rollout.of_all_ranks(settings.batch_size)


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


def _pretraining_windows(spec: PpoSpec, start: Policy) -> Tensor | None:
    if spec.settings.pretraining_coef == 0:
        return None
    if spec.pretraining_text is None:
        raise UserError("ppo.pretraining_coef is above 0 but there is no pretraining text; give some or set it to 0.")
    rows = rows_of_split(read_table(spec.pretraining_text, PRETRAINING_TEXT), "train", spec.pretraining_text)
    context = min(context_of(start.model.config) or LONGEST_WINDOW, LONGEST_WINDOW)
    return text_windows(start.tokenizer, rows["text"].tolist(), context)


def _check(spec: PpoSpec, start: Policy, reference: Policy, reward_model: PreTrainedModel) -> None:
    settings, sampling = spec.settings, spec.sampling
    if settings.minibatches > settings.batch_size:
        raise UserError(
            f"ppo.minibatches is {settings.minibatches}, more than the {settings.batch_size} episodes of an update."
        )
    require_a_row_for_each_rank(settings.batch_size // settings.minibatches, "A minibatch of PPO (ppo.minibatches)")
    if settings.missing_end_penalty is not None and sampling.fixed_length:
        raise UserError(
            "ppo.missing_end_penalty needs `sampling.fixed_length: false`: no response of a fixed length ends."
        )
    if start.tokenizer.get_vocab() != reference.tokenizer.get_vocab():
        raise UserError(
            f"{spec.start}: its tokenizer differs from that of {spec.sft}; start from a policy trained from it."
        )
    needed = sampling.prompt_tokens + sampling.response_tokens
    require_context(start.model.config, needed, "sampling.prompt_tokens + sampling.response_tokens")
    require_room(reward_model.config.score_max_tokens, sampling)
