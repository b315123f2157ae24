"""How a model reads a batch of rows of several lengths, found out by running it.

Transformers' architectures differ in what they make of padding on the left: most leave it out where a mask and the
positions of the real tokens are given, some take positions from the mask alone, some ignore both. What is right is what
the model computes for a row by itself, without padding. :func:`reading_of` compares, once for each opened model.
"""

import inspect
from collections.abc import Hashable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Any, cast

import torch
from torch import Tensor
from transformers import PreTrainedModel

from rlhf_dagster.errors import UserError, first_line
from rlhf_dagster.training.checkpoints.context import context_of
from rlhf_dagster.training.checkpoints.tokenizers import vocabulary_rows
from rlhf_dagster.training.models.abilities import Reading, abilities_of
from rlhf_dagster.training.models.layout import moved_left
from rlhf_dagster.training.texts.tokens import PaddedBatch, TokenIds, pad, position_ids

TRIAL_LENGTHS = (7, 30, 3, 12, 12)
"""Of the rows that a model is tried on: two of the same, which are sampled together where rows of one length are."""
RELATIVE, ABSOLUTE = 2e-3, 1e-4
"""How far outputs may differ by rounding: the first times their spread, plus the second. Wrong positions, or a state
that padding has gone into, change them by a good part of their spread."""


class Unreadable(UserError):  # noqa: N818
    """No way of giving rows to a model makes it compute what it computes for each row by itself."""


def reading_of(model: Any) -> Reading:
    """How ``model``, which may be wrapped for several ranks, reads rows: as kept with it, or found out now.

    Raises:
        Unreadable: the model is not causal, or mixes the rows of a batch.
    """
    known = abilities_of(model)
    if known.reading is None:
        known.reading = find_reading(getattr(model, "module", model))
    return known.reading


@torch.no_grad()
def find_reading(model: PreTrainedModel) -> Reading:
    """Try the ways of giving rows, the fastest first; raises Unreadable where none is right."""
    rows = trial_rows(model)
    with as_in_sampling(model):
        alone = [_alone(model, row) for row in rows]
        _require_causal(model, rows[1], alone[1])
        for reading in (Reading(), Reading(positions=False), Reading("right", positions=False)):
            if _reads_right(model, rows, alone, reading):
                return reading
    raise Unreadable(
        f"{type(model).__name__} computes other numbers for a row beside other rows than for the row alone, so that no "
        "log-probability of it can be trusted; choose another architecture."
    )


@torch.no_grad()
def require_bfloat16(model: PreTrainedModel) -> None:
    """Raise UserError where a forward pass with matrix products in bfloat16 fails, as in some architectures."""
    ids = torch.tensor([trial_rows(model)[0]], device=model.device)
    try:
        with torch.autocast(model.device.type, dtype=torch.bfloat16, cache_enabled=False):
            outputs_of(model, input_ids=ids, attention_mask=torch.ones_like(ids))
    except Exception as error:  # whatever an architecture raises
        raise UserError(
            f"{type(model).__name__} does not run with `compute.precision: bf16` ({first_line(error)}); set it to fp32."
        ) from None


