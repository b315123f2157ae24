"""Supervised fine-tuning on demonstrations."""

from dataclasses import dataclass
from functools import partial
from typing import Any

import pandas as pd
import torch
from torch import Tensor
from torch.utils.data import Dataset
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from rlhf_dagster.config.training import SamplingSettings, SftSettings
from rlhf_dagster.errors import UserError
from rlhf_dagster.records.chats import prompts_of
from rlhf_dagster.records.schemas import DEMONSTRATIONS
from rlhf_dagster.records.tables import read_table, rows_of_split
from rlhf_dagster.training.checkpoints.context import require_context
from rlhf_dagster.training.models.passes.logit_pieces import next_token_loss
from rlhf_dagster.training.models.policies import Policy, load_unpadded_policy
from rlhf_dagster.training.models.sharding.opening import Sharding, sharding_models
from rlhf_dagster.training.models.sharding.policies import PolicyTraining
from rlhf_dagster.training.models.shared_bases import bases_of
from rlhf_dagster.training.models.windows import IGNORED
from rlhf_dagster.training.runtime.device import training_on
from rlhf_dagster.training.runtime.output import writing_output
from rlhf_dagster.training.runtime.resuming import KEEP_NOTHING, Checkpointing, fingerprint
from rlhf_dagster.training.runtime.sharding.tensors import shards
from rlhf_dagster.training.runtime.state_keeper import StateKeeper
from rlhf_dagster.training.sft.packing import pack
from rlhf_dagster.training.sft.packing_check import packing_refusal
from rlhf_dagster.training.specs import OnStep, SftSpec, TrainingResult, silent
from rlhf_dagster.training.texts.chats.encoding import set_chat
from rlhf_dagster.training.texts.chats.ends import ends_in_config
from rlhf_dagster.training.texts.chats.template import template_findings
from rlhf_dagster.training.texts.cuts import Cuts
from rlhf_dagster.training.texts.special_tokens import allow_special_tokens
from rlhf_dagster.training.texts.tokens import TokenIds, encode_prompts, encode_responses, pad
from rlhf_dagster.training.trainer import KeptTrainer, fit_policy, own_parts, rows_at_once

MEASURED_ROWS = 1024
UNTAUGHT = (
    "sft.epochs is 0: nothing was learned from demonstrations, and the SFT checkpoint is the base model as it is."
)


@dataclass(frozen=True)
class Demonstration:
    prompt: TokenIds
    response: TokenIds


class Demonstrations(Dataset[Demonstration]):
    """Encoded demonstrations: the prompt cut on the left, the response on the right.

    A response ends with the token that ends responses, unless it is cut: to `sampling.response_tokens` where responses
    have a fixed length, otherwise to what `sft.max_tokens` leaves. ``cuts`` counts what is lost.
    """

    def __init__(
        self, frame: pd.DataFrame, tokenizer: PreTrainedTokenizerBase, settings: SftSettings, sampling: SamplingSettings
    ) -> None:
        self.cuts, asked = Cuts(), prompts_of(frame)
        prompts = encode_prompts(tokenizer, asked, sampling.prompt_tokens, self.cuts)
        responses = encode_responses(tokenizer, frame["response"].tolist(), True, asked)
        longest = sampling.response_tokens if sampling.fixed_length else settings.max_tokens
        self.rows = []
        for prompt, response in zip(prompts, responses, strict=True):
            room = min(longest, settings.max_tokens - len(prompt))
            self.cuts.responses.count(len(response), room + sampling.fixed_length)  # its end is nothing that it says
            self.rows.append(Demonstration(prompt, response[:room]))

    @property
    def lengths(self) -> list[int]:
        """Tokens of each row."""
        return [len(row.prompt) + len(row.response) for row in self.rows]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Demonstration:
        return self.rows[index]


