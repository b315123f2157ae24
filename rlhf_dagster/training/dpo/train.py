"""Direct preference optimisation: a policy from preference labels alone, held to the SFT policy."""

from collections.abc import Sequence
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor
from torch.utils.data import Dataset

from rlhf_dagster.training.checkpoints.context import require_context
from rlhf_dagster.training.dpo.inputs import READ_BY_DPO, checked_labels, encode_splits
from rlhf_dagster.training.dpo.objectives import PairLoss, objective_of, response_log_prob_sums
from rlhf_dagster.training.dpo.pairs import Comparison, collate_pairs
from rlhf_dagster.training.models.log_probs import decoding_of
from rlhf_dagster.training.models.policies import Policy, load_policy
from rlhf_dagster.training.models.sharding.opening import Sharding, sharding_models
from rlhf_dagster.training.models.sharding.policies import PolicyTraining
from rlhf_dagster.training.models.sharding.weights import has_shards
from rlhf_dagster.training.models.shared_bases import bases_of
from rlhf_dagster.training.runtime.device import training_on
from rlhf_dagster.training.runtime.distributed import gather_rows, largest_of_ranks, own_slice, sum_of_ranks
from rlhf_dagster.training.runtime.output import writing_output
from rlhf_dagster.training.runtime.resuming import KEEP_NOTHING, Checkpointing, fingerprint
from rlhf_dagster.training.runtime.sharding.tensors import shards
from rlhf_dagster.training.runtime.state_keeper import StateKeeper
from rlhf_dagster.training.specs import DpoSpec, OnStep, TrainingResult, silent
from rlhf_dagster.training.texts.cuts import Cuts
from rlhf_dagster.training.trainer import KeptTrainer, fit_policy, own_parts, rows_at_once

MEASURED_COMPARISONS = 1024


class Comparisons(Dataset[tuple[Comparison, Tensor]]):
    """Comparisons, each with the log-probs [K] of its responses under the reference policy."""

    def __init__(self, rows: list[Comparison], reference: Tensor) -> None:
        """``reference`` [N] are the log-probs of all responses, comparison by comparison."""
        self.rows = rows
        self.reference = reference.split([len(row.responses) for row in rows])

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> tuple[Comparison, Tensor]:
        return self.rows[index], self.reference[index]