def trial_rows(model: PreTrainedModel, lengths: Sequence[int] = TRIAL_LENGTHS) -> list[TokenIds]:
    """Rows of random ids of the embedding, short enough for the model; the same at every call."""
    generator = torch.Generator().manual_seed(0)
    known = vocabulary_rows(model)
    context = context_of(model.config) or max(lengths)
    # The first ids are often special: padding, begin and end of a text.
    first = min(8, known // 2)
    return [
        torch.randint(first, known, (max(2, min(length, context)),), generator=generator).tolist() for length in lengths
    ]


def close(ours: Tensor, right: Tensor) -> bool:
    """Whether outputs [..., n] are the same but for rounding."""
    if not torch.isfinite(ours).all():
        return False
    spread = right.float().std(dim=-1).mean()
    return bool((ours.float() - right.float()).abs().max() <= RELATIVE * spread + ABSOLUTE)


def arguments(model: Any, batch: PaddedBatch) -> dict[str, Tensor]:
    """What a forward pass of ``model`` over ``batch``, laid out as :func:`reading_of` says, is given."""
    given = {"input_ids": batch.input_ids, "attention_mask": batch.attention_mask}
    return given | {"position_ids": position_ids(batch.attention_mask)} if reading_of(model).positions else given


@contextmanager
def as_in_sampling(model: PreTrainedModel) -> Iterator[None]:
    """The model in float32 and in evaluation, for a trial."""
    training = model.training
    model.eval()
    try:
        with torch.autocast(model.device.type, enabled=False):
            yield
    finally:
        model.train(training)


def takes(model: Any, name: str) -> bool:
    """Whether a model's forward pass has an argument of this name."""
    return name in _parameters(cast("Hashable", type(getattr(model, "module", model))))


def accepted(model: Any, **given: Any) -> dict[str, Any]:
    """What of ``given`` a model's forward pass can be called with; some pass what they do not name on, others fail."""
    kinds = _parameters(cast("Hashable", type(getattr(model, "module", model))))
    if inspect.Parameter.VAR_KEYWORD in kinds.values():
        return given
    return {name: value for name, value in given.items() if name in kinds}


@cache
def _parameters(architecture: Any) -> dict[str, Any]:
    found = inspect.signature(architecture.forward).parameters
    return {name: parameter.kind for name, parameter in found.items()}


def outputs_of(model: PreTrainedModel, **given: Any) -> Tensor:
    """Logits [B, L, V] of a language model, or the hidden states [B, L, d] of a model without an output head."""
    with_head = model.get_output_embeddings() is not None
    read = model if with_head else model.base_model
    output = read(**accepted(read, **given, use_cache=False))
    return output.logits if with_head else output.last_hidden_state


def _alone(model: PreTrainedModel, row: TokenIds) -> Tensor:
    """Outputs [L, n] for a row by itself, without padding: what is right."""
    ids = torch.tensor([row], device=model.device)
    try:
        return outputs_of(model, input_ids=ids, attention_mask=torch.ones_like(ids))[0]
    except (RuntimeError, ValueError, TypeError, IndexError, KeyError, AttributeError, NotImplementedError) as error:
        raise Unreadable(
            f"{type(model).__name__} does not read a row of tokens alone ({first_line(error)}); choose a causal "
            "language model that needs no other input."
        ) from None


def _require_causal(model: PreTrainedModel, row: TokenIds, whole: Tensor) -> None:
    half = len(row) // 2
    if not close(_alone(model, row[:half]), whole[:half]):
        raise Unreadable(
            f"{type(model).__name__} computes other numbers for a token when others follow it, so that it gives no "
            "probability to a text and cannot be sampled; choose a causal language model."
        )


def _reads_right(model: PreTrainedModel, rows: list[TokenIds], alone: list[Tensor], reading: Reading) -> bool:
    batch = pad(rows, rows[0][0], "left").to(model.device)
    try:
        outputs = _read(model, batch, reading)
    except (RuntimeError, ValueError, TypeError, IndexError, AttributeError, NotImplementedError):
        return False
    return all(close(found[-len(right) :], right) for found, right in zip(outputs, alone, strict=True))


def _read(model: PreTrainedModel, batch: PaddedBatch, reading: Reading) -> Tensor:
    if reading.padding == "right":
        moved = moved_left(batch)
        ids = moved.batch.input_ids
        return moved.back(outputs_of(model, input_ids=ids, attention_mask=torch.ones_like(ids)))
    given = {"position_ids": position_ids(batch.attention_mask)} if reading.positions else {}
    return outputs_of(model, input_ids=batch.input_ids, attention_mask=batch.attention_mask, **given)
