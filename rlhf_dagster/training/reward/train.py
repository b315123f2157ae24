"""Training the reward model from the SFT checkpoint on preference labels."""

from functools import partial
from typing import Any, cast

import torch
from peft import PeftModel
from torch import Tensor
from transformers import PreTrainedModel

from rlhf_dagster.config.training import RewardModelSettings
from rlhf_dagster.records.schemas import PREFERENCES
from rlhf_dagster.records.tables import HELD_OUT_SPLITS, read_table, rows_of_split
from rlhf_dagster.training.checkpoints.context import require_context
from rlhf_dagster.training.models.lora import add_lora, merge_lora
from rlhf_dagster.training.models.passes.logit_pieces import plain_model
from rlhf_dagster.training.models.passes.narrow_weights import prepare_training, widen_weights
from rlhf_dagster.training.models.policies import load_model, load_tokenizer, save_model
from rlhf_dagster.training.reward.heads import draw_heads, score_sequences
from rlhf_dagster.training.reward.labels import (
    EncodedLabel,
    check_labels,
    collate_labels,
    encode_labels,
    evaluate,
    label_loss,
    with_bootstrap,
)
from rlhf_dagster.training.reward.losses import choice_losses
from rlhf_dagster.training.reward.normalisation import begin_scale, end_scale
from rlhf_dagster.training.reward.scores import RewardModel, require_room, score_heads
from rlhf_dagster.training.reward.terms import merge_labels
from rlhf_dagster.training.reward.ties import TieModel, make_tie_model
from rlhf_dagster.training.runtime.device import training_on, use_device
from rlhf_dagster.training.runtime.output import writing_output
from rlhf_dagster.training.runtime.resuming import KEEP_NOTHING, Checkpointing, fingerprint
from rlhf_dagster.training.runtime.seeding import seed_everything
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
        optimizer, trained = super().create_optimizer(model), cast("torch.nn.Module", self.model)
        own = [weight for name, weight in trained.named_parameters() if "ties." in name and weight.requires_grad]
        if own:
            for group in optimizer.param_groups:
                group["params"] = [weight for weight in group["params"] if all(weight is not other for other in own)]
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
        return _train(spec, progress, StateKeeper(checkpointing, fingerprint(spec)))


def _train(spec: RewardModelSpec, progress: OnStep, keeper: StateKeeper) -> TrainingResult:
    frame = read_table(spec.preferences, PREFERENCES)
    check_labels(frame, spec.preferences, spec.settings)
    train = merge_labels(rows_of_split(frame, "train", spec.preferences), spec.settings)
    reward_model = initial_reward_model(spec)
    reference = begin_scale(spec, reward_model)
    cuts = Cuts()
    labels = encode_labels(train, reward_model.tokenizer, spec, cuts)
    cuts.require_some(READ_BY_REWARD_MODEL)
    reward_model, losses, metrics = _fit(reward_model, labels, spec, progress, keeper)
    metrics |= cuts.metrics()
    last = losses[-FINAL_STEPS:]
    metrics |= {"comparisons": float(len(labels)), "loss_train": sum(last) / len(last)}
    metrics["score_scale"] = end_scale(spec, reward_model, reference)
    for split in HELD_OUT_SPLITS:
        labels = encode_labels(frame[frame["split"] == split], reward_model.tokenizer, spec)
        measured = evaluate(reward_model, labels, rows_at_once(spec.settings))
        metrics |= {f"{name}_{split}": value for name, value in measured.items()}
    scores = score_sequences(reward_model, reference)
    metrics |= {"reference_mean": float(scores.mean()), "reference_std": float(scores.std())}
    with writing_output(spec.output) as folder:
        save_model(reward_model.model, reward_model.tokenizer, folder)
    return TrainingResult(spec.output, metrics, {"loss": losses}, cuts.warnings(READ_BY_REWARD_MODEL))


def initial_reward_model(spec: RewardModelSpec) -> RewardModel:
    """The SFT trunk with new heads."""
    device = use_device(spec.compute)
    seed_everything(spec.seed)
    tokenizer = load_tokenizer(spec.sft)
    model = load_model(
        AutoSequenceScorer,
        spec.sft,
        new=["score.weight"],
        num_labels=spec.settings.heads,
        pad_token_id=tokenizer.pad_token_id,
        score_bias=0.0,
        score_max_tokens=spec.settings.max_tokens,
    )
    require_context(model.config, spec.settings.max_tokens, "reward_model.max_tokens")
    require_room(spec.settings.max_tokens, spec.sampling)
    draw_heads(model)
    return RewardModel(model.to(device).eval(), tokenizer)  # type: ignore[arg-type]


def _fit(
    reward_model: RewardModel,
    train: list[EncodedLabel],
    spec: RewardModelSpec,
    progress: OnStep,
    keeper: StateKeeper,
) -> tuple[RewardModel, list[float], dict[str, float]]:
    """The trained model, the loss of each step, and the parameters of ties."""
    settings, tokenizer = spec.settings, reward_model.tokenizer
    ties = make_tie_model(settings, [choice for label in train for choice in label.terms.choices])
    trained = _with_extras(reward_model.model, ties, settings)
    with training_arguments(
        reward_model.device,
        spec.seed,
        settings.batch_size,
        num_train_epochs=settings.epochs,
        learning_rate=settings.learning_rate,
        adam_epsilon=settings.adam_epsilon,
    ) as arguments:
        prepare_training(plain_model(trained), spec.compute)
        trainer = RewardTrainer(
            keeper,
            compute=spec.compute,
            schedule=settings.schedule,
            model=trained,
            args=arguments,
            train_dataset=with_bootstrap(train, settings.heads, spec.seed),
            data_collator=lambda rows: own_parts(
                rows,
                settings.accumulate,
                lambda row: row.weight,
                partial(collate_labels, pad_id=tokenizer.pad_token_id),
            ),
        )
        losses = fit(trainer, progress)
    widen_weights(trained)
    model, figures = _without_extras(trained)
    return RewardModel(model.eval(), tokenizer), losses, figures


def _with_extras(model: PreTrainedModel, ties: TieModel | None, settings: RewardModelSettings) -> Any:
    """The model with what only training needs: a model of ties, and adapters."""
    if ties is not None:
        model.ties = ties.to(model.device)
    if settings.lora is None:
        return model
    return add_lora(model, settings.lora, keep=["score", *(["ties"] if ties is not None else [])])


def _without_extras(trained: Any) -> tuple[PreTrainedModel, dict[str, float]]:
    """The plain model, adapters merged, and the figures of its model of ties."""
    model = merge_lora(trained) if isinstance(trained, PeftModel) else trained
    ties = getattr(model, "ties", None)
    if ties is None:
        return model, {}
    del model.ties
    return model, ties.figures()