class DpoTrainer(KeptTrainer):
    """A Trainer on comparisons, whose responses are all read in one forward pass."""

    curve_names = ("loss", "reward_margin", "accuracy")
    stage = "dpo"

    def __init__(self, keeper: StateKeeper, pair_loss: PairLoss, **arguments: Any) -> None:
        super().__init__(keeper, **arguments)
        self.pair_loss = pair_loss
        self.numbers: list[dict[str, Tensor]] = []
        """The numbers of each part of the current batch."""

    def training_step(self, model: Any, inputs: dict[str, Any], num_items_in_batch: Any = None) -> Tensor:
        parts = [cast("dict[str, Tensor]", self._prepare_inputs(part)) for part in inputs["parts"]]
        model.train()
        self.pair_loss.prepare(model, parts, lambda sums: sum_of_ranks(sums.to(parts[0]["weight"].device)))
        return super().training_step(model, {"parts": parts}, num_items_in_batch)

    def compute_loss(
        self, model: Any, inputs: dict[str, Tensor], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        loss, numbers = self.pair_loss(model, inputs)
        # A part without rows of its own holds one row with scale 0 (own_parts): its pairs must not count either.
        self.numbers.append(numbers | {"decided": numbers["decided"] * (inputs["scale"] > 0)})
        return (loss * inputs["scale"], {}) if return_outputs else loss * inputs["scale"]

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Called after every step, on every rank."""
        if "loss" in logs:
            logs |= _mean_of_parts(self.numbers)
            self.numbers = []
        super().log(logs, start_time)


def train_dpo(spec: DpoSpec, progress: OnStep = silent, checkpointing: Checkpointing = KEEP_NOTHING) -> TrainingResult:
    """Train on the `train` labels of every kind, with the SFT policy as the reference (:func:`encode_splits`).

    The reference's log-probs are computed once, before training, and kept with the state: no second model is in memory.
    Metrics, by split: `loss` (nats; IPO: squared nats; KTO: between 0 and 1), `accuracy` and `reward_margin`
    (:func:`pair_numbers`), and the number of `comparisons`, or of judged `responses` with KTO. Curves have one number
    for each step. Responses that are equal where they are cut are no pair; comparisons without a pair are left out and
    counted as `equal_comparisons`, cut ones as `cut_responses`.

    Raises:
        TrainingStopped: `checkpointing.stop` gave a reason.
        UserError: what the spec names cannot be trained, or the training diverged.
    """
    with training_on(spec.compute):
        return _train(spec, progress, StateKeeper(checkpointing, fingerprint(spec), shards(spec.compute)))


def _train(spec: DpoSpec, progress: OnStep, keeper: StateKeeper) -> TrainingResult:
    labels = checked_labels(spec)
    with sharding_models(spec.compute, shards(spec.compute), mean=True) as sharding:
        training = _opened(spec, sharding)
    policy, cuts = training.policy, Cuts()
    splits = with_reference(encode_splits(spec, labels, policy.tokenizer, cuts), policy, spec, keeper)
    curves = _fit(training, splits["train"], spec, progress, keeper)
    pair_loss = objective_of(spec.settings, decoding_of(policy.tokenizer, spec.sampling))
    metrics = cuts.metrics() | {
        f"{name}_{split}": value
        for split, rows in splits.items()
        for name, value in measure(training.policy, rows, pair_loss, rows_at_once(spec.settings)).items()
    }
    with writing_output(spec.output) as folder:
        training.save(spec.sampling, folder)
    return TrainingResult(spec.output, metrics, curves, cuts.warnings(READ_BY_DPO))


def _opened(spec: DpoSpec, sharding: Sharding) -> PolicyTraining:
    lora, opening = spec.settings.lora, sharding.opening
    policy = load_policy(spec.sft, opening, bases_of(lora, opening), trained=True)
    needed = spec.sampling.prompt_tokens + spec.sampling.response_tokens
    require_context(policy.model.config, needed, "sampling.prompt_tokens + sampling.response_tokens")
    training = PolicyTraining(policy, lora, spec.compute, spec.seed)
    training.shard(sharding)
    return training


def with_reference(
    splits: dict[str, list[Comparison]], policy: Policy, spec: DpoSpec, keeper: StateKeeper
) -> dict[str, Comparisons]:
    """Each split with the log-probs of ``policy``, which is the reference until it is trained."""
    rows = [row for split in splits.values() for row in split]
    sizes = [sum(len(row.responses) for row in split) for split in splits.values()]
    known = keeper.once("reference", lambda: reference_log_probs(policy, rows, spec))
    if len(known) != sum(sizes):  # a state of version 0.1, which left no comparison out
        known = reference_log_probs(policy, rows, spec)
    known = known.split(sizes)
    return {name: Comparisons(split, part) for (name, split), part in zip(splits.items(), known, strict=True)}


@torch.no_grad()
def reference_log_probs(policy: Policy, rows: Sequence[Comparison], spec: DpoSpec) -> Tensor:
    """[N] log-probs of all responses of ``rows``, comparison by comparison; each rank computes its part of them."""
    decoding, pad_id = decoding_of(policy.tokenizer, spec.sampling), policy.tokenizer.pad_token_id
    responses = [Comparison(row.prompt, [ids], []) for row in rows for ids in row.responses]
    own, unknown = responses[own_slice(len(responses))], torch.zeros(1)
    parts = [torch.zeros(0, device=policy.device)]
    # Where the policy is in parts, all ranks make as many passes: one that has nothing left reads a row for nothing.
    count = largest_of_ranks(len(own)) if has_shards(policy.model) else len(own)
    for start in range(0, count, spec.sampling.batch_size):
        part = own[start : start + spec.sampling.batch_size]
        read = part or responses[:1]
        batch = _on(policy.device, collate_pairs(read, [unknown] * len(read), pad_id))
        parts.append(response_log_prob_sums(policy.model, batch, decoding)[: len(part)])
    return gather_rows(torch.cat(parts), len(responses))


@torch.no_grad()
def measure(policy: Policy, rows: Comparisons, pair_loss: PairLoss, batch_size: int) -> dict[str, float]:
    """Loss and :func:`pair_numbers` of the first 1,024 comparisons, by weight, and the number of all.

    `accuracy` and `reward_margin` are absent where all pairs tie.
    """
    sums = dict.fromkeys(("weight", "loss", "decided", "accuracy", "reward_margin"), 0.0)
    batches = _batches(policy, rows, batch_size)
    pair_loss.prepare(policy.model, batches)
    for batch in batches:
        loss, numbers = pair_loss(policy.model, batch)
        weight, decided = float(batch["weight"].sum()), float(numbers["decided"])
        sums["weight"] += weight
        sums["loss"] += weight * float(loss)
        sums["decided"] += decided
        for name in ("accuracy", "reward_margin"):
            sums[name] += decided * float(numbers[name])
    measured = {pair_loss.counted: float(len(rows)), "loss": sums["loss"] / sums["weight"]}
    if sums["decided"]:
        measured |= {name: sums[name] / sums["decided"] for name in ("accuracy", "reward_margin")}
    return measured


def _batches(policy: Policy, rows: Comparisons, batch_size: int) -> list[dict[str, Tensor]]:
    """The batches that are measured, collated."""
    starts, pad_id = range(0, min(len(rows), MEASURED_COMPARISONS), batch_size), policy.tokenizer.pad_token_id
    parts = ([rows[index] for index in range(start, min(start + batch_size, len(rows)))] for start in starts)
    return [_on(policy.device, _collate(part, pad_id)) for part in parts]


def _fit(
    training: PolicyTraining, train: Comparisons, spec: DpoSpec, progress: OnStep, keeper: StateKeeper
) -> dict[str, list[float]]:
    settings, tokenizer = spec.settings, training.policy.tokenizer
    collate = partial(_collate, pad_id=tokenizer.pad_token_id)
    return fit_policy(
        partial(
            DpoTrainer,
            keeper,
            objective_of(settings, decoding_of(tokenizer, spec.sampling)),
            schedule=settings.schedule,
        ),
        training,
        progress,
        rows=train,
        collate=lambda rows: own_parts(rows, settings.accumulate, _weight, collate),
        seed=spec.seed,
        batch_size=settings.batch_size,
        max_grad_norm=settings.max_grad_norm,
        num_train_epochs=settings.epochs,
        learning_rate=settings.learning_rate,
        adam_epsilon=settings.adam_epsilon,
    )


def _weight(row: tuple[Comparison, Tensor]) -> float:
    return sum(pair.weight for pair in row[0].pairs)


def _collate(rows: list[tuple[Comparison, Tensor]], pad_id: int) -> dict[str, Tensor]:
    return collate_pairs([row for row, _ in rows], [reference for _, reference in rows], pad_id)


def _on(device: torch.device, batch: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.to(device) for name, tensor in batch.items()}


def _mean_of_parts(parts: list[dict[str, Tensor]]) -> dict[str, float]:
    """`accuracy` and `reward_margin` over the decided pairs of all parts of all ranks."""
    names = ("accuracy", "reward_margin")
    sums = [torch.stack([*(part[name] * part["decided"] for name in names), part["decided"]]) for part in parts]
    *weighted, total = sum_of_ranks(torch.stack(sums).sum(dim=0)).tolist()
    return {name: value / total if total else 0.0 for name, value in zip(names, weighted, strict=True)}
