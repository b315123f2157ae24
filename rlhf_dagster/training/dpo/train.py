"""Direct preference optimisation: a policy from preference labels alone, held to the SFT policy."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset
from transformers import PreTrainedModel

from rlhf_dagster.config.training import DpoSettings
from rlhf_dagster.lineage.model_folders import tokenizer_digest
from rlhf_dagster.records.schemas import PREFERENCES
from rlhf_dagster.records.tables import HELD_OUT_SPLITS, read_table, rows_of_split
from rlhf_dagster.training.checkpoints.context import require_context
from rlhf_dagster.training.dpo.losses import PAIR_LOSSES, pair_numbers, smoothed
from rlhf_dagster.training.dpo.pairs import Comparison, collate_pairs, encode_comparisons
from rlhf_dagster.training.models.log_probs import Decoding, decoding_of
from rlhf_dagster.training.models.passes.logit_pieces import log_probs_of
from rlhf_dagster.training.models.policies import Policy, load_policy, save_policy
from rlhf_dagster.training.reward.labels import check_labels
from rlhf_dagster.training.runtime.device import training_on
from rlhf_dagster.training.runtime.distributed import gather_rows, own_slice, sum_of_ranks
from rlhf_dagster.training.runtime.output import writing_output
from rlhf_dagster.training.runtime.resuming import KEEP_NOTHING, Checkpointing, fingerprint
from rlhf_dagster.training.runtime.seeding import seed_everything
from rlhf_dagster.training.runtime.state_keeper import StateKeeper
from rlhf_dagster.training.specs import DpoSpec, OnStep, TrainingResult, silent
from rlhf_dagster.training.texts.cuts import Cuts
from rlhf_dagster.training.texts.tokens import PaddedBatch
from rlhf_dagster.training.trainer import KeptTrainer, fit_policy, own_parts, rows_at_once

MEASURED_COMPARISONS = 1024
READ_BY_DPO = "sampling.response_tokens"
"""The setting that says how much of a response is read."""


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


@dataclass(frozen=True)
class PairLoss:
    """The loss of a collated batch, and the numbers reported beside it."""

    settings: DpoSettings
    decoding: Decoding

    def __call__(self, model: Any, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """Mean loss of the batch's pairs by their weights, and :func:`pair_numbers`."""
        ratios = response_log_prob_sums(model, batch, self.decoding) - batch["reference"]
        h, weight = ratios[batch["first"]] - ratios[batch["second"]], batch["weight"]
        preferred = smoothed(batch["preferred"], self.settings.label_smoothing)
        losses = PAIR_LOSSES[self.settings.loss](h, preferred, self.settings.beta)
        numbers = pair_numbers(h.detach(), batch["preferred"], weight, self.settings.beta)
        return (weight * losses).sum() / weight.sum(), numbers


class DpoTrainer(KeptTrainer):
    """A Trainer on comparisons, whose responses are all read in one forward pass."""

    curve_names = ("loss", "reward_margin", "accuracy")
    stage = "dpo"

    def __init__(self, keeper: StateKeeper, pair_loss: PairLoss, **arguments: Any) -> None:
        super().__init__(keeper, **arguments)
        self.pair_loss = pair_loss
        self.numbers: list[dict[str, Tensor]] = []
        """The numbers of each part of the current batch."""

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
    """Train on the `train` labels of every kind (:func:`encode_comparisons`), with the SFT policy as the reference.

    The reference's log-probs are computed once, before training, and kept with the state: no second model is in memory.
    Metrics, by split: `loss` (nats; IPO: squared nats), `accuracy` and `reward_margin` (:func:`pair_numbers`), and the
    number of `comparisons`. Curves have one number for each step. Responses that are equal where they are cut are no
    pair; comparisons without a pair are left out and counted as `equal_comparisons`, cut ones as `cut_responses`.

    Raises:
        TrainingStopped: `checkpointing.stop` gave a reason.
        UserError: what the spec names cannot be trained, or the training diverged.
    """
    with training_on(spec.compute):
        return _train(spec, progress, StateKeeper(checkpointing, fingerprint(spec)))


