"""Floating-point operations of a PPO update: those of the algorithm, counted from the shape.

A multiplication and an addition are two operations. Counted are matrix products: of the layers' weights (12 d² for each
layer and token), of the output head (d V for each token that it predicts), and of attention (4 L d for each layer and
token of L, halved because a token looks back alone). A backward pass has twice those of its forward pass. Norms,
activations, softmax, the optimiser and whatever an implementation computes beside or twice count nothing.
"""

from dataclasses import dataclass

from benchmarks.training.inputs import Shape


@dataclass(frozen=True)
class Episodes:
    """What an update samples and learns from."""

    count: int
    prompt: int
    response: int
    epochs: int


def forward(shape: Shape, rows: int, tokens: int, predicted: int) -> float:
    """A forward pass over ``rows`` of ``tokens``, with the head on ``predicted`` tokens of each."""
    weights = 2 * 12 * shape.width**2 * shape.layers * tokens
    attention = 4 * shape.width * shape.layers * tokens**2 / 2
    return rows * (weights + attention + 2 * shape.width * shape.vocabulary * predicted)


def ppo_update(shape: Shape, episodes: Episodes) -> float:
    """Sampling, reference, score, and the epochs on a policy whose value head shares the trunk."""
    fed = episodes.prompt + episodes.response - 1
    sampled = forward(shape, episodes.count, fed, episodes.response)
    reference = sampled
    scored = forward(shape, episodes.count, fed + 1, 0)
    return sampled + reference + scored + 3 * episodes.epochs * sampled
