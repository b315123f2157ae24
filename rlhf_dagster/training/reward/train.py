"""Training the reward model from the SFT checkpoint on preference labels."""

from dataclasses import replace
from functools import partial
from typing import Any, cast

import pandas as pd
import torch
from torch import Tensor

from rlhf_dagster.records.schemas import PREFERENCES
from rlhf_dagster.records.tables import HELD_OUT_SPLITS, read_table, rows_of_split
from rlhf_dagster.training.checkpoints.context import require_context
from rlhf_dagster.training.models.policies import Policy, load_model, load_tokenizer
from rlhf_dagster.training.models.sharding.opening import Sharding, sharding_models
from rlhf_dagster.training.models.shared_bases import SharedBases, bases_of
from rlhf_dagster.training.reward.heads import draw_heads, score_sequences
from rlhf_dagster.training.reward.labels import (
    check_labels,
    collate_labels,
    encode_labels,
    evaluate,
    label_loss,
    with_bootstrap,
)
from rlhf_dagster.training.reward.losses import choice_losses
from rlhf_dagster.training.reward.normalisation import begin_scale, end_scale, sampled_policy
from rlhf_dagster.training.reward.scores import RewardModel, require_room, score_heads
from rlhf_dagster.training.reward.terms import merge_labels
from rlhf_dagster.training.reward.training import RewardModelTraining
from rlhf_dagster.training.runtime.device import training_on, use_device
from rlhf_dagster.training.runtime.freeing import release_memory
from rlhf_dagster.training.runtime.output import writing_output
from rlhf_dagster.training.runtime.resuming import KEEP_NOTHING, Checkpointing, fingerprint
from rlhf_dagster.training.runtime.seeding import seed_everything
from rlhf_dagster.training.runtime.sharding.tensors import shards
from rlhf_dagster.training.runtime.state_keeper import StateKeeper
from rlhf_dagster.training.scorers.sequence_scorer import AutoSequenceScorer
from rlhf_dagster.training.specs import OnStep, RewardModelSpec, TrainingResult, silent
from rlhf_dagster.training.texts.cuts import Cuts
from rlhf_dagster.training.texts.tokens import PaddedBatch
from rlhf_dagster.training.trainer import KeptTrainer, fit, own_parts, rows_at_once, training_arguments

FINAL_STEPS = 20
READ_BY_REWARD_MODEL = "reward_model.max_tokens"
"""The setting that says how much of a response is read."""
TIES_LEARNING_RATE = 0.02
"""For the logarithms of the tie model's parameters, by Adam; it falls to 0 together with the weights' rate."""