def _train(spec: DpoSpec, progress: OnStep, keeper: StateKeeper) -> TrainingResult:
    frame = read_table(spec.preferences, PREFERENCES)
    check_labels(frame, spec.preferences)
    policy = load_policy(spec.sft, spec.compute)
    needed = spec.sampling.prompt_tokens + spec.sampling.response_tokens
    require_context(policy.model.config, needed, "sampling.prompt_tokens + sampling.response_tokens")
    tables = {"train": rows_of_split(frame, "train", spec.preferences)}
    tables |= {split: rows for split in HELD_OUT_SPLITS if len(rows := frame[frame["split"] == split])}
    cuts, own = Cuts(), tokenizer_digest(spec.sft)
    encoded = {"train": encode_comparisons(tables.pop("train"), policy.tokenizer, spec.sampling, cuts, own)}
    cuts.require_some(READ_BY_DPO)
    held_out = {
        split: encode_comparisons(rows, policy.tokenizer, spec.sampling, tokenizer_id=own)
        for split, rows in tables.items()
    }
    encoded |= {split: rows for split, rows in held_out.items() if rows}
    splits = with_reference(encoded, policy, spec, keeper)
    trained, curves = _fit(policy, splits["train"], spec, progress, keeper)
    pair_loss = PairLoss(spec.settings, decoding_of(policy.tokenizer, spec.sampling))
    metrics = cuts.metrics() | {
        f"{name}_{split}": value
        for split, rows in splits.items()
        for name, value in measure(trained, rows, pair_loss, rows_at_once(spec.settings)).items()
    }
    with writing_output(spec.output) as folder:
        save_policy(trained, spec.sampling, folder)
    return TrainingResult(spec.output, metrics, curves, cuts.warnings(READ_BY_DPO))


def response_log_prob_sums(model: PreTrainedModel, batch: dict[str, Tensor], decoding: Decoding) -> Tensor:
    """[N] log-probs of the responses of a collated batch, at the sampling temperature.

    The sum over response tokens, not the mean: the optimum's log-ratio is one of whole responses (Rafailov et al. 2023,
    equation 4). Tokens that the policy can never draw, such as an unknown word, count nothing under any policy.
    """
    read, tokens = PaddedBatch(batch["input_ids"], batch["attention_mask"]), batch["tokens"]
    never = torch.tensor(decoding.suppressed, dtype=torch.long, device=tokens.device)
    mask = batch["response_mask"] * ~torch.isin(tokens, never)
    return log_probs_of(model, read, tokens, mask, decoding)[0].sum(dim=1)


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
    for start in range(0, len(own), spec.sampling.batch_size):
        part = own[start : start + spec.sampling.batch_size]
        batch = _on(policy.device, collate_pairs(part, [unknown] * len(part), pad_id))
        parts.append(response_log_prob_sums(policy.model, batch, decoding))
    return gather_rows(torch.cat(parts), len(responses))


@torch.no_grad()
def measure(policy: Policy, rows: Comparisons, pair_loss: PairLoss, batch_size: int) -> dict[str, float]:
    """Loss and :func:`pair_numbers` of the first 1,024 comparisons, by weight, and the number of all.

    `accuracy` and `reward_margin` are absent where all pairs tie.
    """
    sums = dict.fromkeys(("weight", "loss", "decided", "accuracy", "reward_margin"), 0.0)
    for start in range(0, min(len(rows), MEASURED_COMPARISONS), batch_size):
        part = [rows[index] for index in range(start, min(start + batch_size, len(rows)))]
        batch = _on(policy.device, _collate(part, policy.tokenizer.pad_token_id))
        loss, numbers = pair_loss(policy.model, batch)
        weight, decided = float(batch["weight"].sum()), float(numbers["decided"])
        sums["weight"] += weight
        sums["loss"] += weight * float(loss)
        sums["decided"] += decided
        for name in ("accuracy", "reward_margin"):
            sums[name] += decided * float(numbers[name])
    measured = {"comparisons": float(len(rows)), "loss": sums["loss"] / sums["weight"]}
    if sums["decided"]:
        measured |= {name: sums[name] / sums["decided"] for name in ("accuracy", "reward_margin")}
    return measured


def _fit(
    policy: Policy, train: Comparisons, spec: DpoSpec, progress: OnStep, keeper: StateKeeper
) -> tuple[Policy, dict[str, list[float]]]:
    settings = spec.settings
    collate = partial(_collate, pad_id=policy.tokenizer.pad_token_id)
    seed_everything(spec.seed)
    return fit_policy(
        partial(
            DpoTrainer,
            keeper,
            PairLoss(settings, decoding_of(policy.tokenizer, spec.sampling)),
            schedule=settings.schedule,
        ),
        policy,
        settings.lora,
        progress,
        spec.compute,
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
