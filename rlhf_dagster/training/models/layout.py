"""Rows of a padded batch moved to its left edge, for models that do not pass over padding on the left.

Nothing that a causal model computes at a token depends on what stands behind it. So any such model reads a row right
that begins in the first column, whatever it makes of masks and positions: an architecture whose recurrent state takes
in padding, or that counts positions from the edge of the batch.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from rlhf_dagster.training.texts.tokens import PaddedBatch


class Moved(NamedTuple):
    """A batch whose rows begin in the first column."""

    batch: PaddedBatch
    places: Tensor
    """[B, L] the column in which each token of the given batch stands now."""

    def back(self, outputs: Tensor) -> Tensor:
        """``outputs`` [B, L, ...] at the moved tokens, where they belong in the given batch."""
        places = self.places.view(*self.places.shape, *[1] * (outputs.dim() - 2))
        return outputs.gather(1, places.expand(*self.places.shape, *outputs.shape[2:]))


def moved_left(batch: PaddedBatch) -> Moved:
    """Each row of ``batch`` [B, L] with its real tokens first, in their order, and its padding behind them."""
    order = (batch.attention_mask == 0).long().argsort(dim=1, stable=True)
    moved = PaddedBatch(batch.input_ids.gather(1, order), batch.attention_mask.gather(1, order))
    return Moved(moved, order.argsort(dim=1))


def groups_of_length(batch: PaddedBatch) -> list[tuple[Tensor, Tensor]]:
    """Rows of the same length together, without padding: the indices [n] of the rows, and their ids [n, length]."""
    lengths, moved = batch.attention_mask.sum(dim=1), moved_left(batch).batch.input_ids
    found = [(length, (lengths == length).nonzero()[:, 0]) for length in torch.unique(lengths).tolist()]
    return [(rows, moved[rows, :length]) for length, rows in found]
