"""A key-value cache that is written in place, and whose rows can be dropped."""

from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache, PretrainedConfig
from transformers.cache_utils import DynamicLayer


def make_cache(config: PretrainedConfig, capacity: int) -> DynamicCache:
    """A cache for at most ``capacity`` tokens a row; layers with other than full attention keep their own kind."""
    cache = DynamicCache(config=config)
    cache.layers = [BufferedLayer(capacity) if type(layer) is DynamicLayer else layer for layer in cache.layers]
    return cache


class BufferedLayer(DynamicLayer):
    """Keys and values [B, heads, L, d] as the filled part of buffers: a new token copies none of those before."""

    def __init__(self, capacity: int) -> None:
        super().__init__()
        self.capacity, self.length = capacity, 0

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        super().lazy_initialization(key_states, value_states)
        self.buffers = [_buffer(states, self.capacity) for states in (key_states, value_states)]

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Append the states [B, heads, n, d] of n tokens; returns all keys and values."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        new = slice(self.length, self.length + key_states.shape[-2])
        for buffer, states in zip(self.buffers, (key_states, value_states), strict=True):
            buffer[:, :, new] = states
        self.length = new.stop
        return self._show()

    def batch_select_indices(self, indices: Tensor) -> None:
        """Keep the rows ``indices`` alone."""
        self.buffers = [buffer[indices] for buffer in self.buffers]
        self._show()

    def _show(self) -> tuple[Tensor, Tensor]:
        self.keys, self.values = (buffer[:, :, : self.length] for buffer in self.buffers)
        return self.keys, self.values


def _buffer(states: Tensor, capacity: int) -> Tensor:
    rows, heads, _, width = states.shape
    return torch.empty(rows, heads, capacity, width, dtype=states.dtype, device=states.device)