class RewardTrainer(KeptTrainer):
    """A Trainer whose loss compares the scores of each label's responses, all computed in one forward pass.

    Scoring a prompt's K responses together keeps its comparisons in one batch element, without which one epoch overfits
    (InstructGPT, section 3.5).

    A model of ties, where there is one, is the model's submodule `ties`, so that states hold it.
    """

    stage = "reward_model"

    def compute_loss(
        self, model: Any, inputs: dict[str, Tensor], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        heads = score_heads(model, PaddedBatch(inputs["input_ids"], inputs["attention_mask"]))
        ties = getattr(getattr(model, "module", model), "ties", None)
        loss = label_loss(heads, inputs, ties or choice_losses) * inputs["scale"]
        return (loss, heads) if return_outputs else loss

    def create_optimizer(self, model: Any = None) -> torch.optim.Optimizer:
        """The Trainer's, with a separate learning rate and no weight decay for the parameters of a model of ties."""
        trained = cast("torch.nn.Module", self.model)
        own = [weight for name, weight in trained.named_parameters() if "ties." in name and weight.requires_grad]
        for weight in own:
            weight.requires_grad_(False)  # for as long as the Trainer looks for what it trains
        optimizer = super().create_optimizer(model)
        for weight in own:
            weight.requires_grad_(True)
        if own:
            optimizer.add_param_group({"params": own, "lr": TIES_LEARNING_RATE, "weight_decay": 0.0})
        return optimizer


def train_reward_model(
    spec: RewardModelSpec, progress: OnStep = silent, checkpointing: Checkpointing = KEEP_NOTHING
) -> TrainingResult:
    """Train on the `train` labels, with scores normalised before and after on samples of the fixed SFT policy, or with
    their mean alone fixed after training, on demonstrations.

    Metrics: the training loss (mean of the last 20 steps), loss (nats) and top-1 accuracy for each held-out split that
    has rows, and the mean and deviation of the final scores on what normalises them (0 but for rounding; on samples the
    deviation is 1). `score_scale` is the deviation of the scores before the final normalisation: multiplied by it, the
    final scores have the scale on which their softmax was trained. Comparisons whose responses are equal where they are
    cut teach nothing: they are left out, and counted as `equal_comparisons`, as `cut_responses` counts what was cut.

    Raises:
        TrainingStopped: `checkpointing.stop` gave a reason.
        UserError: what the spec names cannot be trained, or the training diverged.
    """
    with training_on(spec.compute):
        return _train(spec, progress, StateKeeper(checkpointing, fingerprint(spec), shards(spec.compute)))


def _train(spec: RewardModelSpec, progress: OnStep, keeper: StateKeeper) -> TrainingResult:
    frame = read_table(spec.preferences, PREFERENCES)
    check_labels(frame, spec.preferences, spec.settings)
    train = merge_labels(rows_of_split(frame, "train", spec.preferences), spec.settings)
    cuts = Cuts()
    with sharding_models(spec.compute, shards(spec.compute), mean=True) as sharding:
        training, sft = _opened(spec, train, cuts, sharding)
    reference = begin_scale(spec, training.reward_model, sft)
    del sft
    if sharding.wanted:
        release_memory()  # its parts know each other
    losses, metrics = _fit(training, spec, progress, keeper)
    reward_model = training.reward_model
    metrics |= cuts.metrics()
    last = losses[-FINAL_STEPS:]
    metrics |= {"comparisons": float(len(training.labels)), "loss_train": sum(last) / len(last)}
    metrics["score_scale"] = end_scale(spec, reward_model, reference)
    for split in HELD_OUT_SPLITS:
        labels = encode_labels(frame[frame["split"] == split], reward_model.tokenizer, spec)
        measured = evaluate(reward_model, labels, rows_at_once(spec.settings))
        metrics |= {f"{name}_{split}": value for name, value in measured.items()}
    scores = score_sequences(reward_model, reference)
    metrics |= {"reference_mean": float(scores.mean()), "reference_std": float(scores.std())}
    with writing_output(spec.output) as folder:
        training.save(folder)
    return TrainingResult(spec.output, metrics, {"loss": losses}, cuts.warnings(READ_BY_REWARD_MODEL))


def _opened(
    spec: RewardModelSpec, train: pd.DataFrame, cuts: Cuts, sharding: Sharding
) -> tuple[RewardModelTraining, Policy | None]:
    """The reward model, and the policy whose samples are to normalise it, if any do."""
    opening = replace(spec, compute=sharding.opening)
    bases = bases_of(spec.settings.lora, opening.compute)
    reward_model = initial_reward_model(opening, bases)
    sft = sampled_policy(opening, bases)
    sharding.shard_read(None if sft is None else sft.model)
    labels = encode_labels(train, reward_model.tokenizer, spec, cuts)
    cuts.require_some(READ_BY_REWARD_MODEL)
    training = RewardModelTraining(reward_model, labels, spec)
    training.shard(sharding)
    return training, sft


def initial_reward_model(spec: RewardModelSpec, bases: SharedBases | None = None) -> RewardModel:
    """The SFT trunk with new heads; its weights are those of ``bases``, where there are any."""
    use_device(spec.compute)
    seed_everything(spec.seed)
    tokenizer = load_tokenizer(spec.sft)
    model = load_model(
        AutoSequenceScorer,
        spec.sft,
        spec.compute,
        new=["score.weight"],
        bases=bases,
        num_labels=spec.settings.heads,
        pad_token_id=tokenizer.pad_token_id,
        score_bias=0.0,
        score_max_tokens=spec.settings.max_tokens,
    )
    require_context(model.config, spec.settings.max_tokens, "reward_model.max_tokens")
    require_room(spec.settings.max_tokens, spec.sampling)
    draw_heads(model)
    return RewardModel(model.eval(), tokenizer)


def _fit(
    training: RewardModelTraining, spec: RewardModelSpec, progress: OnStep, keeper: StateKeeper
) -> tuple[list[float], dict[str, float]]:
    """The loss of each step, and the parameters of ties."""
    settings, reward_model = spec.settings, training.reward_model
    with training_arguments(
        reward_model.device,
        spec.seed,
        settings.batch_size,
        num_train_epochs=settings.epochs,
        learning_rate=settings.learning_rate,
        adam_epsilon=settings.adam_epsilon,
    ) as arguments:
        trainer = RewardTrainer(
            keeper,
            schedule=settings.schedule,
            compute=spec.compute,
            model=training.begin(),
            args=arguments,
            train_dataset=with_bootstrap(training.labels, settings.heads, spec.seed),
            data_collator=lambda rows: own_parts(
                rows,
                settings.accumulate,
                lambda row: row.weight,
                partial(collate_labels, pad_id=reward_model.tokenizer.pad_token_id),
            ),
        )
        losses = fit(trainer, progress)
    return losses, training.end()
