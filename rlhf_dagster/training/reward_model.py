"""Training the reward model from the SFT checkpoint on preference labels."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import AutoModelForSequenceClassification, PreTrainedModel

from rlhf_dagster.errors import UserError
from rlhf_dagster.lineage.schemas import PREFERENCES, PROMPTS
from rlhf_dagster.training.checkpointing import KEEP_NOTHING, Checkpointing, fingerprint
from rlhf_dagster.training.checkpoints import writing_output
from rlhf_dagster.training.compute import training_on, use_device
from rlhf_dagster.training.distributed import own_slice
from rlhf_dagster.training.losses import preference_loss
from rlhf_dagster.training.policies import Policy, load_model, load_policy, load_tokenizer, require_context, save_model
from rlhf_dagster.training.preferences import (
    EncodedLabel,
    check_labels,
    collate,
    encode_labels,
    evaluate,
    label_scores,
    merge_labels,
)
from rlhf_dagster.training.reward_scores import RewardModel, require_room, score_tokens
from rlhf_dagster.training.sampling import sample
from rlhf_dagster.training.seeding import seed_everything
from rlhf_dagster.training.specs import Progress, RewardModelSpec, TrainingResult, silent
from rlhf_dagster.training.states import StateKeeper
from rlhf_dagster.training.tables import read_table, rows_of_split
from rlhf_dagster.training.tokens import TokenIds, encode_prompts, pad
from rlhf_dagster.training.trainer import KeptTrainer, fit, loss_scale, training_arguments

HELD_OUT = ("validation", "held_out_annotators")
FINAL_STEPS = 20


class RewardTrainer(KeptTrainer):
    """A Trainer whose loss compares the scores of each label's responses, all computed in one forward pass.

    Scoring a prompt's K responses together keeps its comparisons in one batch element, without which one epoch overfits
    (InstructGPT, section 3.5).
    """

    def compute_loss(
        self, model: Any, inputs: dict[str, Tensor], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        scores = label_scores(model, inputs)
        loss = preference_loss(scores, inputs["target"], inputs["mask"], inputs["weight"]) * inputs["scale"]
        return (loss, scores) if return_outputs else loss


def train_reward_model(
    spec: RewardModelSpec, progress: Progress = silent, checkpointing: Checkpointing = KEEP_NOTHING
) -> TrainingResult:
    """Train on the `train` labels, with scores normalised before and after on samples of the fixed SFT policy.

    Metrics: the training loss (mean of the last 20 steps), loss (nats) and top-1 accuracy for each held-out split that
    has rows, and the mean and deviation of the final scores on the normalisation samples (0 and 1 but for rounding).

    Raises:
        TrainingStopped: `checkpointing.stop` gave a reason.
        UserError: what the spec names cannot be trained.
    """
    with training_on(spec.compute):
        return _train(spec, progress, StateKeeper(checkpointing, fingerprint(spec)))


def _train(spec: RewardModelSpec, progress: Progress, keeper: StateKeeper) -> TrainingResult:
    frame = read_table(spec.preferences, PREFERENCES)
    check_labels(frame, spec.preferences)
    train = merge_labels(rows_of_split(frame, "train", spec.preferences))
    reward_model = initial_reward_model(spec)
    reference = reference_samples(spec, load_policy(spec.sft, spec.compute))
    normalise(reward_model, reference)
    losses = _fit(reward_model, encode_labels(train, reward_model.tokenizer, spec), spec, progress, keeper)
    normalise(reward_model, reference)
    metrics = {"comparisons": float(len(train)), "loss_train": sum(losses[-FINAL_STEPS:]) / len(losses[-FINAL_STEPS:])}
    for split in HELD_OUT:
        labels = encode_labels(frame[frame["split"] == split], reward_model.tokenizer, spec)
        measured = evaluate(reward_model, labels, spec.settings.batch_size)
        metrics |= {f"{name}_{split}": value for name, value in measured.items()}
    scores = score_sequences(reward_model, reference)
    metrics |= {"reference_mean": float(scores.mean()), "reference_std": float(scores.std())}
    with writing_output(spec.output) as folder:
        save_model(reward_model.model, reward_model.tokenizer, folder)
    return TrainingResult(spec.output, metrics, {"loss": losses})


def initial_reward_model(spec: RewardModelSpec) -> RewardModel:
    """The SFT trunk with a new head: weights ~ N(0, 1 / (d + 1)), no bias (Stiennon et al. 2020, appendix B.1)."""
    device = use_device(spec.compute)
    seed_everything(spec.seed)
    tokenizer = load_tokenizer(spec.sft)
    model = load_model(
        AutoModelForSequenceClassification,
        spec.sft,
        new=["score.weight"],
        num_labels=1,
        pad_token_id=tokenizer.pad_token_id,
        score_bias=0.0,
        score_max_tokens=spec.settings.max_tokens,
    )
    require_context(model.config, spec.settings.max_tokens, "reward_model.max_tokens")
    require_room(spec.settings.max_tokens, spec.sampling)
    head = _head(model)
    torch.nn.init.normal_(head.weight, std=1 / math.sqrt(head.weight.shape[1] + 1))
    return RewardModel(model.to(device).eval(), tokenizer)  # type: ignore[arg-type]


def reference_samples(spec: RewardModelSpec, sft: Policy) -> list[TokenIds]:
    """One SFT sample for each of `normalisation_samples` train prompts, as ids of prompt and response."""
    frame = rows_of_split(read_table(spec.prompts, PROMPTS), "train", spec.prompts)
    chosen = np.random.default_rng(spec.seed).choice(len(frame), size=spec.settings.normalisation_samples)
    prompts = frame["text"].iloc[chosen].tolist()
    samples = sample(sft, prompts, spec.sampling, seed=spec.seed)
    encoded = encode_prompts(sft.tokenizer, prompts, spec.sampling.prompt_tokens)
    end = [] if spec.sampling.fixed_length else [sft.tokenizer.eos_token_id]
    bodies = [drawn.token_ids if drawn.token_ids[-1:] == end or not end else drawn.token_ids + end for drawn in samples]
    return [prompt + body for prompt, body in zip(encoded, bodies, strict=True)]


def normalise(reward_model: RewardModel, reference: Sequence[TokenIds]) -> None:
    """Rescale the head so that scores of ``reference`` have mean 0 and population deviation 1.

    Ziegler et al. 2019, lm-human-preferences `train_reward.py`. Its gain is folded into the head's weights and its bias
    kept in the config as `score_bias`, so that the folder stays a plain checkpoint.
    """
    scores = score_sequences(reward_model, reference)
    gain = 1 / max(float(scores.std()), 1e-8)
    config = reward_model.model.config
    with torch.no_grad():
        _head(reward_model.model).weight.mul_(gain)
    config.score_bias = gain * (config.score_bias - float(scores.mean()))


@torch.no_grad()
def score_sequences(reward_model: RewardModel, sequences: Sequence[TokenIds], batch_size: int = 256) -> np.ndarray:
    """Scores [N] (float64) of sequences of ids."""
    parts = []
    for start in range(0, len(sequences), batch_size):
        batch = pad(sequences[start : start + batch_size], reward_model.tokenizer.pad_token_id, "right")
        parts.append(score_tokens(reward_model.model, batch.to(reward_model.device)).double().cpu().numpy())
    return np.concatenate(parts)


def _fit(
    reward_model: RewardModel,
    train: list[EncodedLabel],
    spec: RewardModelSpec,
    progress: Progress,
    keeper: StateKeeper,
) -> list[float]:
    with training_arguments(
        reward_model.device,
        spec.seed,
        spec.settings.batch_size,
        num_train_epochs=spec.settings.epochs,
        learning_rate=spec.settings.learning_rate,
        adam_epsilon=spec.settings.adam_epsilon,
    ) as arguments:
        trainer = RewardTrainer(
            keeper,
            model=reward_model.model,
            args=arguments,
            train_dataset=train,
            data_collator=lambda rows: _collate_own(rows, reward_model.tokenizer.pad_token_id),
        )
        losses = fit(trainer, progress)
    reward_model.model.eval()
    return losses


def _collate_own(rows: list[EncodedLabel], pad_id: int) -> dict[str, Tensor]:
    """This rank's labels of a batch, and the `scale` of their loss; a rank without any has one that counts nothing."""
    own = rows[own_slice(len(rows))]
    own_weight, weight = (sum(choice.weight for row in part for choice in row.choices) for part in (own, rows))
    return collate(own or rows[:1], pad_id) | {"scale": torch.tensor(loss_scale(own_weight, weight))}


def _head(model: PreTrainedModel) -> torch.nn.Linear:
    head = getattr(model, "score", None)
    if not isinstance(head, torch.nn.Linear) or head.bias is not None:
        raise UserError(
            f"{type(model).__name__} has no linear `score` head; choose a causal language model as base model."
        )
    return head
