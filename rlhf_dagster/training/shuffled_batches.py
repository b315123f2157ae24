"""Which rows are in which batch of a training."""

from collections.abc import Iterator, Sequence

import torch
from torch.utils.data import Sampler

BUCKET_BATCHES = 32
"""How many batches' rows are sorted by length together: few enough that batches stay random."""


class ShuffledBatches(Sampler[list[int]]):
    """Batches of row numbers, in another random order in each epoch; the order depends on seed and epoch alone.

    With ``lengths``, the rows of a batch have similar lengths, which saves padding: of the shuffled rows, each stretch
    of `BUCKET_BATCHES` batches is sorted by length and cut into batches, and then all batches are shuffled.
    """

    def __init__(self, rows: int, size: int, seed: int, lengths: Sequence[int] | None = None) -> None:
        self.rows, self.size, self.seed, self.lengths, self.epoch = rows, size, seed, lengths, 0

    def __len__(self) -> int:
        return (self.rows + self.size - 1) // self.size

    def __iter__(self) -> Iterator[list[int]]:
        generator = torch.Generator().manual_seed(self.seed + self.epoch)
        order = torch.randperm(self.rows, generator=generator).tolist()
        if self.lengths is None:
            yield from _cut(order, self.size)
            return
        lengths = self.lengths
        stretches = _cut(order, self.size * BUCKET_BATCHES)
        batches = [batch for rows in stretches for batch in _cut(sorted(rows, key=lambda row: lengths[row]), self.size)]
        yield from (batches[index] for index in torch.randperm(len(batches), generator=generator).tolist())


def _cut(rows: list[int], size: int) -> list[list[int]]:
    return [rows[first : first + size] for first in range(0, len(rows), size)]