class SftTrainer(KeptTrainer):
    """A Trainer with the language-modelling loss of the response tokens, averaged over the tokens of a batch."""

    stage = "sft"

    def compute_loss(
        self, model: Any, inputs: dict[str, Tensor], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        loss = response_loss(model, inputs) * inputs["scale"]
        return (loss, {}) if return_outputs else loss


def train_sft(spec: SftSpec, progress: OnStep = silent, checkpointing: Checkpointing = KEEP_NOTHING) -> TrainingResult:
    """Fine-tune on the `train` demonstrations with the language-modelling loss of the response tokens alone.

    With `epochs: 0` the checkpoint is the model as it is, and the losses before and after are the same.

    Metrics are losses in nats for each response token, before (`initial_validation_loss`) and after training; those of
    validation are absent where the table has no such rows.

    Raises:
        TrainingStopped: `checkpointing.stop` gave a reason.
        UserError: what the spec names cannot be trained, or the training diverged.
    """
    with training_on(spec.compute):
        return _train(spec, progress, StateKeeper(checkpointing, fingerprint(spec), shards(spec.compute)))


def _train(spec: SftSpec, progress: OnStep, keeper: StateKeeper) -> TrainingResult:
    frame = read_table(spec.demonstrations, DEMONSTRATIONS)
    train_rows = rows_of_split(frame, "train", spec.demonstrations)
    with sharding_models(spec.compute, shards(spec.compute), mean=True) as sharding:
        training = _opened(spec, sharding)
    policy = training.policy
    train = Demonstrations(train_rows, policy.tokenizer, spec.settings, spec.sampling)
    validation = Demonstrations(frame[frame["split"] == "validation"], policy.tokenizer, spec.settings, spec.sampling)
    at_once = rows_at_once(spec.settings)
    initial = mean_response_loss(policy, validation, at_once)
    losses = _fit(training, train, spec, progress, keeper)
    policy = training.policy
    metrics = {
        "train_loss": mean_response_loss(policy, train, at_once),
        "initial_validation_loss": initial,
        "validation_loss": mean_response_loss(policy, validation, at_once),
        "demonstrations": float(len(train)),
        "validation_demonstrations": float(len(validation)),
        **train.cuts.metrics(),
    }
    with writing_output(spec.output) as folder:
        training.save(spec.sampling, folder)
    numbers = {name: value for name, value in metrics.items() if value is not None}
    return TrainingResult(spec.output, numbers, {"loss": losses} if losses else {}, _warnings(policy, train, spec))


def _opened(spec: SftSpec, sharding: Sharding) -> PolicyTraining:
    lora, opening = spec.settings.lora, sharding.opening
    policy = load_unpadded_policy(spec.model, opening, spec.seed, bases_of(lora, opening))
    _check(policy, spec)
    allow_special_tokens(policy.tokenizer, spec.settings.special_tokens_in_text)
    set_chat(policy.tokenizer, spec.settings.chat, ends_in_config(policy.model.generation_config))
    if spec.settings.packing:
        _require_packing(policy)
    training = PolicyTraining(policy, lora, spec.compute, spec.seed)
    training.shard(sharding)
    return training


def _warnings(policy: Policy, train: Demonstrations, spec: SftSpec) -> list[str]:
    """What is noticeable about the chat template, where it is used, and what is lost of demonstrations: all of them
    where none is learned from."""
    noticed = template_findings(policy.tokenizer) if spec.settings.chat else []
    setting = "sampling.response_tokens" if spec.sampling.fixed_length else "sft.max_tokens"
    lost = train.cuts.warnings(setting, judged=False) if spec.settings.epochs else [UNTAUGHT]
    return [*(finding.sentence for finding in noticed), *lost]


def response_loss(model: PreTrainedModel, batch: dict[str, Tensor]) -> Tensor:
    """Mean negative log-likelihood of the response tokens of a collated batch, in nats.

    The last token predicts nothing and is not fed; the output head, which with a large vocabulary costs more than many
    layers, runs only at positions that predict response tokens.
    """
    labels = batch["labels"][:, 1:]
    learned = labels != IGNORED
    mask = batch["attention_mask"]
    read = {"attention_mask": mask[:, :-1] if mask.dim() == 2 else mask[..., :-1, :-1]}
    read |= {name: batch[name][:, :-1] for name in ("input_ids", "position_ids") if name in batch}
    return next_token_loss(model, labels, learned, **read)


@torch.no_grad()
def mean_response_loss(policy: Policy, rows: Demonstrations, batch_size: int) -> float | None:
    """Mean negative log-likelihood of the response tokens of the first 1,024 rows, in nats; None without rows."""
    total = tokens = 0.0
    policy.model.eval()
    for start in range(0, min(len(rows), MEASURED_ROWS), batch_size):
        batch = _collate(rows.rows[start : start + batch_size], policy.tokenizer.pad_token_id)
        n = float((batch["labels"] != IGNORED).sum())
        loss = response_loss(policy.model, {name: tensor.to(policy.device) for name, tensor in batch.items()})
        total, tokens = total + loss.item() * n, tokens + n
    return total / tokens if tokens else None


def _fit(
    training: PolicyTraining, train: Demonstrations, spec: SftSpec, progress: OnStep, keeper: StateKeeper
) -> list[float]:
    settings = spec.settings
    if not settings.epochs:
        # As it is; where adapters are asked for that stay adapters, with some that add nothing.
        training.begin(trains=False)
        training.end()
        return []
    capacity = settings.max_tokens if settings.packing else 0
    collate = partial(_collate, pad_id=training.policy.tokenizer.pad_token_id, capacity=capacity)
    curves = fit_policy(
        partial(SftTrainer, keeper, train.lengths if settings.length_buckets else None, settings.schedule),
        training,
        progress,
        rows=train,
        collate=lambda rows: own_parts(rows, settings.accumulate, lambda row: len(row.response), collate),
        seed=spec.seed,
        batch_size=settings.batch_size,
        num_train_epochs=settings.epochs,
        learning_rate=settings.learning_rate,
        weight_decay=settings.weight_decay,
    )
    return curves["loss"]


def _collate(rows: list[Demonstration], pad_id: int, capacity: int = 0) -> dict[str, torch.Tensor]:
    """Right-padded ids and mask [B, L], and labels that are -100 at prompt and padding; with a ``capacity`` above 0,
    texts packed into rows of at most that many tokens (:func:`pack`)."""
    if capacity:
        texts = [row.prompt + row.response for row in rows]
        return pack(texts, [[IGNORED] * len(row.prompt) + row.response for row in rows], capacity, pad_id)
    batch = pad([row.prompt + row.response for row in rows], pad_id, "right")
    labels = batch.input_ids.masked_fill(batch.attention_mask == 0, IGNORED)
    for label, row in zip(labels, rows, strict=True):
        label[: len(row.prompt)] = IGNORED
    return {"input_ids": batch.input_ids, "attention_mask": batch.attention_mask, "labels": labels}


def _require_packing(policy: Policy) -> None:
    if refusal := packing_refusal(policy.model):
        raise UserError(refusal)


def _check(policy: Policy, spec: SftSpec) -> None:
    require_context(policy.model.config, spec.settings.max_tokens, "sft.max_tokens")
    needed = spec.sampling.prompt_tokens + spec.sampling.response_tokens
    require_context(policy.model.config, needed, "sampling.prompt_tokens + sampling.response_tokens")
    if spec.sampling.prompt_tokens >= spec.settings.max_tokens:
        raise UserError("sft.max_tokens must be above sampling.prompt_tokens, or no room is left for a response.")
